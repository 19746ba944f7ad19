//! Which program runs a bare script: `server.js`, `app.py`, a directory with a package.json.

use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Bytes of a package.json that are read.
const PACKAGE_MAX: u64 = 4 * 1024 * 1024;
/// Names and values.
type Variables = Vec<(String, String)>;
/// Name of an app of which nothing else is known.
const NAMELESS: &str = "app";

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The program: a path, or a name that `PATH` resolves.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Where.
    pub cwd: PathBuf,
    /// Variables that it wants set.
    pub env: Vec<(String, String)>,
    /// A name for the app.
    pub name: String,
}

/// Why it can't be run. Each says what to do.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum InterpreterError {
    /// There is neither a command nor a package.json.
    #[error("what to run? For example: ganger run -- node server.js")]
    Nothing,
    /// It is no program in PATH, and no file.
    #[error("there is no program `{program}` in PATH, and no file of that name in {}", cwd.display())]
    NotFound {
        /// What was asked for.
        program: String,
        /// Where it was looked for.
        cwd: PathBuf,
    },
    /// There is no such file.
    #[error("there is no file {}", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// It can't be executed and doesn't say by what.
    #[error("{} is not executable: make it so (chmod +x), or name its interpreter", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
    },
    /// The program that would run it is missing.
    #[error("{script} needs {interpreter}, which is not in PATH")]
    NoInterpreter {
        /// The script.
        script: String,
        /// What it needs.
        interpreter: String,
    },
    /// The directory has no package.json, or one that says nothing.
    #[error("{}: {why}", path.display())]
    Package {
        /// The directory, or its package.json.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Finds out what runs `command` in `cwd`; an empty command is the package in `cwd`. `variable` looks
/// up the environment.
pub fn resolve(
    command: &[String],
    cwd: &Path,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Resolved, InterpreterError> {
    let search = Search {
        cwd,
        path: variable("PATH").unwrap_or_default(),
        venv: variable("VIRTUAL_ENV").map(PathBuf::from),
    };
    let Some((program, args)) = command.split_first() else {
        if cwd.join("package.json").is_file() {
            return search.package(cwd, &[]);
        }
        return Err(InterpreterError::Nothing);
    };
    let is_path = program.contains('/');
    // Links stay: the next reload is to find what they show then.
    let file = std::path::absolute(cwd.join(program)).unwrap_or_else(|_| cwd.join(program));
    if !is_path && !matches!(program.as_str(), "." | "..") {
        // As a shell would: a name is a program, unless only a file can be meant.
        if search.program(program).is_some() {
            return Ok(search.plain(program, args));
        }
        if !file.exists() {
            return Err(InterpreterError::NotFound {
                program: program.clone(),
                cwd: cwd.to_owned(),
            });
        }
    }
    if file.is_dir() {
        return search.package(&file, args);
    }
    if !file.is_file() {
        return Err(InterpreterError::NoFile { path: file });
    }
    if file.file_name().is_some_and(|name| name == "package.json") {
        return search.package(file.parent().unwrap_or(cwd), args);
    }
    search.script(program, args)
}

struct Search<'a> {
    cwd: &'a Path,
    path: OsString,
    venv: Option<PathBuf>,
}

impl Search<'_> {
    /// The command as it was given.
    fn plain(&self, program: &str, args: &[String]) -> Resolved {
        Resolved {
            program: program.to_owned(),
            args: args.to_vec(),
            cwd: self.cwd.to_owned(),
            env: Vec::new(),
            name: name_of(program, args),
        }
    }

    /// A file, by its ending, or because it can be executed.
    fn script(&self, script: &str, args: &[String]) -> Result<Resolved, InterpreterError> {
        let file = self.cwd.join(script);
        let ending = file.extension().and_then(|ending| ending.to_str());
        let mut before: Vec<String> = Vec::new();
        let interpreter = match ending.unwrap_or_default() {
            "js" | "cjs" | "mjs" => "node".to_owned(),
            "ts" | "cts" | "mts" => {
                // Recent Nodes run TypeScript by themselves; tsx is for the others, where it is there.
                if let Some(loader) = above(&file, "node_modules/tsx/dist/loader.mjs") {
                    before = vec!["--import".into(), loader.display().to_string()];
                }
                "node".to_owned()
            }
            "py" => self.python(&file),
            "rb" => "ruby".to_owned(),
            "php" => "php".to_owned(),
            "pl" => "perl".to_owned(),
            "sh" if !is_executable(&file) => "sh".to_owned(),
            _ if is_executable(&file) => {
                // Without a slash the system would look in PATH.
                let program = match script.contains('/') {
                    true => script.to_owned(),
                    false => format!("./{script}"),
                };
                return Ok(self.plain(&program, args));
            }
            _ => return Err(InterpreterError::NotExecutable { path: file }),
        };
        if self.program(&interpreter).is_none() {
            return Err(InterpreterError::NoInterpreter {
                script: script.to_owned(),
                interpreter,
            });
        }
        let mut all = before;
        all.push(script.to_owned());
        all.extend_from_slice(args);
        Ok(Resolved {
            name: name_of(script, &[]),
            ..self.plain(&interpreter, &all)
        })
    }

    /// The Python of the active or the nearest virtual environment, else the system's.
    fn python(&self, script: &Path) -> String {
        let active = self.venv.as_ref().map(|venv| venv.join("bin/python"));
        let near =
            || above(script, ".venv/bin/python").or_else(|| above(script, "venv/bin/python"));
        match active.filter(|python| is_executable(python)).or_else(near) {
            Some(python) => python.display().to_string(),
            None if self.program("python3").is_some() => "python3".into(),
            None if self.program("python").is_some() => "python".into(),
            None => "python3".into(),
        }
    }

    /// What `npm start` would run.
    fn package(&self, dir: &Path, args: &[String]) -> Result<Resolved, InterpreterError> {
        let package = read_package(dir)?;
        let own = package.get("name").and_then(Value::as_str);
        let name = own.map_or_else(|| file_stem(dir), clean);
        let at_home = |program: &str, mut all: Vec<String>, env| {
            if self.program(program).is_none() {
                return Err(InterpreterError::NoInterpreter {
                    script: dir.join("package.json").display().to_string(),
                    interpreter: program.to_owned(),
                });
            }
            all.extend_from_slice(args);
            Ok(Resolved {
                program: program.to_owned(),
                args: all,
                cwd: dir.to_owned(),
                env,
                name: name.clone(),
            })
        };
        let script = |name: &str| package.get("scripts")?.get(name)?.as_str();
        if let Some(start) = script("start") {
            let is_alone = script("prestart").is_none() && script("poststart").is_none();
            if let Some((env, words)) = is_alone.then(|| simple_node(start)).flatten() {
                return at_home("node", words, env);
            }
            let mut words = vec!["start".to_owned()];
            if !args.is_empty() {
                words.push("--".into());
            }
            return at_home("npm", words, Vec::new());
        }
        let main = package.get("main").and_then(Value::as_str);
        let files = ["server.js"].into_iter().chain(main);
        let file = { files }.find(|file| dir.join(file).is_file());
        match file {
            Some(file) => at_home("node", vec![file.to_owned()], Vec::new()),
            None => Err(InterpreterError::Package {
                path: dir.join("package.json"),
                why: "it has no \"start\" script, and there is no server.js".into(),
            }),
        }
    }

    /// Where a program is.
    fn program(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') {
            return Some(self.cwd.join(name)).filter(|path| is_executable(path));
        }
        std::env::split_paths(&self.path)
            .map(|folder| self.cwd.join(folder).join(name))
            .find(|path| is_executable(path))
    }
}

