//! Values of any serde type, as MessagePack.

use super::Kv;
use crate::error::Result;
use crate::set::SetOptions;
use serde::de::DeserializeOwned;
use serde::Serialize;

/// # Values of serde types
/// They are stored as MessagePack, structs as maps: fields can be added later, and other languages
/// can read them.
impl Kv {
    /// The value of a key as a `T`.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// kv.set_typed("primes", &[2, 3, 5])?;
    /// assert_eq!(kv.get_typed::<Vec<u32>>("primes")?, Some(vec![2, 3, 5]));
    /// assert!(kv.get_typed::<String>("primes").is_err());
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn get_typed<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        Ok(self.region.get_typed(key.as_ref())?)
    }

    /// Stores a `T` and returns its revision. The key loses an expiry it had.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    /// struct Session {
    ///     user: String,
    ///     cart: Vec<u32>,
    /// }
    ///
    /// let session = Session { user: "Ada".into(), cart: vec![7] };
    /// kv.set_typed("session:7", &session)?;
    /// assert_eq!(kv.get_typed("session:7")?, Some(session));
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn set_typed<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
    ) -> Result<u64> {
        Ok(self.region.set_typed(key.as_ref(), value)?)
    }

    /// Stores a `T` if the options' condition is met, and returns its revision; `None` if it is
    /// not.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// use ganger_client::SetOptions;
    ///
    /// let first = SetOptions::new().if_absent();
    /// assert!(kv.set_typed_with("leader", "worker 1", first)?.is_some());
    /// assert!(kv.set_typed_with("leader", "worker 2", first)?.is_none());
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn set_typed_with<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        options: SetOptions,
    ) -> Result<Option<u64>> {
        Ok(self.region.set_typed_with(key.as_ref(), value, options.0)?)
    }

    /// Changes a value by a function of the old one, like [`Kv::update`].
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// for item in ["pears", "bread"] {
    ///     kv.update_typed("cart:7", |cart: Option<Vec<String>>| {
    ///         let mut cart = cart.unwrap_or_default();
    ///         cart.push(item.to_owned());
    ///         Some(cart)
    ///     })?;
    /// }
    /// assert_eq!(kv.get_typed::<Vec<String>>("cart:7")?.unwrap(), ["pears", "bread"]);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn update_typed<T: Serialize + DeserializeOwned>(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>> {
        Ok(self.region.update_typed(key.as_ref(), change)?)
    }
}
