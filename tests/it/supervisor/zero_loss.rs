//! Planned changes lose nothing: reloads and changes of the number of workers, under new
//! connections, kept connections, slow requests and websockets.

use super::ganger::{Ganger, Place, APP};
use super::programs::{uvicorn_command, Loads, Traffic, ECHO, FRESH, KEPT, SLOW, WEBSOCKETS_GO};
use super::{installed, rounds, script};
use crate::load::Report;

#[test]
fn twenty_reloads_of_a_node_server_lose_nothing() {
    if let Some(command) = script("node", "node/http.js") {
        let ganger = Place::new("reloads of node").recipe(&command).start();
        reload(
            &ganger,
            &[FRESH, KEPT, SLOW],
            rounds(20),
            Report::assert_perfect,
        );
        ganger.stop();
    }
}

#[test]
fn twenty_reloads_with_one_shared_queue_lose_nothing() {
    if let Some(command) = script("node", "node/http.js") {
        let recipe = Place::new("reloads, shared").recipe(&command);
        let ganger = recipe.option(&["--balance", "shared"]).start();
        reload(&ganger, &[FRESH, KEPT], rounds(20), Report::assert_perfect);
        ganger.stop();
    }
}

#[test]
fn reloads_of_uvicorn_lose_nothing() {
    let place = Place::new("reloads of uvicorn");
    if let Some(command) = uvicorn_command(&place) {
        let ganger = place.recipe(&command).start();
        let judge = Report::assert_perfect_but_races;
        let traffic = [FRESH, KEPT, SLOW].map(|one| one.by(0.5));
        reload(&ganger, &traffic, rounds(6), judge);
        ganger.stop();
    }
}

/// A websocket is told to go by a close frame; its client connects again and finds a server.
#[test]
fn reloads_lose_no_message_of_a_websocket() {
    let packages = installed("node/node_modules/ws");
    if let (Some(command), Some(_)) = (script("node", "node/ws.js"), packages) {
        let recipe = Place::new("reloads of ws").recipe(&command);
        let ganger = recipe.option(WEBSOCKETS_GO).start();
        let judge = Report::assert_perfect_but_races;
        reload(&ganger, &[ECHO], rounds(4), judge);
        ganger.stop();
    }
}

/// Without the preload, kept connections of Node are closed by Node alone; new ones lose nothing.
#[test]
fn reloads_without_the_preload_lose_no_new_connection() {
    if let Some(command) = script("node", "node/http.js") {
        let recipe = Place::new("reloads, no preload").recipe(&command);
        let ganger = recipe.option(&["--no-preload"]).start();
        reload(&ganger, &[FRESH, SLOW], rounds(5), Report::assert_perfect);
        ganger.stop();
    }
}

#[test]
fn workers_come_and_go_and_nothing_is_lost() {
    if let Some(command) = script("node", "node/http.js") {
        let ganger = Place::new("scale").recipe(&command).start();
        let loads = Loads::start(&[FRESH, KEPT, SLOW], &ganger);
        for _ in 0..rounds(3) {
            for (wanted, workers) in [("4", 4), ("-3", 1), ("+1", 2)] {
                ganger.must(&["scale", APP, wanted]);
                ganger.wait_ready(workers);
                loads.go_on(10);
            }
        }
        loads.judge(Report::assert_perfect);
        ganger.stop();
    }
}

/// Reloads while the loads run, and judges them.
fn reload(ganger: &Ganger, traffic: &[Traffic], times: usize, judge: impl Fn(&Report, &str)) {
    let loads = Loads::start(traffic, ganger);
    loads.go_on(10);
    for _ in 0..times {
        let before = ganger.pids();
        ganger.must(&["reload", APP]);
        ganger.wait_ready(2);
        let after = ganger.pids();
        assert!(!after.iter().any(|pid| before.contains(pid)), "all are new");
        loads.go_on(5);
    }
    loads.judge(judge);
}
