//! The thread that follows the region's changes while somebody watches.

use super::log::What;
use super::table::Following;
use super::Shared;
use crate::reserved;
use crate::services::region_error;
use ganger_region::{Feed, FeedItem};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long to sleep before looking again, unless something happens: so long when something just did,
/// and longer each time until the most. A writer may be killed between its change and the wake, and a
/// key may be given another time to live, which wakes nobody.
const LOOK: Duration = Duration::from_millis(50);
const LOOK_MAX: Duration = Duration::from_secs(1);

/// Sweeps are so far apart at least, and so much longer than one took.
const REST: Duration = Duration::from_millis(50);
const REST_FACTOR: u32 = 20;

pub(super) fn spawn(shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name("watch".to_owned());
    thread.spawn(move || run(&shared))
}

fn run(shared: &Shared) {
    // May wait for a stopped process that holds a shard's lock, so it is done here.
    let mut feed = match shared.region.feed() {
        Ok(feed) => feed,
        Err(error) => {
            shared.with_table(|table| {
                table.following = Following::No;
                table.fail_all(&region_error::write(&error));
            });
            return;
        }
    };
    shared.with_table(|table| {
        table.following = Following::Yes;
        table.wake_all();
    });
    let mut unused_since = None;
    let mut look = LOOK;
    let mut sweeper = Sweeper::default();
    loop {
        if move_changes(shared, &mut feed) {
            look = LOOK;
            continue;
        }
        let mut sleep = look;
        if unused_since.is_none() {
            sleep = sleep.min(sweeper.sweep(shared));
        }
        let goes_on = shared.with_table(|table| {
            let is_over = match (table.len(), unused_since) {
                (1.., _) => {
                    unused_since = None;
                    false
                }
                (0, None) => {
                    unused_since = Some(Instant::now());
                    false
                }
                (0, Some(since)) => since.elapsed() >= shared.linger,
            };
            if table.stops || is_over {
                table.following = Following::No;
                table.log.void();
                return false;
            }
            true
        });
        if !goes_on {
            return;
        }
        if !feed.sleep(sleep, || shared.stops()) {
            look = (look * 2).min(LOOK_MAX);
        }
    }
}

/// Takes expired keys out while somebody watches, who would hear of it late otherwise.
#[derive(Default)]
struct Sweeper {
    last: Option<(Instant, Duration)>,
}

impl Sweeper {
    /// Sweeps, if something is due, and returns when to be back.
    fn sweep(&mut self, shared: &Shared) -> Duration {
        let due = || {
            let due_ms = shared.region.next_expiry_ms();
            due_ms.map_or(Duration::MAX, Duration::from_millis)
        };
        let (begun, wait) = (Instant::now(), due());
        // Sweeps rest longer than they take.
        let rest = self.last.map_or(Duration::ZERO, |(ended, took)| {
            let rest = REST.max(took * REST_FACTOR);
            rest.saturating_sub(begun.duration_since(ended))
        });
        if !wait.is_zero() || !rest.is_zero() {
            return wait.max(rest);
        }
        // What can't be swept now is next time.
        let swept = shared.region.sweep().unwrap_or(0);
        self.last = Some((Instant::now(), begun.elapsed()));
        if swept > 0 {
            shared.with_table(|table| table.totals.swept += swept);
        }
        due().max(REST)
    }
}

/// Whether there was anything to move, and the thread need not stop.
fn move_changes(shared: &Shared, feed: &mut Feed) -> bool {
    let mut items = Vec::new();
    feed.poll(|item| match item {
        FeedItem::Change { key, .. } if reserved::is_reserved(&key) => {}
        FeedItem::Change {
            change,
            key,
            revision,
        } => items.push(What::Change {
            change,
            key: key.into(),
            revision,
        }),
        FeedItem::Gap { shard } => items.push(What::Gap { shard }),
        // What else a feed may tell, no watch is told of.
        _ => {}
    });
    if items.is_empty() {
        return false;
    }
    shared.with_table(|table| {
        for item in items {
            table.push(item);
        }
        !table.stops
    })
}
