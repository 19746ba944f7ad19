//! The life of a worker as a state machine: time and what happened are arguments.
