//! `ganger start`: one more app either starts or fails as soon as that is known, and nothing of it
//! stays.

use super::ganger::{spawn_bound, Ganger, Place, APP, PORT};
use super::{program, script, system};
use crate::harness::wait_until;
use rustix::process::Signal;
use std::process::Stdio;

/// A supervisor whose first app is no server, and would not be in anybody's way.
fn supervisor(test: &'static str) -> Ganger {
    let recipe = Place::new(test).recipe(&["sh", "-c", "exec sleep 1000"]);
    let ganger = recipe.workers(1).launch();
    wait_until("the first app", || ganger.app().is_some());
    ganger
}

/// `ganger start` of a command as app `more`.
fn start<'a>(options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["start", "--name", "more", "-n", "2"];
    arguments.extend(options);
    arguments.push("--");
    arguments.extend(command);
    arguments
}

/// It must fail with all of these words, and nothing of it may stay.
#[track_caller]
fn fails(ganger: &Ganger, arguments: &[&str], words: &[&str]) {
    let said = ganger.must_fail(arguments);
    for word in words {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
    let apps = ganger.status().unwrap().apps;
    assert_eq!(apps.len(), 1, "only the first app is there: {apps:?}");
}

fn end(mut ganger: Ganger) {
    ganger.signal(Signal::TERM);
    ganger.wait();
    ganger.into_place().assert_empty();
}

#[test]
fn a_start_of_what_is_no_program_fails() {
    let ganger = supervisor("start of nothing");
    let text = ganger.place.write("text", "just text");
    let missing = ganger.place.file("missing");
    let missing = missing.to_str().unwrap();
    fails(
        &ganger,
        &start(&[], &[missing]),
        &["there is no file", missing],
    );
    fails(&ganger, &start(&[], &[&text]), &["is not executable"]);
    end(ganger);
}

/// One crash of each worker at most, however many are allowed to a running app; and its name is free.
#[test]
fn a_start_whose_worker_exits_at_once_fails_at_the_first_exit() {
    let ganger = supervisor("start that exits");
    let count = ganger.place.file("count");
    let text = format!("echo x >> {}; echo bad luck; exit 3", count.display());
    let often = ["--max-crashes", "1000", "--restart-delay", "0"];
    for round in 1..=2 {
        let arguments = start(&often, &["sh", "-c", &text]);
        fails(&ganger, &arguments, &["exited with code 3", "bad luck"]);
        let starts = std::fs::read(&count).unwrap().len() / 2;
        assert!((round..=2 * round).contains(&starts), "{starts} starts");
    }
    end(ganger);
}

/// Who is only to do something once is done with it.
#[test]
fn a_start_of_what_is_done_soon_succeeds() {
    let ganger = supervisor("start of a job");
    let said = ganger.must(&start(&["--done-codes", "0"], &["sh", "-c", "exit 0"]));
    assert!(said.contains("more is done"), "{said}");
    end(ganger);
}

const SERVER: &str = "
const server = require('node:http').createServer((request, response) => response.end('x'));
const listen = (port) => server.listen(port, process.env.HOST);
";

/// Whether the program ends because its port is taken, or stays and hopes, makes no difference.
#[test]
fn a_start_on_a_port_that_is_taken_fails_and_names_who_has_it() {
    let (Some(node), Some([python, holder])) =
        (program("node"), script("python3", "python/http_server.py"))
    else {
        return;
    };
    let ganger = supervisor("start on a taken port");
    let place = &ganger.place;
    let mut command = std::process::Command::new(&python);
    command
        .arg(&holder)
        .env("HOST", place.address.to_string())
        .env("PORT", PORT.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut process = spawn_bound(&mut command);
    wait_until("the holder", || system::is_listening(place.address));
    let holder = format!("process {}", process.id());
    let dies = place.write("dies.js", &format!("{SERVER} listen({PORT});"));
    let hopes = format!("{SERVER} server.on('error', () => setTimeout(listen, 3000, {PORT}));");
    let hopes = place.write("hopes.js", &format!("{hopes} listen({PORT});"));
    for server in [&dies, &hopes] {
        fails(&ganger, &start(&[], &[&node, server]), &[&holder]);
        let beneath_a_shell = format!("{node} {server}; exit 1");
        let arguments = start(&[], &["sh", "-c", &beneath_a_shell]);
        fails(&ganger, &arguments, &[&holder]);
    }
    // One that takes another port instead is as good as any.
    let next = format!("{SERVER} server.on('error', () => listen({PORT} + 1)); listen({PORT});");
    let next = place.write("next.js", &next);
    ganger.must(&start(&[], &[&node, &next]));
    let address = format!("{}:{}", place.address, PORT + 1);
    let status = ganger.must(&["status"]);
    assert!(status.contains(&address), "{status}");
    process.kill().unwrap();
    process.wait().unwrap();
    end(ganger);
}

/// An address that was told beforehand is found to be taken before anything is started.
#[test]
fn a_start_with_a_listener_that_is_taken_fails() {
    let ganger = supervisor("start with a taken listener");
    let listener = std::net::TcpListener::bind((ganger.place.address, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let holder = format!("process {}", std::process::id());
    let arguments = start(&["--listen", &address], &["sleep", "1000"]);
    fails(&ganger, &arguments, &[&address, &holder]);
    drop(listener);
    end(ganger);
}

/// Who is asked for a listener is not ready without one, however long it lives.
#[test]
fn a_start_without_the_listener_that_was_asked_for_fails() {
    let ganger = supervisor("start without a listener");
    let address = ganger.place.at(PORT).to_string();
    for asked in [
        ["--listen", &address],
        ["--liveness", "tcp"],
        ["--liveness", "http:/live"],
        ["--ready-http", "/up"],
    ] {
        let options = [asked[0], asked[1], "--start-timeout", "500ms"];
        let asked = format!("though {} {} was given", asked[0], asked[1]);
        let arguments = start(&options, &["sh", "-c", "echo on; exec sleep 1000"]);
        fails(&ganger, &arguments, &["listens nowhere", &asked, "| on"]);
    }
    // Nothing is started that could not inherit a listener.
    let arguments = start(&["--deliver", "listen-fds"], &["sleep", "1000"]);
    fails(&ganger, &arguments, &["give --listen"]);
    end(ganger);
}

/// A queue worker, say, is ready because it lives, and that is said.
#[test]
fn a_start_of_what_listens_nowhere_succeeds_and_says_so() {
    let ganger = supervisor("silent start");
    ganger.must(&start(&["--start-timeout", "500ms"], &["sleep", "1000"]));
    let status = ganger.must(&["status"]);
    assert!(status.contains("2 of 2 ready  listens nowhere"), "{status}");
    let text = ganger.must(&["describe", "more"]);
    assert!(text.contains("counts as ready because it lives"), "{text}");
    end(ganger);
}

/// While it starts it says so, nothing else can be done with it, and it can be stopped.
#[test]
fn a_start_that_takes_long_can_be_stopped() {
    let ganger = supervisor("long start");
    let arguments = start(&["--wait-ready"], &["sleep", "1000"]);
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| ganger.must_fail(&arguments));
        let doing = || {
            let apps = ganger
                .status()
                .map(|status| status.apps)
                .unwrap_or_default();
            apps.into_iter().find(|app| app.name == "more")?.doing
        };
        wait_until("the start", || doing().as_deref() == Some("starting"));
        assert!(ganger.must_fail(&["reload", "more"]).contains("starting"));
        ganger.must(&["stop", "more"]);
        let said = starting.join().unwrap();
        assert!(said.contains("being stopped"), "{said}");
    });
    assert!(ganger.must(&["status"]).contains(APP));
    end(ganger);
}
