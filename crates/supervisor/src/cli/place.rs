//! Where workers run: the directory and the environment of whoever typed the command.

use super::Failure;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// The current directory, by the name that the shell has for it: behind a link that a release moves,
/// the next reload is to find what the link shows then.
pub(crate) fn current_dir() -> Result<PathBuf, Failure> {
    let real = std::env::current_dir()
        .map_err(|error| Failure::new(format!("the current directory: {error}")))?;
    let named = std::env::var_os("PWD").map(PathBuf::from);
    let is_real = |named: &PathBuf| {
        named.is_absolute() && std::fs::canonicalize(named).is_ok_and(|path| path == real)
    };
    Ok(named.filter(is_real).unwrap_or(real))
}

/// A worker's environment: ours, what the script wants, what was given. What is not UTF-8 can't be
/// handed on.
pub(crate) fn environment(
    ours: impl Iterator<Item = (OsString, OsString)>,
    found: &[(String, String)],
    given: &[(String, String)],
) -> Vec<(String, String)> {
    let mut all: BTreeMap<String, String> = ours
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        // Those are each worker's own.
        .filter(|(name, _)| {
            !matches!(
                name.as_str(),
                "LISTEN_FDS"
                    | "LISTEN_PID"
                    | "LISTEN_FDNAMES"
                    | "NOTIFY_SOCKET"
                    | "WATCHDOG_PID"
                    | "WATCHDOG_USEC"
            )
        })
        .collect();
    // To a pipe Python writes blocks of kilobytes: its lines would come minutes late.
    all.entry("PYTHONUNBUFFERED".into())
        .or_insert_with(|| "1".into());
    all.extend(found.iter().cloned());
    all.extend(given.iter().cloned());
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_ours_without_what_is_each_workers_own() {
        let ours = [("A", "1"), ("NOTIFY_SOCKET", "/x"), ("B", "2")];
        let ours = ours.map(|(name, value)| (name.into(), value.into()));
        let given = [("B".to_owned(), "3".to_owned())];
        let all = environment(ours.into_iter(), &[("A".into(), "0".into())], &given);
        let all: Vec<String> = all.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(all, ["A=0", "B=3", "PYTHONUNBUFFERED=1"]);
    }
}
