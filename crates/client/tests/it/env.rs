use super::Watchdog;
use ganger_client::{
    Config, Kv, KvError, KvOptions, WriteError, REGION_FD_VARIABLE, REGION_VARIABLE,
};
use std::os::fd::AsRawFd;
use std::process::Command;

const ROLE: &str = "GANGER_CLIENT_TEST_ROLE";

/// A name nobody else uses, taken away at the end.
struct Name(String);

impl Name {
    fn new(test: &str) -> Self {
        Self(format!("ganger-client-{test}-{}", std::process::id()))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = Kv::remove(&self.0);
    }
}

fn config() -> Config {
    Config::new(1 << 20)
}

/// What a child says that attaches as `role` with these variables set.
fn child(role: &str, variables: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "env::child_entry", "--nocapture"])
        .env_remove(REGION_FD_VARIABLE)
        .env_remove(REGION_VARIABLE)
        .env(ROLE, role)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let told = text.lines().find_map(|line| line.split_once('@'));
    told.unwrap_or_else(|| panic!("the child was silent: {text}"))
        .1
        .to_owned()
}

/// Not a test: where a child process begins. It does nothing when the binary runs as tests.
#[test]
fn child_entry() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let attached = match role.as_str() {
        "writer" => Kv::from_env(),
        "reader" => KvOptions::new().read_only().from_env(),
        _ => panic!("no child plays {role}"),
    };
    match attached.and_then(|kv| Ok((kv.incr("visits", 1), kv.get("greeting")?))) {
        Ok((Ok(visits), Some(greeting))) => {
            println!("@{} and {visits}", String::from_utf8_lossy(&greeting));
        }
        Ok((Err(KvError::Write(WriteError::ReadOnly)), Some(greeting))) => {
            println!("@{}, read-only", String::from_utf8_lossy(&greeting));
        }
        Ok(other) => println!("@unexpected: {other:?}"),
        Err(error) => println!("@error: {error}"),
    }
}

#[test]
fn a_worker_gets_the_region_by_an_inherited_descriptor() {
    let _watchdog = Watchdog::new("descriptor");
    let kv = Kv::create(config()).unwrap();
    kv.set("greeting", "hello").unwrap();
    // Unlike the original, the copy is inherited.
    let copy = rustix::io::dup(kv.fd().unwrap()).unwrap();
    let number = copy.as_raw_fd().to_string();
    let fd = [(REGION_FD_VARIABLE, number.as_str())];
    assert_eq!(child("writer", &fd), "hello and 1");
    assert_eq!(child("reader", &fd), "hello, read-only");
    // The descriptor wins over a name, even one that does not exist.
    let both = [fd[0], (REGION_VARIABLE, "ganger-client-no-such-region")];
    assert_eq!(child("writer", &both), "hello and 2");
    assert_eq!(kv.incr("visits", 0).unwrap(), 2);
}

#[test]
fn a_worker_gets_the_region_by_its_name() {
    let _watchdog = Watchdog::new("name");
    let name = Name::new("env");
    let kv = Kv::create_named(&name.0, config()).unwrap();
    kv.set("greeting", "hello").unwrap();
    let named = [(REGION_VARIABLE, name.0.as_str())];
    assert_eq!(child("writer", &named), "hello and 1");
    assert_eq!(child("reader", &named), "hello, read-only");
    assert_eq!(kv.incr("visits", 0).unwrap(), 1);
}

#[test]
fn what_is_wrong_with_the_environment_is_said_plainly() {
    let _watchdog = Watchdog::new("errors");
    let says = |variables: &[(&str, &str)], told: &[&str]| {
        let text = child("writer", variables);
        assert!(
            text.starts_with("error: ") && told.iter().all(|part| text.contains(part)),
            "{variables:?}: {text}"
        );
    };
    says(
        &[],
        &[
            "no region",
            "under `ganger`",
            "GANGER_REGION ",
            "GANGER_REGION_FD ",
        ],
    );
    says(
        &[(REGION_FD_VARIABLE, "six")],
        &["GANGER_REGION_FD is `six`"],
    );
    says(
        &[(REGION_FD_VARIABLE, "999")],
        &["descriptor 999 is not open", "inherit"],
    );
    // Standard output is a pipe.
    says(
        &[(REGION_FD_VARIABLE, "1")],
        &["GANGER_REGION_FD=1", "not a region"],
    );
    let missing = "ganger-client-no-such-region";
    says(
        &[(REGION_VARIABLE, missing)],
        &["GANGER_REGION=", "no region named", missing],
    );
    says(
        &[(REGION_VARIABLE, "a/b")],
        &["GANGER_REGION=a/b", "no name for a region"],
    );
    // A regular file that is none of ours.
    let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    let copy = rustix::io::dup(&file).unwrap();
    let number = copy.as_raw_fd().to_string();
    says(&[(REGION_FD_VARIABLE, &number)], &["GANGER_REGION_FD="]);
}

#[test]
fn names_open_create_and_go() {
    let name = Name::new("names");
    assert!(matches!(Kv::open(&name.0), Err(KvError::Attach(_))));
    let made = Kv::open_or_create(&name.0, config()).unwrap();
    assert!(matches!(
        Kv::create_named(&name.0, config()),
        Err(KvError::Create(_))
    ));
    made.set("key", "value").unwrap();
    let opened = Kv::open_or_create(&name.0, config()).unwrap();
    assert!(opened.exists("key").unwrap());
    let reader = KvOptions::new().read_only().open(&name.0).unwrap();
    assert!(reader.exists("key").unwrap() && !reader.is_writable());
    Kv::remove(&name.0).unwrap();
    assert!(matches!(Kv::open(&name.0), Err(KvError::Attach(_))));
    assert!(opened.exists("key").unwrap());
}
