//! The supervisor's main loop.
