//! Loads by wrk.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What wrk found.
pub(crate) struct Outcome {
    pub(crate) per_second: f64,
    pub(crate) requests: f64,
    pub(crate) errors: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
}

/// How connections are used, in the names of figures.
pub(crate) fn use_of_connections(is_kept: bool) -> &'static str {
    match is_kept {
        true => "kept connections",
        false => "a connection each",
    }
}

pub(crate) fn is_installed() -> bool {
    Command::new("wrk").arg("-v").output().is_ok()
}

/// Loads an address over so many connections, which are kept or used once each.
pub(crate) fn load(
    address: SocketAddr,
    connections: u32,
    is_kept: bool,
    time: Duration,
) -> Outcome {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cluster/wrk.lua");
    let mut command = Command::new("wrk");
    command
        .args(["-t", "1", "-c", &connections.to_string()])
        .args(["-d", &format!("{}s", time.as_secs())])
        .arg("-s")
        .arg(script);
    if !is_kept {
        command.args(["-H", "Connection: close"]);
    }
    let output = command.arg(format!("http://{address}/")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
    let numbers: Vec<f64> = line
        .expect("wrk tells a result")
        .split(' ')
        .map(|number| number.parse().unwrap())
        .collect();
    Outcome {
        per_second: numbers[0] / (numbers[1] / 1e6),
        requests: numbers[0],
        errors: numbers[2],
        p50_ms: numbers[3] / 1e3,
        p99_ms: numbers[4] / 1e3,
        p999_ms: numbers[5] / 1e3,
    }
}
