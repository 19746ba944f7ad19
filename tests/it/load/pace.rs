//! When requests are due, and on which connection each goes.

use super::http::{self, Trouble};
use super::line::{Idle, Line};
use super::report::{Failure, Kind};
use super::{websocket, Connections, Plan, Report, Shape};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A request that failed so long after it was sent on a kept connection was not crossed by its
/// close: that is no race.
pub(super) const RACE: Duration = Duration::from_millis(50);

/// What all requests of a load share.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) report: Arc<Mutex<Report>>,
    idle: RefCell<VecDeque<Line>>,
    /// Kept connections, idle or not.
    open: Cell<usize>,
}

/// Sends requests until the load is ended, and waits for their answers.
pub(crate) async fn run(plan: Plan, report: Arc<Mutex<Report>>, is_ended: Arc<AtomicBool>) {
    let shared = Rc::new(Shared {
        plan,
        report,
        idle: RefCell::default(),
        open: Cell::new(0),
    });
    if shared.plan.shape == Shape::Echo {
        return websocket::run(shared, is_ended).await;
    }
    let started = Instant::now();
    let mut requests = JoinSet::new();
    for id in 0_u64.. {
        let due = started + Duration::from_secs_f64(id as f64 / shared.plan.rate);
        tokio::time::sleep_until(due).await;
        if is_ended.load(Ordering::Relaxed) {
            break;
        }
        shared.note_due(due);
        requests.spawn_local(request(Rc::clone(&shared), id, due));
        while requests.try_join_next().is_some() {}
    }
    while requests.join_next().await.is_some() {}
}

impl Shared {
    pub(crate) fn note_due(&self, due: Instant) {
        let mut report = self.report.lock().unwrap();
        report.sent += 1;
        report.lag = report.lag.max(due.elapsed());
    }

    pub(crate) fn tell(
        &self,
        due: Instant,
        result: Result<Option<u32>, Trouble>,
        line: Option<(Option<u16>, Option<u32>)>,
    ) {
        let took = due.elapsed();
        let mut report = self.report.lock().unwrap();
        let trouble = match result {
            Ok(worker) if took <= self.plan.late => return report.answer(worker, took),
            Ok(_) => Trouble {
                kind: Kind::Late,
                detail: "right, but late".to_owned(),
            },
            Err(trouble) => trouble,
        };
        let (port, worker) = line.unwrap_or_default();
        let failure = Failure {
            kind: trouble.kind,
            at: report.started.elapsed(),
            took,
            port,
            worker,
            detail: trouble.detail,
        };
        report.fail(failure);
    }

    /// A kept connection that can be used, if there are enough of them.
    fn take_idle(&self, wanted: usize) -> Option<Line> {
        while self.open.get() >= wanted {
            let mut line = self.idle.borrow_mut().pop_front()?;
            if line.look() != Idle::Closed {
                return Some(line);
            }
            self.end();
        }
        None
    }

    /// A kept connection is gone, as it may.
    fn end(&self) {
        self.open.set(self.open.get() - 1);
        self.report.lock().unwrap().ended += 1;
    }

    async fn connect(&self) -> Result<Line, Trouble> {
        let connected = Line::connect(&self.plan.target).await;
        let line = connected.map_err(|error| Trouble {
            kind: http::kind_of_connect(&error),
            detail: error.to_string(),
        })?;
        self.report.lock().unwrap().connections += 1;
        self.open.set(self.open.get() + 1);
        Ok(line)
    }
}

async fn request(shared: Rc<Shared>, id: u64, due: Instant) {
    let give_up = shared.plan.give_up;
    let mut line = None;
    let work = attempt(&shared, id, &mut line);
    let result = tokio::time::timeout(give_up, work).await;
    let result = result.unwrap_or_else(|_| {
        Err(Trouble {
            kind: Kind::Silent,
            detail: format!("no answer in {give_up:?}"),
        })
    });
    let known = line.as_ref().map(|line| (line.port(), line.worker));
    match (&result, line) {
        (Ok(answer), Some(line)) if answer.is_kept => shared.idle.borrow_mut().push_back(line),
        (Ok(_), Some(_)) => shared.end(),
        (Err(_), Some(_)) => shared.open.set(shared.open.get() - 1),
        (_, None) => {}
    }
    shared.tell(due, result.map(|answer| answer.worker), known);
}

async fn attempt(
    shared: &Shared,
    id: u64,
    place: &mut Option<Line>,
) -> Result<http::Answer, Trouble> {
    let (is_kept, idle) = match shared.plan.connections {
        Connections::Fresh => (false, None),
        Connections::Kept(wanted) => (true, shared.take_idle(wanted)),
    };
    let line = place.insert(match idle {
        Some(line) => line,
        None => shared.connect().await?,
    });
    if let Idle::Surplus(bytes) = line.look() {
        return Err(Trouble {
            kind: Kind::Duplicate,
            detail: format!("{bytes} bytes on an idle connection"),
        });
    }
    let sent = Instant::now();
    let mut result = http::exchange(line, shared.plan.shape, id, is_kept).await;
    if let Err(trouble) = &mut result {
        let is_race = matches!(trouble.kind, Kind::IdleRaceUnread | Kind::IdleRaceUnproven);
        if is_race && sent.elapsed() > RACE {
            trouble.kind = Kind::Reset;
        }
    }
    result
}
