//! Ends the whole test binary, with the name of the case, when one case does not end.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Far beyond what a case needs on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

struct State {
    case: String,
    begun: Instant,
    ended: bool,
}

pub(crate) struct Watchdog {
    shared: Arc<(Mutex<State>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Watches one case.
    pub(crate) fn new(case: &str) -> Self {
        let state = State {
            case: case.to_owned(),
            begun: Instant::now(),
            ended: false,
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let watched = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let (state, ended) = &*watched;
            let mut state = state.lock().unwrap();
            while !state.ended {
                if state.begun.elapsed() > LIMIT {
                    eprintln!("no end after {LIMIT:?}: {}", state.case);
                    std::process::abort();
                }
                state = ended.wait_timeout(state, Duration::from_secs(1)).unwrap().0;
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// The next case begins.
    pub(crate) fn next(&self, case: String) {
        let mut state = self.shared.0.lock().unwrap();
        state.case = case;
        state.begun = Instant::now();
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        {
            let mut state = self.shared.0.lock().unwrap();
            state.ended = true;
            if std::thread::panicking() {
                eprintln!("the case was: {}", state.case);
            }
        }
        self.shared.1.notify_all();
        let _ = self.thread.take().unwrap().join();
    }
}
