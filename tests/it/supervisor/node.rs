//! Every way in which Node listens, and what node:cluster promises its workers.

use super::ganger::{said, spawn_bound, Ganger, Place, Recipe, APP, PORT};
use super::{installed, script};
use crate::harness::wait_until;
use crate::load::{Load, Plan};
use crate::ports::free_port;
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

/// Runs `kinds.js` in one of its ways on two workers.
fn start(kind: &'static str, adjust: impl FnOnce(Recipe) -> Recipe) -> Option<Ganger> {
    let [node, path] = script("node", "node/kinds.js")?;
    let place = Place::new(kind);
    Some(adjust(place.recipe(&[node.as_str(), &path, kind])).start())
}

/// Asks until both workers have answered, then goes on through a reload.
fn see_both(ganger: &Ganger, ask: impl Fn() -> u32) {
    let both = |ask: &dyn Fn() -> u32| {
        let mut seen = BTreeSet::new();
        wait_until("both workers to answer", || {
            seen.insert(ask());
            seen.len() >= 2
        });
        seen
    };
    let before = both(&ask);
    ganger.must(&["reload", APP]);
    ganger.wait_ready(2);
    assert!(before.is_disjoint(&both(&ask)), "a reload replaces all");
}

/// Asks an HTTP server at this address which process it is.
fn ask(address: SocketAddr) -> u32 {
    let mut stream = TcpStream::connect(address).unwrap();
    ask_on(&mut stream)
}

fn ask_on(stream: &mut (impl Read + Write)) -> u32 {
    stream
        .write_all(b"GET /?id=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    pid_in(text.split_once("{\"pid\":").unwrap().1)
}

fn pid_in(text: &str) -> u32 {
    let digits = text.find(|byte: char| !byte.is_ascii_digit());
    text[..digits.unwrap_or(text.len())].parse().unwrap()
}

/// What Node itself, as a client, hears from a server.
fn ask_by_node(kind: &str, address: SocketAddr) -> u32 {
    let [node, client] = script("node", "node/client.js").unwrap();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let output = std::process::Command::new(node)
        .args([&client, kind, &host, &port, "1"])
        .output()
        .unwrap();
    pid_in(said(&output).split_once("{\"pid\":").expect("an answer").1)
}

#[test]
fn https_and_http2() {
    for kind in ["https", "http2"] {
        if installed("node/generated/cert.pem").is_none() {
            return;
        }
        if let Some(ganger) = start(kind, |recipe| recipe) {
            see_both(&ganger, || ask_by_node(kind, ganger.at()));
            ganger.stop();
        }
    }
}

#[test]
fn plain_sockets() {
    if let Some(ganger) = start("net", |recipe| recipe) {
        see_both(&ganger, || {
            let mut text = String::new();
            let mut stream = TcpStream::connect(ganger.at()).unwrap();
            stream.read_to_string(&mut text).unwrap();
            pid_in(&text)
        });
        ganger.stop();
    }
}

#[test]
fn datagrams_are_answered_by_whoever_is_there() {
    let Some(ganger) = start("dgram", |recipe| recipe) else {
        return;
    };
    let place = &ganger.place;
    let ask = || {
        let socket = UdpSocket::bind((place.address, 0)).unwrap();
        let patience = Some(Duration::from_secs(20));
        socket.set_read_timeout(patience).unwrap();
        socket.send_to(b"hello", place.at(PORT)).unwrap();
        let mut answer = [0; 100];
        let len = socket.recv(&mut answer).expect("a datagram is answered");
        let text = String::from_utf8(answer[..len].to_vec()).unwrap();
        assert!(text.ends_with(" hello"), "{text}");
        pid_in(&text)
    };
    let before: BTreeSet<u32> = (0..50).map(|_| ask()).collect();
    ganger.must(&["reload", APP]);
    ganger.wait_ready(2);
    let after: BTreeSet<u32> = (0..50).map(|_| ask()).collect();
    assert!(before.is_disjoint(&after), "a reload replaces all");
    ganger.stop();
}

