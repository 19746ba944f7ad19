//! What most verbs do: connect, find the app that is meant, ask.

use super::{Failure, HomeArg};
use crate::control::client::Client;
use crate::control::{Reply, Request};
use crate::report::{AppStatus, Status};

/// How alike a name must be to be suggested.
const ALIKE: f64 = 0.5;

pub(crate) fn connect(home: &HomeArg) -> Result<Client, Failure> {
    Ok(Client::connect(&home.home())?)
}

pub(crate) fn status(client: &mut Client) -> Result<Status, Failure> {
    let mut found = None;
    client.ask(&Request::Status, |reply| {
        if let Reply::Status(status) = reply {
            found = Some(status);
        }
    })?;
    found.ok_or_else(|| Failure::new("the supervisor gave no status"))
}

/// The app that is meant: the named one, or the only one.
pub(crate) fn app(client: &mut Client, named: Option<&str>) -> Result<AppStatus, Failure> {
    choose(status(client)?.apps, named)
}

/// The app that is meant, and the worker if one is: `--worker 1`, or the app was written as `web.1`.
pub(crate) fn worker(
    client: &mut Client,
    named: Option<&str>,
    worker: Option<u16>,
) -> Result<(AppStatus, Option<u16>), Failure> {
    let apps = status(client)?.apps;
    let is_app = |name: &str| apps.iter().any(|app| app.name == name);
    let split = named
        .filter(|named| worker.is_none() && !is_app(named))
        .and_then(|named| named.rsplit_once('.'))
        .and_then(|(app, index)| Some((app, index.parse().ok()?)));
    match split {
        Some((app, index)) => Ok((choose(apps, Some(app))?, Some(index))),
        None => Ok((choose(apps, named)?, worker)),
    }
}

fn choose(mut apps: Vec<AppStatus>, named: Option<&str>) -> Result<AppStatus, Failure> {
    let names: Vec<String> = apps.iter().map(|app| app.name.clone()).collect();
    let at = match named {
        Some(named) => names
            .iter()
            .position(|name| name == named)
            .ok_or_else(|| Failure::new(no_such_app(named, &names)))?,
        None if apps.len() == 1 => 0,
        None if apps.is_empty() => return Err(Failure::new("no app is running")),
        None => {
            let text = format!("which app? There are {}", names.join(", "));
            return Err(Failure::usage(text));
        }
    };
    Ok(apps.swap_remove(at))
}

fn no_such_app(named: &str, names: &[String]) -> String {
    let closest = names
        .iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(named, name), name))
        .filter(|(alike, _)| *alike > ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    match (closest, names.is_empty()) {
        (Some((_, name)), _) => format!("there is no app `{named}`; did you mean `{name}`?"),
        (None, true) => format!("there is no app `{named}`; no app is running"),
        (None, false) => {
            format!("there is no app `{named}`; there are {}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_almost_right_is_suggested() {
        let names = ["web".to_owned(), "worker".to_owned()];
        assert_eq!(
            no_such_app("wbe", &names),
            "there is no app `wbe`; did you mean `web`?"
        );
        assert_eq!(
            no_such_app("database", &names),
            "there is no app `database`; there are web, worker"
        );
        assert!(no_such_app("web", &[]).contains("no app is running"));
    }
}
