//! Two generations beside each other, and workers that no longer answer.

use super::ganger::{replace, Ganger, Place, Recipe, APP};
use super::program;
use crate::harness::wait_until;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

const SERVER: &str = "server.js";

/// A server whose answers name its release. `/hang` never comes back, and neither does the server.
const TEXT: &str = "
const release = 'RELEASE';
require('node:http').createServer((request, response) => {
  if (request.url === '/hang') for (;;);
  response.setHeader('connection', 'close');
  response.statusCode = request.url === '/health' && release === 'sick' ? 503 : 200;
  response.end(release);
}).listen(Number(process.env.PORT), process.env.HOST);
";

fn recipe(test: &'static str) -> Option<Recipe> {
    let node = program("node")?;
    let place = Place::new(test);
    let server = place.write(SERVER, &TEXT.replace("RELEASE", "old"));
    Some(place.recipe(&[node, server]))
}

fn release(ganger: &Ganger, name: &str) {
    replace(ganger.place.file(SERVER), &TEXT.replace("RELEASE", name));
}

/// What one request is answered with.
fn get(ganger: &Ganger, path: &str) -> String {
    let mut stream = TcpStream::connect(ganger.at()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}

/// How many of so many answers are of this release.
fn count(ganger: &Ganger, requests: usize, release: &str) -> usize {
    let answers = (0..requests).map(|_| get(ganger, "/"));
    answers.filter(|answer| answer.contains(release)).count()
}

fn doing(ganger: &Ganger) -> Option<String> {
    ganger.app()?.doing
}

/// A canary gets its part and no more; a rollback takes it away again and the command fails; without
/// one all workers are replaced when its time is over.
#[test]
fn a_canary_gets_its_part_and_goes_when_it_is_rolled_back() {
    let Some(recipe) = recipe("canary") else {
        return;
    };
    let ganger = recipe.start();
    let before = ganger.pids();
    assert!(ganger
        .must_fail(&["reload", APP, "--rollback"])
        .contains("no reload"));
    release(&ganger, "new");
    let canary = ["reload", APP, "--canary", "30", "--for", "10m"];
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| ganger.must_fail(&canary));
        let is_canary = |doing: String| doing.contains("canary 30%");
        wait_until("the canary", || doing(&ganger).is_some_and(is_canary));
        // A thousand chances of 30 %: eight deviations of 14.5 to each side.
        let new = count(&ganger, 1000, "new");
        assert!((184..=416).contains(&new), "{new} of 1000");
        let busy = ganger.must_fail(&["scale", APP, "3"]);
        assert!(busy.contains("canary 30%"), "{busy}");
        ganger.must(&["reload", APP, "--rollback"]);
        assert!(reload.join().unwrap().contains("rolled back"));
    });
    ganger.wait_ready(2);
    assert_eq!(ganger.pids(), before);
    assert_eq!(count(&ganger, 50, "new"), 0);
    ganger.must(&["reload", APP, "--canary", "50", "--for", "100ms"]);
    ganger.wait_ready(2);
    assert_eq!(count(&ganger, 50, "new"), 50);
    ganger.stop();
}

/// A canary that dies ends the reload, and the old ones serve on.
#[test]
fn a_canary_that_dies_ends_its_reload() {
    let Some(recipe) = recipe("dying canary") else {
        return;
    };
    let ganger = recipe.start();
    let before = ganger.pids();
    release(&ganger, "new");
    let canary = ["reload", APP, "--canary", "10", "--for", "10m"];
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| ganger.must_fail(&canary));
        wait_until("the canary", || ganger.pids().len() == 3);
        let pids = ganger.pids();
        let new = pids.iter().find(|pid| !before.contains(pid)).unwrap();
        super::ganger::kill(*new, rustix::process::Signal::KILL);
        assert!(reload.join().unwrap().contains("SIGKILL"));
    });
    ganger.wait_ready(2);
    assert_eq!(ganger.pids(), before);
    ganger.stop();
}

/// The readiness probe asks the new worker itself, which gets no other connection yet.
#[test]
fn a_release_that_is_not_healthy_does_not_go_live() {
    let Some(recipe) = recipe("sick") else {
        return;
    };
    let recipe = recipe.option(&["--ready-http", "/health", "--start-timeout", "5s"]);
    let ganger = recipe.start();
    let before = ganger.pids();
    release(&ganger, "sick");
    let said = ganger.must_fail(&["reload", APP]);
    assert!(said.contains("GET /health"), "{said}");
    assert_eq!(ganger.pids(), before);
    release(&ganger, "new");
    ganger.must(&["reload", APP]);
    assert_eq!(count(&ganger, 20, "new"), 20);
    ganger.stop();
}

/// One that hangs is found out by a probe of its own and replaced; the other one is left alone.
#[test]
fn a_worker_that_hangs_is_replaced_and_no_other() {
    let Some(recipe) = recipe("hang") else {
        return;
    };
    let recipe = recipe.option(&["--liveness", "http:/health", "--liveness-every", "100ms"]);
    let recipe = recipe.option(&["--liveness-timeout", "3s", "--liveness-failures", "2"]);
    let ganger = recipe.start();
    let before = ganger.pids();
    let mut victim = TcpStream::connect(ganger.at()).unwrap();
    write!(victim, "GET /hang HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    wait_until("a replacement", || {
        let ready = ganger.ready();
        ready.len() == 2 && ready.iter().map(|worker| worker.restarts).sum::<u64>() == 1
    });
    let after = ganger.pids();
    let kept = before.iter().filter(|pid| after.contains(pid)).count();
    assert_eq!(kept, 1, "{before:?} {after:?}");
    assert_eq!(count(&ganger, 20, "old"), 20);
    ganger.stop();
}

/// A service manager is told when all serve and when it ends; SIGHUP reloads.
#[test]
fn a_service_manager_is_told_and_sighup_reloads() {
    let Some(recipe) = recipe("manager") else {
        return;
    };
    let place = Place::new("manager's socket");
    let path = place.file("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let heard = || {
        let mut text = [0; 64];
        let len = manager.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..len]).into_owned()
    };
    let ganger = recipe.env("NOTIFY_SOCKET", path.to_str().unwrap()).start();
    assert_eq!(heard(), "READY=1");
    release(&ganger, "new");
    let before = ganger.pids();
    ganger.signal(rustix::process::Signal::HUP);
    wait_until("all to be replaced", || {
        let pids = ganger.pids();
        pids.len() == 2 && !pids.iter().any(|pid| before.contains(pid))
    });
    ganger.wait_ready(2);
    assert_eq!(count(&ganger, 20, "new"), 20);
    ganger.stop();
    assert_eq!(heard(), "STOPPING=1");
    std::fs::remove_file(path).unwrap();
}
