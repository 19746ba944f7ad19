//! Values of any serde type, as MessagePack (rmp-serde, structs as maps, so that fields can be
//! added later).

use crate::error::TypedError;
use crate::region::Region;
use crate::write::SetOptions;
use serde::de::DeserializeOwned;
use serde::Serialize;

impl Region {
    /// The value of a key as a `T`.
    pub fn get_typed<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, TypedError> {
        match self.get(key)? {
            Some(value) => Ok(Some(rmp_serde::from_slice(&value)?)),
            None => Ok(None),
        }
    }

    /// Stores a `T` under a key and returns its revision.
    pub fn set_typed<T: Serialize + ?Sized>(
        &self,
        key: &[u8],
        value: &T,
    ) -> Result<u64, TypedError> {
        Ok(self.set(key, &rmp_serde::to_vec_named(value)?)?)
    }

    /// Stores a `T` if the options' condition is met, and returns its revision; `None` if it is not
    /// met.
    pub fn set_typed_with<T: Serialize + ?Sized>(
        &self,
        key: &[u8],
        value: &T,
        options: SetOptions,
    ) -> Result<Option<u64>, TypedError> {
        Ok(self.set_with(key, &rmp_serde::to_vec_named(value)?, options)?)
    }

    /// Changes a value by a function of the old one, like [`Region::update`].
    pub fn update_typed<T: Serialize + DeserializeOwned>(
        &self,
        key: &[u8],
        mut change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>, TypedError> {
        let mut made = None;
        self.try_update(key, |old| {
            let new = change(old.map(rmp_serde::from_slice).transpose()?);
            let bytes = new.as_ref().map(rmp_serde::to_vec_named).transpose()?;
            made = new;
            Ok::<_, TypedError>(bytes)
        })?;
        Ok(made)
    }
}
