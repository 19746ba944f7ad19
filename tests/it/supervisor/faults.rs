//! Programs that go wrong, and systems that refuse.

use super::ganger::{kill, said, spawn_bound, Ganger, Place, APP, PORT};
use super::programs::FRESH;
use super::{program, rounds, script, system, wait_until_patient};
use crate::harness::wait_until;
use ganger_supervisor::report::WorkerState;
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

/// A worker that dies so often counts as hopeless unless it is told otherwise.
const OFTEN: &[&str] = &["--max-crashes", "100000"];

/// A program that can't be started at all: the command says which and why, and is over.
#[test]
fn a_program_that_cannot_be_started_is_named() {
    let place = Place::new("no program");
    let no_program = place.write("no-program", "just text");
    std::fs::set_permissions(&no_program, PermissionsExt::from_mode(0o755)).unwrap();
    let not_allowed = place.write("not-allowed", "#!/bin/sh\n");
    let missing = place.file("missing").to_str().unwrap().to_owned();
    let cases = [
        (missing, "there is no file"),
        ("no-such-program-anywhere".to_owned(), "there is no program"),
        (not_allowed, "is not executable"),
        (no_program, "not a program for this machine"),
    ];
    for (program, reason) in cases {
        let mut ganger = Place::new("no program").recipe(&[&program]).launch();
        let status = ganger.wait();
        let output = ganger.place.output();
        assert!(!status.success(), "{program}: {output}");
        assert!(output.contains(&program), "{program}: {output}");
        assert!(output.contains(reason), "{program}: {output}");
        ganger.into_place().assert_empty();
    }
}

/// A worker that dies again and again is given up, and everything says so.
#[test]
fn a_crash_loop_ends() {
    let Some(node) = program("node") else {
        return;
    };
    let place = Place::new("crash loop");
    let count = place.file("count").to_str().unwrap().to_owned();
    let text = format!(
        "require('fs').appendFileSync('{count}', 'x'); console.error('bad luck'); process.exit(3)"
    );
    let recipe = place.recipe(&[&node, "-e", &text]).workers(1);
    let mut ganger = recipe.option(&["--max-crashes", "4"]).launch();
    let mut seen = None;
    wait_until("the worker to be given up", || {
        let app = ganger.app();
        let workers = app.map(|app| app.workers).unwrap_or_default();
        seen = workers
            .into_iter()
            .find(|worker| worker.state == WorkerState::Failed);
        seen.is_some() || ganger.has_ended()
    });
    let starts = std::fs::read(ganger.place.file("count")).unwrap().len();
    assert!((4..=5).contains(&starts), "{starts} starts");
    let output = ganger.place.output();
    assert!(output.contains("bad luck"), "{output}");
    match seen {
        Some(worker) => {
            assert_eq!(worker.last_exit.unwrap().code, Some(3));
            assert!(worker.reason.is_some());
            ganger.signal(Signal::TERM);
            ganger.wait();
        }
        None => assert!(!ganger.wait().success(), "{output}"),
    }
    ganger.into_place().assert_empty();
}

/// Without descriptors to spare, the workers that are there serve on.
#[test]
fn a_supervisor_without_descriptors_keeps_what_it_has() {
    let Some(command) = script("node", "node/http.js") else {
        return;
    };
    let ganger = Place::new("no descriptors").recipe(&command).start();
    let load = FRESH.start(&ganger);
    load.wait_answers(10);
    let used = system::open_files(ganger.pid()) as u64;
    set_limit(&ganger, "nofile", used + 3);
    let said = ganger.must_fail(&["scale", APP, "+20"]);
    assert!(!said.is_empty(), "it says why");
    load.wait_answers(10);
    assert_eq!(ganger.pids().len(), 2, "the old ones are there");
    set_limit(&ganger, "nofile", 1024);
    ganger.must(&["scale", APP, "3"]);
    ganger.wait_ready(3);
    load.wait_answers(10);
    load.stop().assert_perfect("no descriptors");
    ganger.stop();
}

