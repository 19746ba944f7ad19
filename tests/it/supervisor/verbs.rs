//! The command line: what is shown, how it fails, and `ganger demo`.

use super::ganger::{kill, said, Ganger, Place, APP, PORT};
use crate::harness::wait_until;
use crate::ports::free_port;
use ganger_supervisor::report::{AppStatus, Event};
use rustix::process::Signal;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A server that says what it hears.
const SERVER: &str = r"
const http = require('http');
const me = process.env.GANGER_WORKER;
process.on('SIGUSR2', () => console.log('heard USR2 ' + me));
http.createServer((request, response) => {
  console.log('asked ' + request.url);
  response.end(me);
}).listen(Number(process.env.PORT), process.env.HOST, () => console.error('listens ' + me));
";

fn start(test: &'static str) -> Option<Ganger> {
    super::program("node")?;
    let place = Place::new(test);
    let server = place.write("server.js", SERVER);
    Some(place.recipe(&[server]).start())
}

#[test]
fn listings_are_tables_for_people_and_json_for_scripts() {
    let Some(ganger) = start("listings") else {
        return;
    };
    let status = ganger.status().unwrap();
    assert_eq!(status.pid.cast_unsigned(), ganger.pid());
    assert_eq!(status.apps[0].workers.len(), 2);
    for verb in ["status", "list", "ls"] {
        let table = ganger.must(&[verb]);
        assert!(table.contains("2 of 2 ready"), "{table}");
        assert!(
            table.contains(&format!("{}:{PORT}", ganger.place.address)),
            "{table}"
        );
        assert!(table.contains(&format!("{APP}.1")), "{table}");
        assert!(
            !table.contains('\x1b'),
            "no colours but on a terminal: {table}"
        );
    }
    let text = ganger.must(&["describe"]);
    assert!(
        text.contains("server.js") && text.contains("generation"),
        "{text}"
    );
    let output = ganger.verb(&["describe", APP, "--json"]);
    let app: AppStatus = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((app.name.as_str(), app.wanted), (APP, 2));
    ganger.stop();
}

#[test]
fn every_failure_has_a_reason_and_a_code() {
    let Some(ganger) = start("codes") else {
        return;
    };
    let fails = |arguments: &[&str], code: i32, reason: &str| {
        let output = ganger.verb(arguments);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(reason), "{arguments:?}: {text}");
    };
    fails(&["statsu"], 2, "'status'");
    fails(&["reload", "ap"], 1, "did you mean `app`?");
    fails(&["stop", "database"], 1, "there are app");
    fails(&["scale", "many"], 2, "8, +2 or -1");
    fails(&["signal", "NOPE"], 2, "signals are like");
    fails(
        &["reload", "--rollback", "--width", "1"],
        2,
        "cannot be used with",
    );
    fails(&["start", "./nothing.js"], 1, "there is no file");
    fails(&["run", "sh"], 1, "already");
    fails(
        &["status", "--home", "/nonexistent/home"],
        3,
        "no supervisor is running",
    );
    ganger.stop();
}

#[test]
fn lines_are_shown_by_worker_and_followed() {
    let Some(ganger) = start("lines") else {
        return;
    };
    wait_until("both to have said that they listen", || {
        let text = ganger.must(&["logs"]);
        text.contains("app.0 | listens 0\n") && text.contains("app.1 | listens 1\n")
    });
    let one = ganger.must(&["logs", "app.1"]);
    assert!(
        one.contains("listens 1") && !one.contains("listens 0"),
        "{one}"
    );
    assert_eq!(one, ganger.must(&["logs", "--worker", "1"]));
    assert_eq!(ganger.must(&["logs", "-w", "1", "--raw"]), "listens 1\n");
    let json = ganger.must(&["logs", "app", "-w", "0", "--json"]);
    let line: serde_json::Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!(
        (&line["stream"], &line["text"]),
        (&"stderr".into(), &"listens 0".into())
    );
    assert_eq!(ganger.must(&["logs", "-n", "1"]).lines().count(), 1);

    let mut follow = Followed::new(&ganger, &["logs", "-f", "-n", "0"]);
    // It follows once it has been told something that is repeated until then.
    let mut number = 0;
    let seen = follow.wait_line(|| {
        number += 1;
        get(ganger.at(), &format!("/n{number}"));
    });
    assert!(seen.contains(" | asked /n"), "{seen}");
    // A reader that goes away is no failure.
    drop(follow.lines.take());
    let status = loop {
        get(ganger.at(), "/more");
        if let Some(status) = follow.child.try_wait().unwrap() {
            break status;
        }
    };
    assert_eq!(status.code(), Some(0));
    ganger.stop();
}

