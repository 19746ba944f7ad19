//! How apps and workers are shown, by `status` and `describe` alike.

use super::out::Tone;
use super::signals;
use super::table::{Cell, Column, Table};
use super::units::{show_age, show_size};
use crate::report::{AppStatus, Exit, WorkerState, WorkerStatus};

/// A state's word and colour.
pub(crate) fn state(state: WorkerState) -> (&'static str, Tone) {
    match state {
        WorkerState::Starting => ("starting", Tone::Busy),
        WorkerState::Ready => ("ready", Tone::Good),
        WorkerState::Draining => ("draining", Tone::Busy),
        WorkerState::Stopping => ("stopping", Tone::Busy),
        WorkerState::Backoff => ("backoff", Tone::Bad),
        WorkerState::Failed => ("failed", Tone::Bad),
        WorkerState::Stopped => ("stopped", Tone::Dim),
    }
}

/// `exit code 1`, `SIGKILL`.
pub(crate) fn exit(exit: &Exit) -> String {
    match (exit.code, exit.signal) {
        (_, Some(signal)) => signals::name(signal),
        (Some(code), None) => format!("exit code {code}"),
        (None, None) => "unknown".into(),
    }
}

/// `2 of 2 ready`, and its colour.
pub(crate) fn readiness(app: &AppStatus) -> (String, Tone) {
    let current = |worker: &&WorkerStatus| worker.state == WorkerState::Ready;
    let ready = app.workers.iter().filter(current).count();
    let wanted = usize::from(app.wanted);
    let tone = match ready {
        _ if wanted == 0 => Tone::Dim,
        0 => Tone::Bad,
        ready if ready < wanted => Tone::Busy,
        _ => Tone::Good,
    };
    (format!("{ready} of {wanted} ready"), tone)
}

/// An app's workers.
pub(crate) fn workers(app: &AppStatus, now_ms: u64) -> Table {
    let mut table = Table::new(vec![
        Column::left("WORKER"),
        Column::left("STATE"),
        Column::right("PID"),
        Column::right("FOR").spare(3),
        Column::right("RESTARTS").spare(2),
        Column::right("CPU").spare(6),
        Column::right("MEMORY").spare(5),
        Column::right("QUEUE").spare(7),
        Column::right("SHARE").spare(8),
        Column::right("GEN").spare(4),
        Column::left("LAST EXIT").spare(1),
        Column::left("WHY"),
    ]);
    let total: u64 = app.workers.iter().map(|one| u64::from(one.weight)).sum();
    for worker in &app.workers {
        let (word, tone) = state(worker.state);
        let is_alive = worker.pid.is_some();
        let alive = |text: String| Cell::new(if is_alive { text } else { String::new() });
        let share = (u64::from(worker.weight) * 100)
            .checked_div(total)
            .unwrap_or(0);
        table.row(vec![
            Cell::new(format!("{}.{}", app.name, worker.index)),
            Cell::toned(tone, word),
            Cell::new(worker.pid.map_or("-".to_owned(), |pid| pid.to_string())),
            Cell::new(show_age(now_ms.saturating_sub(worker.since_ms))),
            Cell::new(worker.restarts.to_string()),
            alive(cpu(worker.cpu_ms)),
            alive(show_size(worker.resident_bytes)),
            alive(worker.queue.to_string()),
            alive(format!("{share}%")),
            Cell::new(worker.generation.to_string()),
            last_exit(worker, now_ms),
            Cell::toned(tone, worker.reason.clone().unwrap_or_default()),
        ]);
    }
    table
}

fn last_exit(worker: &WorkerStatus, now_ms: u64) -> Cell {
    let Some(last) = &worker.last_exit else {
        return Cell::new("");
    };
    let age = show_age(now_ms.saturating_sub(last.at_ms));
    let tone = if last.was_wanted {
        Tone::Dim
    } else {
        Tone::Bad
    };
    Cell::toned(tone, format!("{}, {age} ago", exit(last)))
}

/// `0.4s`, `12s`, `3m`: CPU time.
fn cpu(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        _ => show_age(ms),
    }
}
