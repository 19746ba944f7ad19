//! Which program runs what the user typed: `server.js` needs node, `app.py` python3, a directory
//! with a package.json its "start".

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Interpreters by extension; of several names the first that is there.
const INTERPRETERS: [(&str, &[&str]); 8] = [
    ("js", &["node"]),
    ("mjs", &["node"]),
    ("cjs", &["node"]),
    ("py", &["python3", "python"]),
    ("rb", &["ruby"]),
    ("php", &["php"]),
    ("pl", &["perl"]),
    ("sh", &["sh"]),
];
/// A package.json that is longer is not one.
const PACKAGE_MAX: u64 = 1 << 20;
/// What only a shell understands.
const SHELL_CHARACTERS: &str = "|&;<>()$`\\\"'*?[]#~{}!\n";

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The program: a path with a slash, or a name that `PATH` resolves.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Where, if not where the user is.
    pub cwd: Option<PathBuf>,
    /// What the user might wonder about, if anything.
    pub note: Option<String>,
}

/// Why nothing can be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InterpreterError {
    /// Nothing was typed.
    #[error("no command: say what to run, for example `ganger run -- node server.js`")]
    Nothing,
    /// Neither a file nor a program.
    #[error("{word}: there is no such file, and no such program in PATH")]
    NotFound {
        /// What was typed.
        word: String,
    },
    /// A file of which it can't be told how it is run.
    #[error("{word} is not executable, and what runs it is not known: say it, for example `ganger run -- python3 {word}`")]
    Unknown {
        /// What was typed.
        word: String,
    },
    /// TypeScript has many interpreters, and none that is everywhere.
    #[error("{word}: say what runs TypeScript here, for example `ganger run -- npx tsx {word}`")]
    TypeScript {
        /// What was typed.
        word: String,
    },
    /// The interpreter is not installed.
    #[error("{word} needs {interpreter}, which is not in PATH")]
    NoInterpreter {
        /// What was typed.
        word: String,
        /// What is missing.
        interpreter: &'static str,
    },
    /// A directory without a package.json.
    #[error("{word} is a directory without a package.json: say which file to run")]
    Directory {
        /// What was typed.
        word: String,
    },
    /// A package.json that can't be used.
    #[error("{}: {why}", path.display())]
    Package {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

#[derive(Deserialize)]
struct Package {
    #[serde(default)]
    scripts: BTreeMap<String, String>,
}

/// Finds out what runs these words. `cwd` is where the user is, `is_on_path` whether `PATH` has a
/// program of this name.
pub fn resolve(
    words: &[String],
    cwd: &Path,
    is_on_path: &dyn Fn(&str) -> bool,
) -> Result<Resolved, InterpreterError> {
    let (word, rest) = words.split_first().ok_or(InterpreterError::Nothing)?;
    if word.is_empty() {
        return Err(InterpreterError::Nothing);
    }
    let path = cwd.join(word);
    // As in a shell: a bare word is a program first, and only then a file.
    if !word.contains('/') && is_on_path(word) && !path.is_file() {
        return Ok(plain(word.clone(), rest));
    }
    match fs::metadata(&path) {
        Ok(found) if found.is_dir() => match path.join("package.json") {
            package if package.is_file() => start_of(&package, rest, is_on_path),
            _ => Err(InterpreterError::Directory { word: word.clone() }),
        },
        Ok(_) if path.file_name().is_some_and(|name| name == "package.json") => {
            start_of(&path, rest, is_on_path)
        }
        Ok(found) => file(word, &path, found.permissions().mode(), rest, is_on_path),
        Err(_) if !word.contains('/') && is_on_path(word) => Ok(plain(word.clone(), rest)),
        Err(_) => Err(InterpreterError::NotFound { word: word.clone() }),
    }
}

/// Whether one of the directories of a `PATH` has a program of this name.
pub fn is_in(path: &str, name: &str) -> bool {
    let mut directories = path.split(':').filter(|directory| !directory.is_empty());
    directories.any(|directory| {
        let found = fs::metadata(Path::new(directory).join(name));
        found.is_ok_and(|found| found.is_file() && is_executable(found.permissions().mode()))
    })
}

fn plain(program: String, args: &[String]) -> Resolved {
    Resolved {
        program,
        args: args.to_vec(),
        cwd: None,
        note: None,
    }
}

fn file(
    word: &str,
    path: &Path,
    mode: u32,
    rest: &[String],
    is_on_path: &dyn Fn(&str) -> bool,
) -> Result<Resolved, InterpreterError> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let extension = extension.unwrap_or_default();
    let interpreter = INTERPRETERS.iter().find(|(known, _)| *known == extension);
    if let Some((_, names)) = interpreter {
        let name = names.iter().find(|name| is_on_path(name));
        let name = name.ok_or_else(|| InterpreterError::NoInterpreter {
            word: word.to_owned(),
            interpreter: names[0],
        })?;
        let args = [&[word.to_owned()], rest].concat();
        return Ok(plain((*name).to_owned(), &args));
    }
    let word = word.to_owned();
    match extension {
        _ if is_executable(mode) && word.contains('/') => Ok(plain(word, rest)),
        // Without a slash it would be looked for in PATH.
        _ if is_executable(mode) => Ok(plain(format!("./{word}"), rest)),
        "ts" | "mts" | "cts" | "tsx" => Err(InterpreterError::TypeScript { word }),
        _ => Err(InterpreterError::Unknown { word }),
    }
}