fn read_package(dir: &Path) -> Result<Value, InterpreterError> {
    let path = dir.join("package.json");
    let wrong = |path: &Path, why: String| InterpreterError::Package {
        path: path.to_owned(),
        why,
    };
    if !path.is_file() {
        return Err(wrong(dir, "a directory without a package.json".into()));
    }
    let len = fs::metadata(&path).map_or(0, |found| found.len());
    if len > PACKAGE_MAX {
        return Err(wrong(&path, "too large".into()));
    }
    let text = fs::read_to_string(&path).map_err(|error| wrong(&path, error.to_string()))?;
    serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| wrong(&path, error.to_string()))
}

/// Variables and arguments of a start script that a shell would take as they stand: `A=1 node x.js y`.
fn simple_node(start: &str) -> Option<(Variables, Vec<String>)> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " \t_-./:=,@+%".contains(c);
    if !start.chars().all(is_plain) {
        return None;
    }
    let mut words = start.split_whitespace().peekable();
    let mut env = Vec::new();
    while let Some((name, value)) = words.peek().and_then(|word| word.split_once('=')) {
        env.push((name.to_owned(), value.to_owned()));
        words.next();
    }
    (words.next() == Some("node")).then_some(())?;
    let args: Vec<String> = words.map(str::to_owned).collect();
    (!args.is_empty()).then_some((env, args))
}

/// `file` in the directory of `script`, or in one above it.
fn above(script: &Path, file: &str) -> Option<PathBuf> {
    let mut folders = script.ancestors().skip(1);
    folders
        .by_ref()
        .map(|folder| folder.join(file))
        .find(|path| path.exists())
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// A name for `node server.js`, `python3 -m http.server`, `./target/release/shop`.
fn name_of(program: &str, args: &[String]) -> String {
    let base = file_stem(Path::new(program));
    let is_interpreter = [
        "node", "python", "ruby", "deno", "bun", "sh", "bash", "npx", "php",
    ]
    .iter()
    .any(|known| base.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') == *known);
    if !is_interpreter {
        return base;
    }
    let mut words = args.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "-m" => return words.next().map_or(base, clean),
            "-c" | "-e" | "--eval" | "-p" => return base,
            "--import" | "--require" | "-r" | "-W" | "-X" => drop(words.next()),
            _ if word.starts_with('-') => {}
            _ => return file_stem(Path::new(word)),
        }
    }
    base
}

fn file_stem(path: &Path) -> String {
    let absolute = fs::canonicalize(path);
    let stem = match path.file_stem() {
        Some(stem) => Some(stem),
        None => absolute.as_deref().ok().and_then(Path::file_name),
    };
    clean(&stem.unwrap_or_default().to_string_lossy())
}

/// A name that an app may have.
fn clean(text: &str) -> String {
    // `@scope/package`: what is behind the slash.
    let text = text.rsplit('/').next().unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let plain: String = text.chars().filter(|c| is_plain(*c)).collect();
    let plain = plain.trim_start_matches(['-', '.']);
    let plain: String = plain.chars().take(crate::config::NAME_MAX).collect();
    match crate::config::is_name(&plain) {
        true => plain,
        false => NAMELESS.to_owned(),
    }
}

#[cfg(test)]
mod tests;
