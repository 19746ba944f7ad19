//! What a process of a comparison needs of a messaging system, and the systems' servers.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The subject that all messages have.
pub(crate) const SUBJECT: &str = "bench.one";
/// The subject that requests have.
pub(crate) const SERVICE: &str = "bench.service";

/// A connection that publishes.
pub(crate) trait Publish {
    /// Hands one message over. It may stay in a buffer until [`Publish::flush`].
    fn publish(&mut self, payload: &[u8]);
    /// Hands so many over, each as `stamp` leaves it.
    fn publish_all(&mut self, count: usize, payload: &mut [u8], stamp: fn(&mut [u8])) {
        for _ in 0..count {
            stamp(payload);
            self.publish(payload);
        }
    }
    /// Returns when all that was handed over is on its way, and few of it wait here.
    fn flush(&mut self);
    /// Sends one message and does not wait for an answer, as who publishes at a steady pace does: who waits
    /// sends less while the server is late, and what was late is not counted (coordinated omission).
    fn send_one(&mut self, payload: &[u8]) {
        self.publish(payload);
        self.flush();
    }
    /// Takes the answers that are there, as who publishes at a steady pace does. Left unread, they fill the
    /// socket after some hundreds, and a server that can't write them has less to do.
    fn settle(&mut self) {}
    /// Returns when all that was handed over has arrived.
    fn end(&mut self) {
        self.flush();
    }
    /// Messages of this length to hand over between two calls of `flush` when speed counts: what was best of
    /// a few.
    fn batch(&self, _payload_len: usize) -> usize {
        64
    }
}

/// A connection that has subscribed, and whose server knows it.
pub(crate) trait Receive {
    /// Waits for the next messages and calls `each` with their payloads.
    fn receive(&mut self, each: &mut dyn FnMut(&[u8]));
}

/// A key-value store behind a socket.
pub(crate) trait Store {
    /// Does one operation for each key and waits for all answers.
    fn get(&mut self, keys: &[[u8; 16]]);
    fn set(&mut self, keys: &[[u8; 16]], value: &[u8]);
    #[allow(dead_code)] // benches/store does
    fn incr(&mut self, keys: &[[u8; 16]]);

    /// Gets all keys by the one operation that is made for it, where there is one.
    #[allow(dead_code)] // benches/store does
    fn get_many(&mut self, keys: &[[u8; 16]]) {
        self.get(keys);
    }
}

/// Tells the parent that this process can be measured.
pub(crate) fn ready() {
    println!("ready");
    std::io::stdout().flush().unwrap();
}

/// Who is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    /// Through the `Client` that its users have.
    Ganger,
    /// Its protocol on a bare socket.
    GangerBare,
    /// Its protocol on a bare socket.
    Redis,
    /// Through the client that its users have.
    RedisRs,
    Nats,
    ZeroMq,
}

impl System {
    pub(crate) const ALL: [Self; 6] = [
        Self::Ganger,
        Self::GangerBare,
        Self::Redis,
        Self::RedisRs,
        Self::Nats,
        Self::ZeroMq,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ganger => "ganger",
            Self::GangerBare => "ganger, bare socket",
            Self::Redis => "redis",
            Self::RedisRs => "redis-rs",
            Self::Nats => "nats",
            Self::ZeroMq => "zeromq",
        }
    }

    /// The Debian package it comes with.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Ganger | Self::GangerBare => "nothing",
            Self::Redis | Self::RedisRs => "redis-server",
            Self::Nats => "nats-server",
            Self::ZeroMq => "gcc libzmq3-dev",
        }
    }

    /// Ganger as it is compared with this system: of Redis's two clients, each with its like.
    #[allow(dead_code)] // benches/store has a way of its own
    pub(crate) fn counterpart(self) -> Self {
        match self {
            Self::Redis => Self::GangerBare,
            _ => Self::Ganger,
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|system| system.name() == name)
    }
}

/// A server that runs until this is dropped, and where its clients find it.
pub(crate) struct Server {
    child: Option<Child>,
    pub(crate) address: String,
    home: PathBuf,
}

impl Server {
    /// `None` if the system is not installed.
    pub(crate) fn start(system: System) -> Option<Self> {
        let home = new_home();
        let (command, address) = match system {
            System::Ganger | System::GangerBare => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_ganger"));
                command.arg("broker").arg("--home").arg(&home);
                (command, home.join("broker.sock"))
            }
            System::Redis | System::RedisRs => {
                let socket = home.join("redis.sock");
                let mut command = Command::new("redis-server");
                command.args(["--port", "0", "--save", "", "--appendonly", "no"]);
                // No limit: its usual one disconnects a subscriber that is 32 MB behind.
                command.args(["--client-output-buffer-limit", "pubsub 0 0 0"]);
                command.arg("--unixsocket").arg(&socket);
                (command, socket)
            }
            System::Nats => {
                let port = free_port();
                let mut command = Command::new("nats-server");
                command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
                (command, PathBuf::from(format!("127.0.0.1:{port}")))
            }
            // It has no server: the publisher binds the socket.
            System::ZeroMq => {
                let address = format!("ipc://{}", home.join("zeromq.sock").display());
                let server = Self {
                    child: None,
                    address,
                    home,
                };
                return crate::zeromq::program().is_some().then_some(server);
            }
        };
        Self::run(command, address.display().to_string(), home)
    }

    /// Runs a server in its home until it can be connected to.
    pub(crate) fn run(mut command: Command, address: String, home: PathBuf) -> Option<Self> {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut server = Self {
            child: Some(child.ok()?),
            address,
            home,
        };
        let started = Instant::now();
        while !is_up(&server.address) {
            let ended = server
                .child
                .as_mut()
                .and_then(|child| child.try_wait().unwrap());
            if let Some(status) = ended {
                panic!("{:?} ended at once: {status}", command.get_program());
            }
            assert!(started.elapsed() < Duration::from_secs(10), "no server");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(server)
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Its memory.
    pub(crate) fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib: f64 = line
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        kib / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// A new directory for one server.
pub(crate) fn new_home() -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    static STARTED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = STARTED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("ganger-bench-{}-{number}", std::process::id());
    let home = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&home).unwrap();
    std::fs::set_permissions(&home, PermissionsExt::from_mode(0o700)).unwrap();
    home
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn is_up(address: &str) -> bool {
    match address.strip_prefix('/') {
        Some(_) => std::os::unix::net::UnixStream::connect(address).is_ok(),
        None => std::net::TcpStream::connect(address).is_ok(),
    }
}
