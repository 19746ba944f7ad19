//! Ephemeral keys of clients on the socket. In the region they belong to the broker's session, so
//! that they go if the broker dies; which connection each belongs to is known here.

use ganger_region::Region;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The ephemeral keys of one connection, with the revisions it gave them.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Ephemeral(Arc<Mutex<HashMap<Box<[u8]>, u64>>>);

impl Ephemeral {
    /// Keys there are, for the limit.
    pub(super) fn has_room_for(&self, key: &[u8], limit: usize) -> bool {
        let keys = self.lock();
        keys.len() < limit || keys.contains_key(key)
    }

    /// The connection wrote an ephemeral key.
    pub(super) fn add(&self, key: &[u8], revision: u64) {
        self.lock().insert(key.into(), revision);
    }

    /// The connection wrote or deleted a key, which is ephemeral no more.
    pub(super) fn written(&self, key: &[u8]) {
        let mut keys = self.lock();
        if !keys.is_empty() {
            keys.remove(key);
        }
    }

    /// The connection changed a key that stays what it is.
    pub(super) fn changed(&self, key: &[u8], region: &Region) {
        if let Some(revision) = self.lock().get_mut(key) {
            if let Ok(Some(entry)) = region.entry(key) {
                *revision = entry.revision;
            }
        }
    }

    /// Removes those that nobody else wrote since, and returns how many.
    pub(in crate::server) fn release(&self, region: &Region) -> u64 {
        let keys = std::mem::take(&mut *self.lock());
        let gone = keys
            .iter()
            .filter(|(key, revision)| matches!(region.delete_if(key, **revision), Ok(true)));
        gone.count() as u64
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
