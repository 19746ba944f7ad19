//! The broker as a child process.