#[test]
fn signals_reach_the_workers_that_are_meant() {
    let Some(ganger) = start("signals") else {
        return;
    };
    ganger.must(&["signal", "app.1", "USR2"]);
    wait_until("worker 1 to hear it", || {
        ganger.must(&["logs"]).contains("heard USR2 1")
    });
    assert!(!ganger.must(&["logs"]).contains("heard USR2 0"));
    ganger.must(&["signal", "SIGUSR2"]);
    wait_until("worker 0 to hear it too", || {
        ganger.must(&["logs"]).contains("heard USR2 0")
    });
    ganger.stop();
}

#[test]
fn events_are_numbered_without_a_hole() {
    let Some(ganger) = start("numbers") else {
        return;
    };
    ganger.must(&["reload"]);
    let text = ganger.must(&["events", "--json", "-n", "1000"]);
    let events: Vec<Event> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let numbers = events.iter().map(|event| event.number);
    assert!(numbers.eq(1..=events.len() as u64), "{text}");
    let ready = events.iter().filter(|event| event.kind == "worker-ready");
    assert!(ready.count() >= 4, "{text}");
    let ended = events.iter().filter(|event| event.kind == "reload-worker");
    let ended: Vec<_> = ended.map(|event| (event.generation, event.pid)).collect();
    assert_eq!(ended, [(Some(1), None); 2], "of the old workers: {text}");
    assert_eq!(ganger.must(&["events", "-n", "2"]).lines().count(), 2);
    ganger.stop();
}

#[test]
fn changes_are_shown_worker_by_worker() {
    let Some(ganger) = start("progress") else {
        return;
    };
    for (verb, workers) in [
        (&["reload"][..], 2),
        (&["scale", "+1"], 3),
        (&["scale", "2"], 2),
    ] {
        let text = ganger.must(verb);
        assert!(text.lines().count() > 1, "{verb:?}: {text}");
        ganger.wait_ready(workers);
    }
    let text = ganger.must(&["reload"]);
    assert!(text.contains("app.0") && text.contains("app.1"), "{text}");
    ganger.stop();
}

#[test]
fn a_second_app_comes_and_goes() {
    let Some(ganger) = start("second") else {
        return;
    };
    let server = ganger.place.write("other.js", SERVER);
    let port = format!("PORT={}", PORT + 1);
    ganger.must(&["start", "-n", "1", "-e", &port, "--", &server]);
    assert!(get(ganger.place.at(PORT + 1), "/").ends_with('0'));
    let text = said(&ganger.verb(&["reload"]));
    assert!(text.contains("which app? There are app, other"), "{text}");
    ganger.must(&["stop", "other"]);
    assert!(ganger.must(&["status"]).contains("2 of 2 ready"));
    assert_eq!(ganger.status().unwrap().apps.len(), 1);
    ganger.must(&["stop", "--all"]);
    let mut ganger = ganger;
    assert!(ganger.wait().success());
    ganger.into_place().assert_empty();
}

#[test]
fn a_package_finds_its_start_script() {
    if super::program("node").is_none() {
        return;
    }
    let place = Place::new("package");
    place.write("server.js", SERVER);
    place.write(
        "package.json",
        r#"{"name": "shop", "scripts": {"start": "EXTRA=1 node server.js"}}"#,
    );
    let folder = place.file("").to_str().unwrap().to_owned();
    let ganger = place.recipe(&[folder]).start();
    let app = ganger.app().unwrap();
    assert_eq!(app.command, ["node", "server.js"]);
    assert_eq!(app.deliver, "node");
    ganger.stop();
}

#[test]
fn completions_are_taken_by_the_shell() {
    let place = Place::new("completions");
    for shell in ["bash", "zsh", "fish"] {
        let output = place.command(&["completions", shell]).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("reload") && !text.contains("demo-worker "),
            "{shell}"
        );
        if shell == "bash" {
            let path = place.write("completions", &text);
            let mut bash = std::process::Command::new("bash");
            assert!(bash.args(["-n", &path]).status().unwrap().success());
        }
    }
}

/// What the demo answers to a hit.
#[derive(Deserialize)]
struct Hit {
    hits: u64,
    visits: u64,
    worker: u32,
    pid: u32,
}

