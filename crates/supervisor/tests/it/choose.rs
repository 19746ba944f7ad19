//! Which rung of the ladder a program gets.

use crate::support::{command, Folder};
use ganger_supervisor::config::{Command, Deliver};
use ganger_supervisor::deliver::{choose, DeliverError, Rung};
use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};

/// A folder with programs of known names, all on the `PATH` of its commands.
fn programs() -> Folder {
    let folder = Folder::new();
    for (name, text) in [
        ("node", "#!/bin/sh\n"),
        ("server", "#!/usr/bin/env node\n"),
        ("options", "#!/usr/bin/env -S node --no-warnings\n"),
        ("direct", "#!/usr/local/bin/node\n"),
        ("npm", "#!/usr/bin/env node\n"),
        ("tsx", "#!/usr/bin/env node\n"),
        ("python3", "\u{7f}ELF"),
        ("uvicorn", "#!/usr/bin/python3\n"),
    ] {
        let path = folder.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    symlink("node", folder.0.join("node-20")).unwrap();
    symlink("node-20", folder.0.join("js")).unwrap();
    folder
}

fn with_path(folder: &Folder, line: &str) -> Command {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap();
    let mut command = command(program, &words.collect::<Vec<_>>());
    command.env = vec![("PATH".into(), folder.0.to_str().unwrap().into())];
    command
}

#[test]
fn node_itself_gets_its_own_protocol_and_all_else_is_answered() {
    let folder = programs();
    let rung = |line: &str| choose(Deliver::Auto, &with_path(&folder, line), true).unwrap();
    for line in [
        "node app.js",
        "node --max-old-space-size=100 --require x.js app.mjs --port 1",
        "node -r x.js --import tsx app.ts",
        "node -- app.js",
        "node-20 app.js",
        "js app.js",
        "server",
        "options",
        "direct",
    ] {
        assert_eq!(rung(line), (Rung::Node, Vec::new()), "{line}");
    }
    for (line, reason) in [
        ("python3 app.py", "not Node"),
        ("uvicorn app:app", "not Node"),
        ("npm start", "another process"),
        ("tsx app.ts", "another process"),
        ("node node_modules/.bin/tsx app.ts", "another process"),
        ("node -e 1", "node -e"),
        ("node --eval=1", "node --eval"),
        ("node --watch app.js", "node --watch"),
        ("node --run start", "node --run"),
        ("node inspect app.js", "node inspect"),
        ("node", "no script"),
        ("node --inspect", "no script"),
        ("missing", "not found"),
    ] {
        let (rung, notes) = rung(line);
        // Where the system forbids it, the notes say so.
        assert!(matches!(rung, Rung::Seccomp | Rung::ListenFds), "{line}");
        assert!(notes[0].contains(reason), "{line}: {notes:?}");
    }
    for line in [
        "uvicorn --fd 3 app:app",
        "python3 --fd=3",
        "python3 -b fd://3",
    ] {
        assert_eq!(rung(line).0, Rung::ListenFds, "{line}");
    }
}

#[test]
fn a_forced_rung_that_cannot_work_says_why() {
    let folder = programs();
    let python = with_path(&folder, "python3 app.py");
    let error = choose(Deliver::Node, &python, true).unwrap_err();
    assert!(matches!(
        &error,
        DeliverError::Forced {
            rung: Rung::Node,
            ..
        }
    ));
    assert_eq!(
        error.to_string(),
        "--deliver node can't work: `python3` is not Node"
    );
    assert_eq!(
        choose(Deliver::ListenFds, &python, true).unwrap().0,
        Rung::ListenFds
    );
    for (wanted, line) in [
        (Deliver::ListenFds, "python3 app.py"),
        (Deliver::Auto, "uvicorn --fd 3 app:app"),
    ] {
        let error = choose(wanted, &with_path(&folder, line), false).unwrap_err();
        assert!(matches!(error, DeliverError::NothingToInherit), "{line}");
    }
    match choose(Deliver::Seccomp, &python, true) {
        Ok((rung, notes)) => assert_eq!((rung, notes), (Rung::Seccomp, Vec::new())),
        Err(error) => assert!(error
            .to_string()
            .starts_with("--deliver seccomp can't work: ")),
    }
}
