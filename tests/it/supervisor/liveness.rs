//! Workers that hang, the ways to find that out, and the supervisor's own parent.

use super::ganger::{Ganger, Place, Recipe};
use super::program;
use crate::harness::wait_until;
use ganger_supervisor::report::WorkerStatus;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;

/// A server of one thread that says now and then that it lives, hangs when it is asked for `/hang`,
/// and does not die of SIGABRT.
const DEAF: &str = r#"
import http.server, os, signal, socket
signal.signal(signal.SIGABRT, lambda *_: print("heard SIGABRT", flush=True))

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        while self.path == "/hang":
            pass
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["GANGER_WORKER"].encode())

class Server(http.server.HTTPServer):
    def service_actions(self):
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.sendto(b"WATCHDOG=1", os.environ["NOTIFY_SOCKET"])
        notify.close()

server = Server((os.environ["HOST"], int(os.environ["PORT"])), Handler)
server.serve_forever(poll_interval=0.1)
"#;

/// The same in Node, which dies of SIGABRT.
const NODE: &str = "
setInterval(() => process.send('heartbeat'), 100);
require('node:http').createServer((request, response) => {
  if (request.url === '/hang') for (;;);
  response.setHeader('connection', 'close');
  response.end(process.env.GANGER_WORKER);
}).listen(Number(process.env.PORT), process.env.HOST);
";

fn recipe(test: &'static str, interpreter: &str, text: &str, liveness: &str) -> Option<Recipe> {
    let interpreter = program(interpreter)?;
    let place = Place::new(test);
    let server = place.write("server", text);
    let recipe = place.recipe(&[interpreter, server]);
    let recipe = recipe.option(&["--liveness", liveness, "--liveness-every", "100ms"]);
    Some(recipe.option(&["--liveness-timeout", "3s", "--liveness-failures", "2"]))
}

fn get(ganger: &Ganger, path: &str) -> String {
    let mut stream = TcpStream::connect(ganger.at()).unwrap();
    let patience = Some(Duration::from_secs(60));
    stream.set_read_timeout(patience).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}

/// Hangs one of the two workers: that one is replaced after it got this signal, and the other is
/// left alone and serves.
fn hang_one(recipe: Recipe, signal: i32) -> Ganger {
    let ganger = recipe.start();
    let before = ganger.pids();
    let mut victim = TcpStream::connect(ganger.at()).unwrap();
    write!(victim, "GET /hang HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    let mut replaced: Vec<WorkerStatus> = Vec::new();
    wait_until("a replacement", || {
        let ready = ganger.ready();
        let is_new = |worker: &WorkerStatus| worker.restarts > 0;
        replaced = ready.iter().filter(|one| is_new(one)).cloned().collect();
        ready.len() == 2 && !replaced.is_empty()
    });
    let [replaced] = &replaced[..] else {
        panic!("only one is replaced: {replaced:?}");
    };
    assert_eq!(replaced.restarts, 1);
    assert_eq!(replaced.last_exit.as_ref().unwrap().signal, Some(signal));
    let after = ganger.pids();
    let kept = before.iter().filter(|pid| after.contains(pid)).count();
    assert_eq!(kept, 1, "{before:?} {after:?}");
    for _ in 0..20 {
        assert!(["0", "1"].contains(&get(&ganger, "/").as_str()));
    }
    ganger
}

#[track_caller]
fn assert_aborted_once(ganger: &Ganger) {
    let logs = ganger.must(&["logs"]);
    assert_eq!(logs.matches("heard SIGABRT").count(), 1, "{logs}");
}

#[test]
fn a_worker_that_hangs_is_found_out_by_tcp_and_killed_if_it_does_not_abort() {
    let Some(recipe) = recipe("hang by TCP", "python3", DEAF, "tcp") else {
        return;
    };
    let ganger = hang_one(recipe, SIGKILL);
    assert_aborted_once(&ganger);
    ganger.stop();
}

#[test]
fn a_worker_that_hangs_is_found_out_by_the_lack_of_its_word() {
    let Some(recipe) = recipe("hang by silence", "python3", DEAF, "heartbeat") else {
        return;
    };
    let ganger = hang_one(recipe, SIGKILL);
    assert_aborted_once(&ganger);
    let events = ganger.must(&["events", "-n", "100"]);
    assert!(events.contains("too long that it lives"), "{events}");
    ganger.stop();
}

#[test]
fn a_worker_of_node_that_hangs_is_found_out_by_the_lack_of_its_message() {
    let Some(recipe) = recipe("hang of Node", "node", NODE, "heartbeat") else {
        return;
    };
    hang_one(recipe, SIGABRT).stop();
}

/// What a service manager hears.
struct Manager {
    socket: UnixDatagram,
    place: Place,
}

impl Manager {
    fn new(test: &'static str) -> Self {
        let place = Place::new(test);
        let socket = UnixDatagram::bind(place.file("notify")).unwrap();
        let patience = Some(Duration::from_secs(60));
        socket.set_read_timeout(patience).unwrap();
        Self { socket, place }
    }

    fn path(&self) -> String {
        self.place.file("notify").to_str().unwrap().to_owned()
    }

    fn hear(&self) -> String {
        let mut text = [0; 64];
        let len = self.socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..len]).into_owned()
    }
}