fn is_executable(mode: u32) -> bool {
    mode & 0o111 != 0
}

/// What a package's "start" is: without npm in between where that is the same, since then the worker
/// is node itself.
fn start_of(
    package: &Path,
    rest: &[String],
    is_on_path: &dyn Fn(&str) -> bool,
) -> Result<Resolved, InterpreterError> {
    let failed = |why: String| InterpreterError::Package {
        path: package.to_owned(),
        why,
    };
    let directory = package.parent().map(Path::to_owned).unwrap_or_default();
    let read = read_package(package).map_err(|error| failed(error.to_string()))?;
    let script = match read.scripts.get("start") {
        Some(script) => script.clone(),
        // As npm does.
        None if directory.join("server.js").is_file() => "node server.js".to_owned(),
        None => {
            return Err(failed(
                "it has no \"start\" among its \"scripts\", and there is no server.js".to_owned(),
            ))
        }
    };
    let hooks = ["prestart", "poststart"];
    let has_hooks = hooks.iter().any(|hook| read.scripts.contains_key(*hook));
    let mut resolved = match node_command(&script) {
        Some(args) if !has_hooks => Resolved {
            note: Some(format!(
                "\"start\" is `{script}`: run without npm in between"
            )),
            ..plain("node".to_owned(), &[args, rest.to_vec()].concat())
        },
        _ => {
            let mut args = vec!["start".to_owned()];
            if !rest.is_empty() {
                args.push("--".to_owned());
                args.extend_from_slice(rest);
            }
            Resolved {
                note: Some(format!("\"start\" is `{script}`: run by npm")),
                ..plain("npm".to_owned(), &args)
            }
        }
    };
    if !is_on_path(&resolved.program) {
        return Err(failed(format!(
            "its \"start\" needs {}, which is not in PATH",
            resolved.program
        )));
    }
    resolved.cwd = Some(directory);
    Ok(resolved)
}

