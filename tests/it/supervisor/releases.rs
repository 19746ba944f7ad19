//! Releases that must not go live: the old one goes on, nothing is lost, and the command says why.

use super::ganger::{deploy, replace, Place, Recipe, APP, PORT};
use super::program;
use super::programs::{Loads, FRESH, KEPT, SLOW};
use crate::load::Report;

const SERVER: &str = "server.js";

/// A server that is served from a folder, where a test can put the next release.
fn recipe(test: &'static str, fixture: &str) -> Option<Recipe> {
    let node = program("node")?;
    let place = Place::new(test);
    let server = deploy(&place, fixture, SERVER);
    Some(place.recipe(&[node, server]))
}

/// Puts a bad release there and reloads: that must fail, with one of these words, and all workers
/// are those of before. Then the good one goes live.
fn refuse(recipe: Recipe, bad: impl Fn(&str) -> String, words: &[&str]) {
    let ganger = recipe.start();
    let server = ganger.place.file(SERVER);
    let good = std::fs::read_to_string(&server).unwrap();
    let loads = Loads::start(&[FRESH, KEPT, SLOW], &ganger);
    loads.go_on(10);
    let before = ganger.pids();
    replace(&server, &bad(&good));
    for _ in 0..2 {
        let said = ganger.must_fail(&["reload", APP]);
        for word in words {
            assert!(
                said.contains(word),
                "{word} is not in what was said:\n{said}"
            );
        }
        ganger.wait_ready(2);
        assert_eq!(before, ganger.pids(), "the old ones serve on");
        loads.go_on(5);
    }
    replace(&server, &good);
    ganger.must(&["reload", APP]);
    ganger.wait_ready(2);
    loads.go_on(5);
    assert!(!ganger.pids().iter().any(|pid| before.contains(pid)));
    loads.judge(Report::assert_perfect);
    ganger.stop();
}

#[test]
fn a_release_that_never_gets_ready_does_not_go_live() {
    if let Some(recipe) = recipe("never ready", "node/http.js") {
        let recipe = recipe.option(&["--start-timeout", "8s"]);
        let bad =
            |_: &str| "console.log('still thinking'); setInterval(() => {}, 1000);".to_owned();
        refuse(recipe, bad, &["still thinking"]);
    }
}

#[test]
fn a_release_that_does_not_compile_does_not_go_live() {
    if let Some(recipe) = recipe("no release", "node/http.js") {
        refuse(
            recipe,
            |_| "this is no program".to_owned(),
            &["SyntaxError"],
        );
    }
}

#[test]
fn a_release_that_crashes_after_it_is_ready_does_not_go_live() {
    if let Some(recipe) = recipe("crashes", "node/http.js") {
        let recipe = recipe.option(&["--healthy", "1s"]);
        let bad = |good: &str| {
            format!("{good}\nsetTimeout(() => {{ throw new Error('late regret'); }}, 300);")
        };
        refuse(recipe, bad, &["late regret"]);
    }
}

#[test]
fn a_release_that_listens_on_another_port_does_not_go_live() {
    if let Some(recipe) = recipe("other port", "node/http.js") {
        let recipe = recipe.option(&["--start-timeout", "8s"]);
        let other = (PORT + 1).to_string();
        let bad = |good: &str| good.replace("process.env.PORT || 3000", &other);
        refuse(recipe, bad, &[&other, &PORT.to_string()]);
    }
}

#[test]
fn a_release_that_answers_with_errors_does_not_go_live() {
    if let Some(recipe) = recipe("500", "node/http.js") {
        let recipe = recipe.option(&["--ready-http", "/hello?id=1", "--start-timeout", "8s"]);
        let bad =
            |good: &str| good.replace("case '/hello':", "case '/hello': res.statusCode = 500;");
        refuse(recipe, bad, &["/hello?id=1", "not answered well"]);
    }
}
