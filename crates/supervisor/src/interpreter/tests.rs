use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory with files of its own and a PATH of its own, removed at the end.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ganger-interpreter-{}-{number}", std::process::id());
        let place = Self {
            dir: std::env::temp_dir().join(name),
        };
        for program in ["node", "npm", "python3", "ls"] {
            place.file(&format!("bin/{program}"), "", 0o755);
        }
        for (path, text) in files {
            place.file(path, text, 0o644);
        }
        place
    }

    fn file(&self, path: &str, text: &str, mode: u32) {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn find(&self, line: &str) -> Result<Resolved, InterpreterError> {
        let command: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        resolve(&command, &self.dir, |name| {
            (name == "PATH").then(|| self.dir.join("bin").into())
        })
    }

    fn line(&self, line: &str) -> String {
        let found = self.find(line).unwrap();
        format!("{} {}", found.program, found.args.join(" "))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn scripts_are_run_by_what_their_ending_says() {
    let place = Place::new(&[
        ("server.js", ""),
        ("m.mjs", ""),
        ("c.cjs", ""),
        ("t.ts", ""),
        ("app.py", ""),
        ("run.sh", ""),
    ]);
    place.file("bin/sh", "", 0o755);
    assert_eq!(place.line("server.js --port 3"), "node server.js --port 3");
    assert_eq!(place.line("./m.mjs"), "node ./m.mjs");
    assert_eq!(place.line("c.cjs"), "node c.cjs");
    assert_eq!(place.line("t.ts"), "node t.ts");
    assert_eq!(place.line("app.py -v"), "python3 app.py -v");
    assert_eq!(place.line("run.sh"), "sh run.sh");
    assert_eq!(place.find("server.js").unwrap().name, "server");
}

#[test]
fn the_python_of_the_nearest_environment_is_taken() {
    let place = Place::new(&[("a/app.py", "")]);
    place.file(".venv/bin/python", "", 0o755);
    let python = place.dir.join(".venv/bin/python");
    assert_eq!(
        place.find("a/app.py").unwrap().program,
        python.to_str().unwrap()
    );
}

#[test]
fn commands_stay_as_they_are() {
    let place = Place::new(&[("node/x", ""), ("local", "")]);
    place.file("local", "", 0o755);
    assert_eq!(place.line("node server.js"), "node server.js");
    assert_eq!(
        place.line("node -r x --y server.js"),
        "node -r x --y server.js"
    );
    assert_eq!(place.line("./local a"), "./local a");
    assert_eq!(
        place.line("local a"),
        "./local a",
        "not in PATH: the file is meant"
    );
}

#[test]
fn a_simple_start_script_is_run_without_npm() {
    let package =
        |start: &str| format!(r#"{{"name": "@me/shop", "scripts": {{"start": "{start}"}}}}"#);
    let place = Place::new(&[(
        "package.json",
        &package("NODE_ENV=production node ./x.js --a=1"),
    )]);
    for line in [".", "./", "package.json", ""] {
        let found = place.find(line).unwrap();
        assert_eq!(
            (found.program.as_str(), found.name.as_str()),
            ("node", "shop")
        );
        assert_eq!(found.args, ["./x.js", "--a=1"]);
        assert_eq!(
            found.env,
            [("NODE_ENV".to_owned(), "production".to_owned())]
        );
        assert_eq!(found.cwd, place.dir);
    }
    assert_eq!(place.line(". --b"), "node ./x.js --a=1 --b");
    for start in [
        "node a.js && node b.js",
        "node $X",
        "next start",
        "node",
        "node 'a b.js'",
    ] {
        place.file("package.json", &package(start), 0o644);
        assert_eq!(place.line("."), "npm start", "{start}");
    }
    assert_eq!(place.line(". --b"), "npm start -- --b");
}

#[test]
fn a_package_without_a_start_script_is_its_server_or_main_file() {
    let place = Place::new(&[
        ("app/package.json", r#"{"main": "main.js"}"#),
        ("app/main.js", ""),
    ]);
    let found = place.find("app").unwrap();
    assert_eq!(
        (found.args, found.name.as_str()),
        (vec!["main.js".to_owned()], "app")
    );
    assert_eq!(found.cwd, place.dir.join("app"));
    place.file("app/server.js", "", 0o644);
    assert_eq!(place.line("app"), "node server.js");
}

#[test]
fn names_come_from_what_is_run() {
    let name = |line: &str| {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        name_of(&words[0], &words[1..])
    };
    assert_eq!(name("node --inspect server.js"), "server");
    assert_eq!(name("/usr/bin/python3.11 -m http.server 80"), "http.server");
    assert_eq!(name("uvicorn app:app"), "uvicorn");
    assert_eq!(name("./target/release/shop --port 1"), "shop");
    assert_eq!(name("node --require ./x.js main.mjs"), "main");
    assert_eq!(name("sh -c 'node x'"), "sh");
    assert_eq!(name("./broker"), "app");
    assert_eq!(name("./\u{fc}"), "app");
}

#[test]
fn errors_say_what_to_do() {
    let place = Place::new(&[
        ("data.txt", ""),
        ("app.rb", ""),
        ("empty/x", ""),
        ("bad/package.json", "{"),
        ("none/package.json", "{}"),
    ]);
    let error = |line: &str| place.find(line).unwrap_err().to_string();
    assert!(error("").contains("ganger run -- node server.js"));
    assert!(error("nodd").contains("no program `nodd` in PATH"));
    assert!(error("./gone.js").contains("there is no file"));
    assert!(error("gone.js").contains("no file of that name"));
    assert!(error("data.txt").contains("chmod +x"));
    assert!(error("app.rb").contains("needs ruby, which is not in PATH"));
    assert!(error("empty").contains("without a package.json"));
    assert!(error("bad").contains("package.json: EOF"));
    assert!(error("none").contains("no \"start\" script"));
}
