//! The records of held leases, and the counter of tokens, in the region.

use super::RecordTotals;
use crate::leases::LeaseRecord;
use crate::reserved::{lease_key, FENCE_KEY, LEASE_PREFIX};
use crate::services::region_error;
use ganger_protocol::{ErrorBody, ErrorCode};
use ganger_region::{Cursor, Region, WriteError};

/// Records that are read at a time.
const STEP: usize = 64;

#[derive(Debug)]
pub(super) struct Records {
    region: Region,
    /// No token is this or smaller.
    floor: u64,
    /// Why there was no token.
    pub(super) failed: Option<ErrorBody>,
    pub(super) totals: RecordTotals,
}

impl Records {
    pub(super) fn new(region: Region, floor: u64) -> Self {
        Self {
            region,
            floor,
            failed: None,
            totals: RecordTotals::default(),
        }
    }

    /// Hands out every record there is, in the order of their tokens; `false` removes it.
    pub(super) fn restore(&mut self, mut each: impl FnMut(LeaseRecord) -> bool) {
        let (mut found, mut broken) = (Vec::new(), Vec::new());
        let mut cursor = Some(Cursor::START);
        while let Some(from) = cursor {
            // What can't be read now is lost to this broker, as it would be to any.
            let Ok(page) = self.region.scan(LEASE_PREFIX, from, STEP) else {
                break;
            };
            for (key, entry) in page.entries {
                match LeaseRecord::from_bytes(&entry.value) {
                    Ok(record) if lease_key(record.token) == key => found.push(record),
                    _ => broken.push(key),
                }
            }
            cursor = page.next;
        }
        found.sort_unstable_by_key(|record| record.token);
        for record in found {
            let key = lease_key(record.token);
            self.floor = self.floor.max(record.token);
            if each(record) {
                self.totals.restored += 1;
            } else {
                broken.push(key);
            }
        }
        for key in broken {
            self.totals.broken += 1;
            self.remove(&key);
        }
    }

    /// The next token, greater than all before.
    pub(super) fn next_token(&mut self) -> Option<u64> {
        match self.raise() {
            Ok(token) => {
                self.floor = token;
                Some(token)
            }
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }

    fn raise(&self) -> Result<u64, ErrorBody> {
        let incr = |by| {
            let sum = self.region.incr(FENCE_KEY, by);
            sum.map_err(|error: WriteError| region_error::write(&error))
        };
        let mut sum = incr(1)?;
        // Below the floor when it is new, or was evicted, or comes from an old snapshot.
        let floor = i64::try_from(self.floor).unwrap_or(i64::MAX);
        if sum <= floor {
            sum = incr(floor.saturating_sub(sum).saturating_add(1))?;
        }
        u64::try_from(sum)
            .ok()
            .filter(|token| *token > self.floor)
            .ok_or_else(|| ErrorCode::Unavailable.into())
    }

    pub(super) fn keep(&mut self, record: &LeaseRecord) -> Result<(), ErrorBody> {
        let kept = record.to_bytes().map_err(|error| {
            // It is a map of numbers and bytes, which always has an encoding.
            ErrorBody::new(ErrorCode::Internal, error.to_string())
        });
        let kept = kept.and_then(|bytes| {
            let written = self.region.set(&lease_key(record.token), &bytes);
            written.map_err(|error| region_error::write(&error))
        });
        self.totals.unkept += u64::from(kept.is_err());
        kept.map(drop)
    }

    pub(super) fn forget(&mut self, token: u64) {
        self.remove(&lease_key(token));
    }

    /// One that stays is restored by the next broker, and goes when its grace time is over.
    fn remove(&mut self, key: &[u8]) {
        self.totals.left_over += u64::from(self.region.delete(key).is_err());
    }
}
