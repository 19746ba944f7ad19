//! How an unmodified program gets its slot's listener.
