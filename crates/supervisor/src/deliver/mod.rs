//! How an unmodified program gets its slot's listener.

mod seccomp;

pub(crate) use seccomp::filter;
