//! What the service keeps, all of it in the region: a worker that dies takes nothing along.

use super::limit::{Limit, Verdict};
use ganger_client::{Kv, KvError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// All hits, of all workers.
const HITS: &str = "hits";
/// The hits that one worker answered: its number follows.
const HITS_OF_WORKER: &str = "hits.worker.";
/// A session: its cookie follows.
const SESSION: &str = "session.";
/// A session's rate limit: its cookie follows.
const LIMIT: &str = "limit.";
const SESSION_TTL: Duration = Duration::from_secs(3600);
const REQUESTS: Limit = Limit {
    burst: 10,
    interval: Duration::from_millis(500),
};

/// What is known of a visitor.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) visits: u64,
    pub(super) since_ms: u64,
}

/// One answered hit.
#[derive(Debug, Serialize)]
pub(super) struct Hit {
    pub(super) hits: i64,
    pub(super) worker: u32,
    pub(super) pid: u32,
    pub(super) generation: String,
    pub(super) visits: u64,
}

/// How often which worker answered.
#[derive(Debug, Serialize)]
pub(super) struct Totals {
    hits: i64,
    workers: BTreeMap<String, i64>,
}

/// The service's state, as one worker sees it.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) kv: Kv,
    pub(super) worker: u32,
    pub(super) generation: String,
}

impl State {
    /// Counts a hit of this session.
    pub(super) fn hit(&self, session: &str) -> Result<Hit, KvError> {
        let key = format!("{SESSION}{session}");
        let now_ms = u64::try_from(now().as_millis()).unwrap_or(u64::MAX);
        let updated = self.kv.update_typed(&key, |old: Option<Session>| {
            let mut session = old.unwrap_or(Session {
                visits: 0,
                since_ms: now_ms,
            });
            session.visits += 1;
            Some(session)
        })?;
        self.kv.expire(&key, SESSION_TTL)?;
        self.kv
            .incr(format!("{HITS_OF_WORKER}{}", self.worker), 1)?;
        Ok(Hit {
            hits: self.kv.incr(HITS, 1)?,
            worker: self.worker,
            pid: std::process::id(),
            generation: self.generation.clone(),
            visits: updated.unwrap_or_default().visits,
        })
    }

    /// Whether one more request of this session is allowed.
    pub(super) fn ask(&self, session: &str) -> Result<Verdict, KvError> {
        REQUESTS.ask(&self.kv, &format!("{LIMIT}{session}"), now())
    }

    /// All counts.
    pub(super) fn totals(&self) -> Result<Totals, KvError> {
        let mut workers = BTreeMap::new();
        for entry in self.kv.scan_all(HITS_OF_WORKER) {
            let (key, entry) = entry?;
            let name = String::from_utf8_lossy(&key[HITS_OF_WORKER.len()..]).into_owned();
            workers.insert(name, counted(&entry.value));
        }
        let hits = self.kv.get(HITS)?.map_or(0, |value| counted(&value));
        Ok(Totals { hits, workers })
    }
}

/// What a counter holds.
fn counted(value: &[u8]) -> i64 {
    value.try_into().map_or(0, i64::from_le_bytes)
}

/// Since the Unix epoch: the one clock that workers of all generations share.
fn now() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}
