//! What a supervisor does for a broker: it holds the socket and the shared memory, and starts the
//! broker on them, again and again.

use crate::harness::status_number;
use ganger_client::{Client, ClientBuilder, Config, Home, Kv, SOCKET_NAME};
use rustix::process::{kill_process, Pid, Signal};
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Gives the broker the listener as its descriptor 3 and the memory as its 4.
const HAND_OVER: &str = r#"exec 3<&0 4<>"$REGION" </dev/null
LISTEN_PID=$$ LISTEN_FDS=1 GANGER_REGION_FD=4 exec "$@""#;

/// A home directory, and the broker in it, if it runs. All is gone at the end.
pub(super) struct Keeper {
    pub(super) home: PathBuf,
    options: Vec<String>,
    held: Option<(UnixListener, Kv)>,
    process: Option<Child>,
}

impl Keeper {
    /// A broker that makes socket and memory itself.
    pub(super) fn plain(options: &[&str]) -> Self {
        let mut keeper = Self::new(options);
        keeper.start();
        keeper
    }

    /// A broker whose socket and memory stay when it dies.
    pub(super) fn holding(options: &[&str]) -> Self {
        let mut keeper = Self::new(options);
        let listener = UnixListener::bind(keeper.home.join(SOCKET_NAME)).unwrap();
        keeper.held = Some((listener, Kv::create(Config::new(64 << 20)).unwrap()));
        keeper.start();
        keeper
    }

    /// A home without a broker.
    pub(super) fn new(options: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ganger-faults-{}-{number}", std::process::id());
        let home = std::env::temp_dir().join(name);
        Home::at(&home).create().unwrap();
        Self {
            home,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            held: None,
            process: None,
        }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.home.join(SOCKET_NAME)
    }

    /// The memory that outlives the broker.
    pub(super) fn kv(&self) -> &Kv {
        &self.held.as_ref().unwrap().1
    }

    pub(super) fn start(&mut self) {
        assert!(self.process.is_none());
        let mut command = self.command();
        let log = fs::File::create(self.home.join("log")).unwrap();
        command.stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().unwrap());
    }

    /// Starts one with other limits, as `ulimit` takes them.
    pub(super) fn start_limited(&mut self, ulimit: &str) {
        assert!(self.process.is_none());
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit {ulimit}; exec \"$@\""), "sh"]);
        command.arg(env!("CARGO_BIN_EXE_ganger"));
        command.args(["broker", "--region-size", "64MiB", "--home"]);
        command
            .arg(&self.home)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
    }

    /// The command that starts it.
    pub(super) fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_ganger");
        let mut command = match &self.held {
            None => Command::new(program),
            Some((listener, kv)) => {
                let mut command = Command::new("sh");
                command.args(["-c", HAND_OVER, "sh", program]);
                command.env("REGION", crate::harness::path_of(kv.fd().unwrap()));
                command.stdin(std::os::fd::OwnedFd::from(listener.try_clone().unwrap()));
                command
            }
        };
        command.args(["broker", "--region-size", "64MiB", "--home"]);
        command.arg(&self.home).args(&self.options);
        command
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        // It is not reaped yet, so the pid is still its own.
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().unwrap())
    }

    /// A line of its status, in KiB.
    pub(super) fn status_kib(&self, field: &str) -> u64 {
        status_number(self.pid(), field).unwrap()
    }

    pub(super) fn builder(&self) -> ClientBuilder {
        builder(self.home.to_str().unwrap())
    }

    pub(super) async fn connect(&self) -> Client {
        self.builder().connect().await.unwrap()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// A patient client's settings.
pub(super) fn builder(home: &str) -> ClientBuilder {
    let patience = Duration::from_secs(30);
    ClientBuilder::new()
        .home(home)
        .patience(patience)
        .timeout(patience)
}
