//! Real programs, unmodified: each starts on two workers, both answer, and a reload and changes of
//! their number lose nothing.

use super::ganger::{Ganger, Place, APP, PORT};
use super::{example, installed, program, script, wait_until_patient};
use crate::harness::wait_until;
use crate::load::{Load, Plan, Report, Shape};
use std::collections::BTreeSet;

/// A load, before there is an address.
#[derive(Clone, Copy)]
pub(super) struct Traffic {
    name: &'static str,
    shape: Shape,
    kept: Option<usize>,
    rate: f64,
}

pub(super) const FRESH: Traffic = Traffic::new("a connection each", Shape::Hello, None, 40.0);
pub(super) const SLOW: Traffic = Traffic::new("slow requests", Shape::Slow(200), None, 10.0);
pub(super) const KEPT: Traffic = Traffic::new("kept connections", Shape::Hello, Some(8), 40.0);
pub(super) const ECHO: Traffic = Traffic::new("websockets", Shape::Echo, Some(8), 40.0);
/// Websockets are closed with a close frame after so long.
pub(super) const WEBSOCKETS_GO: &[&str] = &["--env", "GANGER_WEBSOCKET_GRACE_MS=300"];
const DOWNLOAD: Traffic = Traffic::new("downloads", Shape::Download(300_000), None, 5.0);
const UPLOAD: Traffic = Traffic::new("uploads", Shape::Upload(300_000), None, 3.0);
const FILE: Traffic = Traffic::new("files", Shape::File("a file\n"), None, 30.0);

impl Traffic {
    const fn new(name: &'static str, shape: Shape, kept: Option<usize>, rate: f64) -> Self {
        Self {
            name,
            shape,
            kept,
            rate,
        }
    }

    /// The same, at a part of the rate: for programs that need more time for a request.
    pub(super) const fn by(mut self, part: f64) -> Self {
        self.rate *= part;
        self
    }

    pub(super) fn start(self, ganger: &Ganger) -> Load {
        let plan = Plan::new(ganger.at(), self.rate).shape(self.shape);
        Load::start(match self.kept {
            Some(connections) => plan.kept(connections),
            None => plan,
        })
    }
}

