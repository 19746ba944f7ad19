//! What worker code links.
#![forbid(unsafe_code)]
