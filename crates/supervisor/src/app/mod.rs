//! The workers of one app.

mod route;
