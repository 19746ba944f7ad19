//! The workers of one app.