/// Two servers that leave the port to the system: all workers share the same two.
#[test]
fn ports_that_the_system_chooses_are_the_same_for_all_workers() {
    let Some(ganger) = start("zero", |recipe| recipe) else {
        return;
    };
    let ports = || {
        let mut ports: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
        for line in lines(&ganger, None) {
            if let Some((name, port)) = line.split_once(' ') {
                let port = port.trim().parse::<u16>();
                ports.entry(name.to_owned()).or_default().extend(port);
            }
        }
        ports
    };
    wait_until("both servers to say their port", || ports().len() == 2);
    let seen = ports();
    for port in seen.values().flatten() {
        see_both(&ganger, || ask(ganger.place.at(*port)));
    }
    assert!(seen.values().all(|ports| ports.len() == 1), "{seen:?}");
    assert_ne!(seen["first"], seen["second"]);
    assert_eq!(seen, ports(), "and so do those after a reload");
    ganger.stop();
}

#[test]
fn several_ports() {
    if let Some(ganger) = start("several", |recipe| recipe) {
        for offset in [0, 1, 2] {
            see_both(&ganger, || ask(ganger.place.at(PORT + offset)));
        }
        ganger.stop();
    }
}

/// `exclusive: true` is a worker's own listener, which nobody else gets.
#[test]
fn an_exclusive_listener_is_the_workers_own() {
    let Some(ganger) = start("exclusive", |recipe| recipe) else {
        return;
    };
    see_both(&ganger, || ask(ganger.at()));
    let ready = ganger.ready();
    assert_eq!(ready.len(), 2);
    for worker in ready {
        let port = || {
            let all = lines(&ganger, Some(worker.index));
            let told = all.iter().rev().find_map(|line| line.strip_prefix("own "));
            told.and_then(|port| port.trim().parse().ok())
        };
        wait_until("the own port", || port().is_some());
        let own = ganger.place.at(port().unwrap());
        for _ in 0..5 {
            assert_eq!(Some(ask(own).cast_signed()), worker.pid);
        }
    }
    ganger.stop();
}

/// Nobody else gets the port that the system gave to a listener of a worker's own.
#[test]
fn a_port_of_a_workers_own_is_not_asked_of_those_that_follow() {
    let Some(ganger) = start("own", |recipe| recipe) else {
        return;
    };
    ganger.wait_ready(2);
    ganger.must(&["reload", APP]);
    ganger.must(&["scale", APP, "+1"]);
    ganger.wait_ready(3);
    ganger.stop();
}

#[test]
fn unix_sockets() {
    let Some([node, path]) = script("node", "node/kinds.js") else {
        return;
    };
    let place = Place::new("unix");
    let socket = place.file("app.sock");
    let recipe = place.recipe(&[&node, &path, "unix"]);
    let ganger = recipe.env("SOCKET", socket.to_str().unwrap()).start();
    see_both(&ganger, || {
        ask_on(&mut UnixStream::connect(&socket).unwrap())
    });
    let plan = Plan::new(ganger.at(), 60.0).unix(socket.clone());
    let load = Load::start(plan);
    load.wait_answers(10);
    ganger.must(&["reload", APP]);
    ganger.must(&["scale", APP, "1"]);
    load.wait_answers(10);
    load.stop().assert_perfect("a Unix socket");
    ganger.stop();
}

/// `listen(port)` and nothing else: every address, by IPv6 and by IPv4.
#[test]
fn all_addresses_of_both_families() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("SKIPPED: there is no IPv6");
        return;
    }
    let port = free_port();
    let with_port = |recipe: Recipe| recipe.env("PORT", &port.to_string());
    if let Some(ganger) = start("dual", with_port) {
        see_both(&ganger, || ask(ganger.place.at(port)));
        see_both(&ganger, || ask((Ipv6Addr::LOCALHOST, port).into()));
        ganger.stop();
    }
    if let Some(ganger) = start("six", with_port) {
        see_both(&ganger, || ask((Ipv6Addr::LOCALHOST, port).into()));
        ganger.stop();
    }
}