/// As the process's own user, who needs no privilege to lower a limit or to raise it again.
fn set_limit(ganger: &Ganger, resource: &str, limit: u64) {
    let mut prlimit = ganger.place.program("prlimit");
    prlimit.args(["--pid", &ganger.pid().to_string()]);
    prlimit.arg(format!("--{resource}={limit}:"));
    let output = prlimit.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// A user who may have no more processes: what is there stays, and it says why there is no more.
#[test]
fn a_user_without_processes_to_spare_is_told() {
    let Some(command) = script("node", "node/http.js") else {
        return;
    };
    if !rustix::process::getuid().is_root() {
        eprintln!("SKIPPED: becoming another user takes root");
        return;
    }
    let place = Place::new("no processes");
    // A user that nobody else is.
    let uid = 1_000_000 + std::process::id();
    let ganger = place.of(uid).recipe(&command).start();
    let load = FRESH.start(&ganger);
    load.wait_answers(10);
    set_limit(&ganger, "nproc", 1);
    let said = ganger.must_fail(&["scale", APP, "3"]);
    assert!(said.contains("esource temporarily unavailable"), "{said}");
    load.wait_answers(10);
    assert_eq!(ganger.pids().len(), 2, "the old ones are there");
    // A death meanwhile is healed as soon as there is a process to be had.
    let victim = ganger.pids()[0];
    kill(victim, Signal::KILL);
    wait_until("the death to be seen", || !ganger.pids().contains(&victim));
    set_limit(&ganger, "nproc", 1000);
    wait_until("the replacement", || ganger.pids().len() == 2);
    load.wait_answers(10);
    let report = load.stop();
    assert!(report.failed() <= 2, "{report}");
    ganger.stop();
}

#[test]
fn a_second_supervisor_on_a_home_is_refused_and_the_first_serves_on() {
    let Some(command) = script("node", "node/http.js") else {
        return;
    };
    let ganger = Place::new("two supervisors").recipe(&command).start();
    let load = FRESH.start(&ganger);
    load.wait_answers(5);
    let second = ganger.verb(&["run", "--name", "other", "--", "sleep", "1000"]);
    let said = said(&second);
    assert_eq!(second.status.code(), Some(1), "{said}");
    let home = ganger.place.home();
    for word in [&ganger.pid().to_string(), APP, home.to_str().unwrap()] {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
    load.wait_answers(5);
    load.stop().assert_perfect("two supervisors");
    ganger.stop();
}

const DEAF: &str = "process.on('SIGTERM', () => {}); process.on('SIGINT', () => {});
    process.on('disconnect', () => {});
    setInterval(() => {}, 1000);
    const http = require('http');
    http.createServer((req, res) => res.end('x')).listen(Number(process.env.PORT), process.env.HOST);";

#[test]
fn a_worker_that_ignores_sigterm_is_killed_after_the_grace_time() {
    let Some(node) = program("node") else {
        return;
    };
    let place = Place::new("deaf");
    let recipe = place
        .recipe(&[&node, "-e", DEAF])
        .option(&["--grace", "500ms"]);
    recipe.start().stop();
}

#[test]
fn a_second_signal_hastens_the_end() {
    let Some(node) = program("node") else {
        return;
    };
    let place = Place::new("hasten");
    let recipe = place
        .recipe(&[&node, "-e", DEAF])
        .option(&["--grace", "600s"]);
    let mut ganger = recipe.start();
    ganger.signal(Signal::TERM);
    wait_until("the stop to be under way", || ganger.ready().is_empty());
    assert!(!ganger.has_ended());
    ganger.signal(Signal::TERM);
    ganger.wait();
    ganger.into_place().assert_empty();
}

/// Processes that leave their parent, their group and their session are no escape.
#[test]
fn what_a_worker_leaves_behind_is_ended_with_it() {
    let Some([node, path]) = script("node", "node/http.js") else {
        return;
    };
    let text =
        format!("(setsid sh -c 'sleep 1000 & sleep 1000' &) ; sleep 1000 & exec {node} {path}");
    let ganger = Place::new("runaways").recipe(&["sh", "-c", &text]).start();
    let runaways = || {
        let all = ganger.place.processes();
        all.into_values()
            .filter(|command| command.starts_with("sleep"))
            .count()
    };
    wait_until("the runaways to run", || runaways() == 6);
    ganger.must(&["reload", APP]);
    ganger.wait_ready(2);
    wait_until("those of the old workers to be gone", || runaways() == 6);
    ganger.must(&["scale", APP, "1"]);
    wait_until("those of the stopped one to be gone", || runaways() == 3);
    ganger.stop();
}

/// A worker may close what it writes to.
#[test]
fn a_worker_that_closes_its_output_serves_on() {
    let Some([node, path]) = script("node", "node/http.js") else {
        return;
    };
    let text = format!("exec {node} {path} >&- 2>&-");
    let ganger = Place::new("no output").recipe(&["sh", "-c", &text]).start();
    let load = FRESH.start(&ganger);
    load.wait_answers(30);
    ganger.must(&["reload", APP]);
    load.wait_answers(30);
    load.stop().assert_perfect("no output");
    ganger.stop();
}

/// A worker that writes as fast as it can, while nobody reads what the supervisor shows: it is not
/// held up, others are not, and memory does not grow.
#[test]
fn a_flood_of_output_blocks_nobody_and_fills_no_memory() {
    let Some([node, path]) = script("node", "node/http.js") else {
        return;
    };
    let mib = rounds(128);
    let place = Place::new("flood");
    let done = place.file("done");
    let text = format!(
        "({{ yes 'a line of the flood, which nobody wants to read' | head -c {mib}M; \
         touch {}; }} &) ; exec {node} {path}",
        done.display()
    );
    let recipe = place.recipe(&["sh", "-c", &text]).workers(1);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let ganger = recipe.output(writer).start();
    let load = FRESH.start(&ganger);
    let mut worst = 0;
    wait_until_patient("the flood to be over", || {
        worst = worst.max(system::resident_kib(ganger.pid()));
        done.exists()
    });
    load.wait_answers(20);
    load.stop().assert_perfect("a flood");
    eprintln!("{mib} MiB written, at most {worst} KiB resident");
    assert!(worst < 64 * 1024, "{worst} KiB resident");
    let logs = ganger.must(&["logs", APP, "--lines", "5"]);
    assert!(logs.contains("a line of the flood"), "{logs}");
    // Whoever reads again is told where lines are missing.
    let reading = std::thread::spawn(move || {
        let mut shown = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut shown).unwrap();
        String::from_utf8_lossy(&shown).contains("lines dropped]")
    });
    ganger.stop();
    assert!(reading.join().unwrap(), "what was dropped is told");
}

/// Restart after restart costs nothing that stays.
#[test]
fn memory_and_descriptors_are_flat_over_many_restarts() {
    let place = Place::new("many restarts");
    let count = place.file("count");
    let text = format!("echo x >> {}; echo a line; exit 1", count.display());
    let recipe = place.recipe(&["sh", "-c", &text]).workers(2);
    let recipe = recipe.option(&["--max-crashes", "1000000", "--restart-delay", "0"]);
    let ganger = recipe.launch();
    let starts = || std::fs::metadata(&count).map_or(0, |meta| meta.len() / 2);
    let measure = |starts_wanted: u64| {
        wait_until_patient("restarts", || starts() >= starts_wanted);
        (
            system::resident_kib(ganger.pid()),
            system::open_files(ganger.pid()),
        )
    };
    let total = rounds(600) as u64;
    let (memory, files) = measure(total / 3);
    let (memory_later, files_later) = measure(total);
    eprintln!("{total} restarts: {memory} -> {memory_later} KiB, {files} -> {files_later} files");
    assert!(
        memory_later <= memory + 1024,
        "{memory} -> {memory_later} KiB"
    );
    // Two processes that are being started or cleared away have a dozen each, for a moment.
    assert!(
        files_later <= files + 24,
        "{files} -> {files_later} descriptors"
    );
    ganger.stop();
}

/// A port that somebody else has is an error that says who.
#[test]
fn a_busy_port_is_told_with_its_holder() {
    let Some([python, server]) = script("python3", "python/http_server.py") else {
        return;
    };
    let place = Place::new("busy port");
    let mut holder = std::process::Command::new(&python);
    holder
        .arg(&server)
        .env("HOST", place.address.to_string())
        .env("PORT", PORT.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut process = spawn_bound(&mut holder);
    wait_until("the holder", || system::is_listening(place.address));
    let recipe = place.recipe(&[&python, &server]);
    let ganger = recipe
        .option(&["--restart-delay-max", "100ms"])
        .option(OFTEN)
        .launch();
    let holder = format!("process {}", process.id());
    wait_until("the holder to be named", || {
        ganger.place.output().contains(&holder)
    });
    process.kill().unwrap();
    process.wait().unwrap();
    // It goes on by itself as soon as the port is free.
    ganger.wait_ready(2);
    let load = FRESH.start(&ganger);
    load.wait_answers(10);
    load.stop().assert_perfect("a port that was busy");
    ganger.stop();
}

/// Two apps of one supervisor on one port: the second is refused by the name of the first.
#[test]
fn two_apps_on_one_port_are_told_apart() {
    let Some(command) = script("node", "node/http.js") else {
        return;
    };
    let ganger = Place::new("two apps").recipe(&command).start();
    let load = FRESH.start(&ganger);
    load.wait_answers(5);
    let [node, path] = command;
    let said = ganger.must_fail(&["start", "--name", "second", "-n", "1", "--", &node, &path]);
    assert!(said.contains(APP) && said.contains("3000"), "{said}");
    load.wait_answers(5);
    load.stop().assert_perfect("two apps");
    ganger.stop();
}
