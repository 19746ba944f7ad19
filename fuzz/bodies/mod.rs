//! What the fuzz targets run, apart from the fuzzer, so that `cargo test` can run it too.

pub mod image;
pub mod oracle;
pub mod program;
pub mod region_attach;
pub mod region_ops;