/// Several loads at once.
pub(super) struct Loads(Vec<(&'static str, Load)>);

impl Loads {
    pub(super) fn start(traffic: &[Traffic], ganger: &Ganger) -> Self {
        let loads = traffic.iter().map(|one| (one.name, one.start(ganger)));
        Self(loads.collect())
    }

    /// Waits until each load has got so many more right answers.
    pub(super) fn go_on(&self, answers: u64) {
        let goals: Vec<u64> = self.0.iter().map(|(_, load)| load.answered()).collect();
        for ((name, load), goal) in self.0.iter().zip(goals) {
            wait_until_patient(name, || load.answered() >= goal + answers);
        }
    }

    /// Ends all, and judges each.
    #[track_caller]
    pub(super) fn judge(self, judge: impl Fn(&Report, &str)) {
        for (name, load) in self.0 {
            judge(&load.stop(), name);
        }
    }
}

/// Starts a program on two workers, sees both answer, and changes it while the loads run.
fn prove(test: &'static str, traffic: &[Traffic], command: impl FnOnce(&Place) -> Vec<String>) {
    let place = Place::new(test);
    let command = command(&place);
    let ganger = place.recipe(&command).start();
    see_both_answer(&ganger, traffic[0]);
    change(&ganger, traffic);
    ganger.stop();
}

fn see_both_answer(ganger: &Ganger, traffic: Traffic) {
    let load = traffic.start(ganger);
    wait_until("both workers to answer", || {
        load.so_far().workers.len() >= 2
    });
    let report = load.stop();
    report.assert_perfect("both workers");
    assert_eq!(report.workers.len(), 2, "{report}");
}

fn change(ganger: &Ganger, traffic: &[Traffic]) {
    let loads = Loads::start(traffic, ganger);
    loads.go_on(10);
    let before = pids(ganger);
    ganger.must(&["reload", APP]);
    ganger.wait_ready(2);
    assert!(before.is_disjoint(&pids(ganger)), "a reload replaces all");
    loads.go_on(10);
    ganger.must(&["scale", APP, "3"]);
    ganger.wait_ready(3);
    loads.go_on(10);
    ganger.must(&["scale", APP, "-1"]);
    ganger.wait_ready(2);
    loads.go_on(10);
    loads.judge(Report::assert_perfect_but_races);
}

fn pids(ganger: &Ganger) -> BTreeSet<u32> {
    ganger.pids().into_iter().collect()
}

pub(super) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A uvicorn that serves the FastAPI application at the address of the place.
pub(super) fn uvicorn_command(place: &Place) -> Option<Vec<String>> {
    let uvicorn = installed("python/.venv/bin/uvicorn")?;
    let folder = super::fixtures().join("python");
    Some(words(&[
        &uvicorn,
        "fastapi_app:app",
        "--app-dir",
        folder.to_str().unwrap(),
        "--host",
        &place.address.to_string(),
        "--port",
        &PORT.to_string(),
        "--log-level",
        "warning",
    ]))
}

#[test]
fn node_http() {
    if let Some(command) = script("node", "node/http.js") {
        let traffic = [FRESH, KEPT, SLOW, DOWNLOAD, UPLOAD];
        prove("node:http", &traffic, |_| command.to_vec());
    }
}

#[test]
fn express() {
    let packages = installed("node/node_modules/express");
    if let (Some(command), Some(_)) = (script("node", "node/express.js"), packages) {
        let traffic = [FRESH, KEPT, SLOW, DOWNLOAD, UPLOAD];
        prove("express", &traffic, |_| command.to_vec());
    }
}

/// An ES module.
#[test]
fn fastify() {
    let packages = installed("node/node_modules/fastify");
    if let (Some(command), Some(_)) = (script("node", "node/fastify.mjs"), packages) {
        prove("fastify", &[FRESH, KEPT, SLOW], |_| command.to_vec());
    }
}

#[test]
fn a_websocket_server_of_node() {
    let packages = installed("node/node_modules/ws");
    if let (Some(command), Some(_)) = (script("node", "node/ws.js"), packages) {
        // A websocket is never done: it is to be told to go after a while.
        let recipe = Place::new("ws").recipe(&command);
        let ganger = recipe.option(WEBSOCKETS_GO).start();
        see_both_answer(&ganger, ECHO);
        change(&ganger, &[ECHO]);
        ganger.stop();
    }
}

#[test]
fn npm_start() {
    if let Some(npm) = program("npm") {
        let folder = super::fixtures().join("node");
        let command = words(&[&npm, "start", "--prefix", folder.to_str().unwrap()]);
        prove("npm start", &[FRESH, SLOW], |_| command);
    }
}

/// Two commands, so that the shell stays, and is the parent of the server.
#[test]
fn sh_c() {
    if let Some([node, path]) = script("node", "node/http.js") {
        let command = words(&["sh", "-c", &format!("echo starting; {node} {path}")]);
        prove("sh -c", &[FRESH, SLOW], |_| command);
    }
}

#[test]
fn uvicorn_with_fastapi() {
    let traffic = [FRESH, KEPT, SLOW, DOWNLOAD, UPLOAD].map(|one| one.by(0.5));
    if installed("python/.venv/bin/uvicorn").is_some() {
        prove("uvicorn", &traffic, |place| uvicorn_command(place).unwrap());
    }
}

#[test]
fn gunicorn() {
    if let Some(gunicorn) = installed("python/.venv/bin/gunicorn") {
        let folder = super::fixtures().join("python");
        prove("gunicorn", &[FRESH, SLOW], |place| {
            words(&[
                &gunicorn,
                "wsgi_app:app",
                "--chdir",
                folder.to_str().unwrap(),
                "--bind",
                &place.at(PORT).to_string(),
                "--threads",
                "4",
            ])
        });
    }
}

#[test]
fn python_http_server_with_a_handler() {
    if let Some(command) = script("python3", "python/http_server.py") {
        prove("http.server", &[FRESH, SLOW], |_| command.to_vec());
    }
}

/// The server of files that Python comes with. It does not say who it is, but it logs what it
/// serves.
#[test]
fn python_m_http_server() {
    let Some(python) = program("python3") else {
        return;
    };
    let place = Place::new("python -m http.server");
    place.write("file.txt", "a file\n");
    let folder = place.file("").to_str().unwrap().to_owned();
    let host = place.address.to_string();
    let port = PORT.to_string();
    let command = words(&[
        &python,
        "-m",
        "http.server",
        "--bind",
        &host,
        "--directory",
        &folder,
        &port,
    ]);
    let ganger = place.recipe(&command).start();
    let load = FILE.start(&ganger);
    for worker in ["0", "1"] {
        wait_until("a worker to log what it served", || {
            let logs = ganger.verb(&["logs", APP, "--worker", worker]);
            String::from_utf8_lossy(&logs.stdout).contains("GET /file.txt")
        });
    }
    load.stop().assert_perfect("files");
    change(&ganger, &[FILE]);
    ganger.stop();
}

#[test]
fn axum() {
    if let Some(axum) = example("axum_app") {
        let traffic = [FRESH, KEPT, SLOW];
        prove("axum", &traffic, |_| vec![axum]);
    }
}
