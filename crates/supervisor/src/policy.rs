//! When a dead worker is started again, and when no more.