/// A service manager that wants to hear now and then that the supervisor lives does; what it told
/// the supervisor alone is not the workers'.
#[test]
fn a_service_managers_watchdog_is_fed() {
    let Some(recipe) = recipe("watchdog", "node", NODE, "tcp") else {
        return;
    };
    let manager = Manager::new("watchdog's socket");
    let recipe = recipe.env("NOTIFY_SOCKET", &manager.path());
    let ganger = recipe.env("WATCHDOG_USEC", "200000").start();
    let (mut fed, mut is_ready) = (0, false);
    while fed < 5 || !is_ready {
        match manager.hear().as_str() {
            "WATCHDOG=1" => fed += 1,
            "READY=1" => is_ready = true,
            other => panic!("{other}"),
        }
    }
    for pid in ganger.pids() {
        let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        let is_ours =
            |entry: &str| entry.starts_with("WATCHDOG_") || entry.contains(&manager.path());
        assert!(!environment.split('\0').any(is_ours), "{environment:?}");
    }
    ganger.stop();
    while manager.hear() != "STOPPING=1" {}
}

/// A service manager that is busy elsewhere, with more in its socket than that holds.
#[test]
fn a_service_manager_that_reads_late_is_told_all_the_same() {
    let Some(recipe) = recipe("late manager", "node", NODE, "tcp") else {
        return;
    };
    let manager = Manager::new("late manager's socket");
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to(b"WATCHDOG=1", manager.path()).is_ok() {}
    let ganger = recipe.env("NOTIFY_SOCKET", &manager.path()).start();
    while manager.hear() != "READY=1" {}
    while other.send_to(b"WATCHDOG=1", manager.path()).is_ok() {}
    std::thread::scope(|scope| {
        scope.spawn(|| while manager.hear() != "STOPPING=1" {});
        ganger.stop();
    });
}

/// A watchdog that is meant for another process (of whom this one inherited it) is not fed.
#[test]
fn the_watchdog_of_another_process_is_not_fed() {
    let Some(recipe) = recipe("other watchdog", "node", NODE, "tcp") else {
        return;
    };
    let manager = Manager::new("other watchdog's socket");
    let recipe = recipe.env("NOTIFY_SOCKET", &manager.path());
    let recipe = recipe.env("WATCHDOG_PID", "1").env("WATCHDOG_USEC", "1000");
    let ganger = recipe.start();
    assert_eq!(manager.hear(), "READY=1");
    ganger.stop();
    assert_eq!(manager.hear(), "STOPPING=1");
}
