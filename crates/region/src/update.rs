//! Read-change-write loops: the closure runs without any lock, and again if somebody else was
//! faster.

use crate::error::WriteError;
use crate::limits::UPDATE_ATTEMPTS;
use crate::read::Entry;
use crate::region::Region;
use crate::write::SetOptions;

impl Region {
    /// The value of a key, or what `make` returns, stored under the key. If several processes meet
    /// here, all get the value of one of them.
    pub fn get_or_insert_with(
        &self,
        key: &[u8],
        make: impl FnOnce() -> Vec<u8>,
    ) -> Result<Vec<u8>, WriteError> {
        if let Some(value) = self.get(key)? {
            return Ok(value);
        }
        let made = make();
        for _ in 0..UPDATE_ATTEMPTS {
            if self
                .set_with(key, &made, SetOptions::new().if_absent())?
                .is_some()
            {
                return Ok(made);
            }
            if let Some(value) = self.get(key)? {
                return Ok(value);
            }
        }
        Err(WriteError::Contended {
            attempts: UPDATE_ATTEMPTS,
        })
    }

    /// Changes a value by a function of the old one, and returns what it made. `None` in means that
    /// the key is not there, `None` out that it is to be deleted. An expiry and the session that an
    /// ephemeral key goes with stay as they were; a counter becomes a plain value. The function runs
    /// once for each attempt.
    pub fn update(
        &self,
        key: &[u8],
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, WriteError> {
        self.try_update(key, |old| Ok(change(old)))
    }

    /// Like [`Region::update`], with a function that may fail; then nothing changes.
    pub fn try_update<E: From<WriteError>>(
        &self,
        key: &[u8],
        mut change: impl FnMut(Option<&[u8]>) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Vec<u8>>, E> {
        for attempt in 0..UPDATE_ATTEMPTS {
            let old = self.entry(key).map_err(WriteError::from)?;
            let new = change(old.as_ref().map(|entry| entry.value.as_slice()))?;
            if self.replace(key, old.as_ref(), new.as_deref())? {
                return Ok(new);
            }
            if attempt % 16 == 15 {
                std::thread::yield_now();
            }
        }
        Err(WriteError::Contended {
            attempts: UPDATE_ATTEMPTS,
        }
        .into())
    }

    /// Puts `new` where `old` was; `false` if something else is there by now.
    fn replace(
        &self,
        key: &[u8],
        old: Option<&Entry>,
        new: Option<&[u8]>,
    ) -> Result<bool, WriteError> {
        match (old, new) {
            (None, None) => Ok(true),
            (Some(old), None) => self.delete_if(key, old.revision),
            (None, Some(new)) => Ok(self
                .set_with(key, new, SetOptions::new().if_absent())?
                .is_some()),
            (Some(old), Some(new)) => {
                let options = SetOptions::new().if_revision(old.revision);
                let options = options.keep_expiry().keep_owner();
                Ok(self.set_with(key, new, options)?.is_some())
            }
        }
    }
}