/// The lines that an app's workers wrote.
fn lines(ganger: &Ganger, worker: Option<u16>) -> Vec<String> {
    let worker = worker.map(|worker| worker.to_string());
    let mut arguments = vec!["logs", APP, "--lines", "1000", "--json"];
    arguments.extend(worker.iter().flat_map(|worker| ["--worker", worker]));
    let output = ganger.verb(&arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let entries = text.lines().map(serde_json::from_str);
    let lines = entries.map(|entry: Result<serde_json::Value, _>| entry.unwrap());
    lines
        .map(|line| line["text"].as_str().unwrap().to_owned())
        .collect()
}

/// What a program sees of its primary, under node:cluster itself and under the supervisor.
#[test]
fn a_worker_sees_of_its_primary_what_node_cluster_shows_it() {
    let Some([node, program]) = script("node", "node/cluster.js") else {
        return;
    };
    let theirs = under_node_cluster(&node, &program);
    assert!(theirs.len() > 16, "{theirs:#?}");
    let recipe = Place::new("cluster").recipe(&[&node, &program]).workers(1);
    let ganger = recipe.start();
    let shown = || {
        let output = ganger.place.output();
        let own = output.lines().filter(|line| line.starts_with("app.0 "));
        own.filter_map(|line| Some(line.split_once("| ")?.1.to_owned()))
            .collect()
    };
    let stop = || ganger.signal(Signal::TERM);
    let ours = run_and_stop(&ganger.place, stop, shown);
    assert_eq!(theirs, ours);
    ganger.into_place().assert_empty();
}

/// `cluster.worker.disconnect()`, called by the program: it ends as it wants, and is replaced.
#[test]
fn a_worker_that_disconnects_itself_is_replaced() {
    let Some(command) = script("node", "node/cluster.js") else {
        return;
    };
    let ganger = Place::new("disconnects").recipe(&command).start();
    let load = Load::start(Plan::new(ganger.at(), 60.0));
    load.wait_answers(10);
    let before = ganger.pids();
    let mut stream = TcpStream::connect(ganger.at()).unwrap();
    stream
        .write_all(b"GET /disconnect HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    wait_until("a replacement", || {
        let now = ganger.pids();
        now.len() == 2 && now != before
    });
    load.wait_answers(10);
    load.stop()
        .assert_perfect("a worker that disconnects itself");
    ganger.stop();
}

fn under_node_cluster(node: &str, program: &str) -> Vec<String> {
    let place = Place::new("node:cluster");
    let primary = super::fixtures().join("node/primary.js");
    let out = std::fs::File::create(place.file("output")).unwrap();
    let mut command = std::process::Command::new(node);
    command
        .args([primary.to_str().unwrap(), program])
        .env("HOST", place.address.to_string())
        .env("PORT", PORT.to_string())
        .stdout(out)
        .stdin(Stdio::null());
    let mut process = spawn_bound(&mut command);
    let pid = process.id();
    let seen = run_and_stop(
        &place,
        || super::ganger::kill(pid, Signal::TERM),
        || place.output().lines().map(str::to_owned).collect(),
    );
    process.wait().unwrap();
    seen
}

/// Waits until the program has said all it has to say at first, has it stopped, and tells what it
/// said in all.
fn run_and_stop(
    place: &Place,
    stop: impl FnOnce(),
    lines: impl Fn() -> Vec<String>,
) -> Vec<String> {
    wait_until("the program to be there", || {
        lines().iter().any(|line| line.starts_with("sent: "))
    });
    stop();
    wait_until("the program to say goodbye", || {
        lines().iter().any(|line| line.starts_with("exit: "))
    });
    let address = place.address.to_string();
    let mut lines = lines();
    for line in &mut lines {
        *line = line.replace(&address, "HOST").trim_end().to_owned();
    }
    lines
}
