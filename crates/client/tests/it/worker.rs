use crate::fake::TempHome;
use crate::Watchdog;
use ganger_client::{Worker, WORKER_VARIABLE};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

const ROLE: &str = "GANGER_CLIENT_TEST_WORKER";

/// Not a test: where a child process begins. It does nothing when the binary runs as tests.
#[test]
fn child_entry() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let worker = Worker::from_env().unwrap();
        assert_eq!((Worker::index(), worker.listeners()), (Some(3), 1));
        assert!(worker.unix_listener(0).is_err(), "it is another kind");
        let listener = worker.tcp_listener(0).unwrap().unwrap();
        assert!(worker.tcp_listener(0).unwrap().is_none(), "it was taken");
        assert!(worker.ready().unwrap());
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"served").unwrap();
        worker.drain().await;
        assert!(worker.stopping().unwrap());
    });
}

#[test]
fn a_worker_says_when_it_is_ready_serves_what_it_inherited_and_drains_at_sigterm() {
    let _watchdog = Watchdog::new("worker");
    let home = TempHome::new();
    let told = home.0.join("notify");
    let notify = UnixDatagram::bind(&told).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // The shell puts the listener where the protocol wants it.
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$0\" \"$@\" 3<&0"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "worker::child_entry"])
        .stdin(OwnedFd::from(listener))
        .env(ROLE, "1")
        .env(WORKER_VARIABLE, "3")
        .env("NOTIFY_SOCKET", &told)
        .env("LISTEN_FDS", "1")
        .spawn()
        .unwrap();
    let mut text = [0; 64];
    let mut next = || {
        let len = notify.recv(&mut text).unwrap();
        String::from_utf8(text[..len].to_vec()).unwrap()
    };
    assert_eq!(next(), "READY=1");
    let mut stream = TcpStream::connect(address).unwrap();
    let mut served = [0; 6];
    stream.read_exact(&mut served).unwrap();
    assert_eq!(&served, b"served");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(next(), "STOPPING=1");
    assert!(child.wait().unwrap().success());
}