fn read_package(path: &Path) -> io::Result<Package> {
    if fs::metadata(path)?.len() > PACKAGE_MAX {
        return Err(io::Error::other("it is larger than a package.json can be"));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// The arguments of a script that is one call of node and needs no shell.
fn node_command(script: &str) -> Option<Vec<String>> {
    if script.contains(|character| SHELL_CHARACTERS.contains(character)) {
        return None;
    }
    let mut words = script.split_ascii_whitespace().map(str::to_owned);
    (words.next()? == "node").then(|| words.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Temp(PathBuf);

    impl Temp {
        /// A directory with these files.
        fn new(name: &str, files: &[(&str, &str, u32)]) -> Self {
            let name = format!("ganger-interpreter-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            for (name, text, mode) in files {
                let file = path.join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(&file, text).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Self(path)
        }

        /// The command line that comes out, or the error.
        fn line(&self, words: &str) -> String {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            let is_on_path = |name: &str| ["node", "npm", "python3", "uvicorn"].contains(&name);
            match resolve(&words, &self.0, &is_on_path) {
                Ok(resolved) => format!("{} {}", resolved.program, resolved.args.join(" ")),
                Err(error) => error.to_string(),
            }
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_bare_script_finds_its_interpreter_and_keeps_its_arguments() {
        let files = ["server.js", "a.mjs", "app.py", "x.rb", "x.ts", "notes.txt"];
        let mut files: Vec<_> = files.iter().map(|name| (*name, "", 0o644)).collect();
        files.push(("serve", "#!/bin/sh", 0o755));
        let temp = Temp::new("scripts", &files);
        assert_eq!(temp.line("server.js --port 3"), "node server.js --port 3");
        assert_eq!(temp.line("./a.mjs"), "node ./a.mjs");
        assert_eq!(temp.line("app.py"), "python3 app.py");
        assert_eq!(temp.line("serve 1"), "./serve 1");
        assert_eq!(temp.line("./serve 1"), "./serve 1");
        assert_eq!(temp.line("uvicorn app:app"), "uvicorn app:app");
        assert_eq!(temp.line("x.rb"), "x.rb needs ruby, which is not in PATH");
        assert!(temp.line("x.ts").contains("npx tsx x.ts"));
        assert!(temp.line("notes.txt").contains("not executable"));
        assert!(temp.line("nothing.js").contains("no such file"));
        assert!(temp.line("").contains("no command"));
    }

    #[test]
    fn a_package_is_started_without_npm_where_that_is_the_same() {
        let plain = r#"{"scripts": {"start": "node --max-old-space-size=512 dist/main.js"}}"#;
        let shell = r#"{"scripts": {"start": "NODE_ENV=production node main.js"}}"#;
        let hooks = r#"{"scripts": {"start": "node main.js", "prestart": "make"}}"#;
        let temp = Temp::new(
            "packages",
            &[
                ("plain/package.json", plain, 0o644),
                ("shell/package.json", shell, 0o644),
                ("hooks/package.json", hooks, 0o644),
                ("default/package.json", "{}", 0o644),
                ("default/server.js", "", 0o644),
                ("empty/package.json", "{}", 0o644),
                ("broken/package.json", "{", 0o644),
                ("none/readme", "", 0o644),
            ],
        );
        assert_eq!(
            temp.line("plain"),
            "node --max-old-space-size=512 dist/main.js"
        );
        assert_eq!(
            temp.line("plain/package.json x"),
            "node --max-old-space-size=512 dist/main.js x"
        );
        assert_eq!(temp.line("shell 7"), "npm start -- 7");
        assert_eq!(temp.line("hooks"), "npm start");
        assert_eq!(temp.line("default"), "node server.js");
        assert!(temp.line("empty").contains("no \"start\""));
        assert!(temp.line("broken").contains("broken/package.json: "));
        assert!(temp.line("none").contains("without a package.json"));
        let words = ["plain".to_owned()];
        let resolved = resolve(&words, &temp.0, &|name| name == "node").unwrap();
        assert_eq!(resolved.cwd, Some(temp.0.join("plain")));
    }

    #[test]
    fn programs_are_looked_for_in_every_directory_of_a_path() {
        let temp = Temp::new("path", &[("b/tool", "", 0o755), ("b/text", "", 0o644)]);
        let path = format!("/nowhere::{0}/a:{0}/b", temp.0.display());
        assert!(is_in(&path, "tool"));
        assert!(!is_in(&path, "text"));
        assert!(!is_in("", "tool"));
    }
}
