//! The preload that lets Node drain kept connections politely.

use super::DeliverError;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const SOURCE: &str = include_str!("preload.cjs");

/// `NODE_OPTIONS` with the preload before what was there.
pub(super) fn options(home: &Path, own: Option<&str>) -> Result<OsString, DeliverError> {
    let path = write(home).map_err(|source| DeliverError::Preload {
        folder: home.to_owned(),
        source,
    })?;
    let mut options = OsString::from("--require=");
    options.push(quoted(&path));
    if let Some(own) = own.filter(|own| !own.trim().is_empty()) {
        options.push(" ");
        options.push(own);
    }
    Ok(options)
}

/// Writes the file if it isn't there as it should be. Processes may be reading an old one, so it is
/// replaced whole.
fn write(home: &Path) -> io::Result<PathBuf> {
    let path = home.join("preload.cjs");
    if fs::read(&path).is_ok_and(|there| there == SOURCE.as_bytes()) {
        return Ok(path);
    }
    let fresh = home.join(format!(".preload.cjs.{}", std::process::id()));
    let written = fs::write(&fresh, SOURCE)
        // Workers may run as another user.
        .and_then(|()| fs::set_permissions(&fresh, fs::Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&fresh, &path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written.map(|()| path)
}

/// Node splits its options at blanks, but within quotes.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    if !text.contains([' ', '"', '\\']) {
        return text.into_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_as_node_wants_it() {
        assert_eq!(quoted(Path::new("/run/ganger/x")), "/run/ganger/x");
        assert_eq!(quoted(Path::new("/a b/\"c\"")), "\"/a b/\\\"c\\\"\"");
    }
}