#[test]
fn the_demo_keeps_its_counters_over_kills_and_reloads() {
    let place = Place::new("demo");
    let (demo, at) = start_demo(&place);
    let verb = |arguments: &[&str]| run_verb(&place, arguments);
    let mut seen = BTreeSet::new();
    let mut last = hit(at);
    assert_eq!(last.visits, 1);
    while seen.len() < 2 {
        let next = hit(at);
        assert_eq!(next.hits, last.hits + 1);
        seen.insert(next.worker);
        last = next;
    }
    let before = last.hits;
    kill(last.pid, Signal::KILL);
    assert_eq!(hit(at).hits, before + 1);
    verb(&["reload", "demo"]);
    verb(&["scale", "demo", "+1"]);
    assert_eq!(hit(at).hits, before + 2);
    assert!(place.output().contains(&format!("http://{at}/")));
    end_demo(&place, demo);
}

/// Whoever asks again at once on a kept connection is told by an answer that it ends, and never finds it
/// closed.
#[test]
fn reloads_of_the_demo_end_kept_connections_with_an_answer() {
    let place = Place::new("demo-kept");
    let (demo, at) = start_demo(&place);
    let is_over = AtomicBool::new(false);
    let ended = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| ask_on_kept_connections(at, &is_over)))
            .collect();
        let reloads = scope.spawn(|| (0..5).for_each(|_| run_verb(&place, &["reload", "demo"])));
        let reloaded = reloads.join();
        is_over.store(true, Ordering::Relaxed);
        reloaded.unwrap();
        let ended = clients.into_iter().map(|client| client.join().unwrap());
        ended.sum::<u32>()
    });
    assert!(
        ended >= 8,
        "only {ended} connections were ended by a reload"
    );
    end_demo(&place, demo);
}

/// Asks again and again until told to stop; how many connections ended, each with an answer.
fn ask_on_kept_connections(at: SocketAddr, is_over: &AtomicBool) -> u32 {
    let mut ended = 0;
    loop {
        let stream = TcpStream::connect(at).unwrap();
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).unwrap();
        let mut lines = BufReader::new(&stream).lines();
        let mut is_kept = true;
        while is_kept {
            if is_over.load(Ordering::Relaxed) {
                return ended;
            }
            (&stream)
                .write_all(b"GET /hit HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap();
            loop {
                let line = lines.next().expect("an answer").unwrap();
                is_kept &= line != "connection: close";
                if line.starts_with('{') {
                    break;
                }
            }
        }
        ended += 1;
    }
}

fn start_demo(place: &Place) -> (Child, SocketAddr) {
    let port = free_port();
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut command = place.command(&["demo", "-n", "2", "--port", &port.to_string()]);
    let log = std::fs::File::create(place.file("output")).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let mut demo = super::ganger::spawn_bound(&mut command);
    wait_until("the demo to answer", || {
        demo.try_wait().unwrap().is_none() && TcpStream::connect(at).is_ok()
    });
    (demo, at)
}

fn run_verb(place: &Place, arguments: &[&str]) {
    let output = place.command(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
}

fn end_demo(place: &Place, mut demo: Child) {
    kill(demo.id(), Signal::INT);
    let mut status = None;
    wait_until("the demo to end", || {
        status = demo.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0), "{}", place.output());
    place.assert_empty();
}

fn hit(at: SocketAddr) -> Hit {
    serde_json::from_str(&get(at, "/hit")).unwrap()
}

/// A verb that goes on, line by line.
struct Followed {
    child: Child,
    lines: Option<BufReader<std::process::ChildStdout>>,
}

impl Followed {
    fn new(ganger: &Ganger, arguments: &[&str]) -> Self {
        let mut command = ganger.place.command(arguments);
        let mut child = super::ganger::spawn_bound(command.stdout(Stdio::piped()));
        let lines = Some(BufReader::new(child.stdout.take().unwrap()));
        Self { child, lines }
    }

    /// Its next line, while `nudge` is done again and again.
    fn wait_line(&mut self, mut nudge: impl FnMut()) -> String {
        let lines = self.lines.as_mut().unwrap();
        std::thread::scope(|scope| {
            let line = scope.spawn(|| {
                let mut line = String::new();
                lines.read_line(&mut line).unwrap();
                line
            });
            while !line.is_finished() {
                nudge();
            }
            line.join().unwrap()
        })
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(at: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}
