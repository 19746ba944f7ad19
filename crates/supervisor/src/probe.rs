//! Whether a worker still lives.
