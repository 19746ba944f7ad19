//! How many CPUs this process may use.
