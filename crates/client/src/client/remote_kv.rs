//! Keys over the socket: for clients that don't map the region.

use super::error::Error;
use super::link::{control, framed};
use super::Client;
use crate::kv::Expiry;
use crate::set::{milliseconds, SetOptions};
use bytes::{Bytes, BytesMut};
use ganger_protocol::kv::{Entry, KvReply, KvRequest, RegionStats};
use ganger_protocol::kv_fast::{Answer, Command};
use ganger_protocol::Frame;
use std::time::Duration;

/// The operations of [`Kv`](crate::Kv), over the broker's socket.
///
/// Calls that are awaited together go together, and are carried out in the order they were begun.
/// One that fails with [`Error::ConnectionLost`] or [`Error::Timeout`] may have been carried out or
/// not.
///
/// ```no_run
/// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
/// let kv = client.remote_kv();
/// kv.set("greeting", "hello").await?;
/// let (greeting, visits) = tokio::try_join!(kv.get("greeting"), kv.incr("visits", 1))?;
/// println!("{greeting:?}, visit {visits}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RemoteKv {
    client: Client,
}

/// A page of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemotePage {
    /// Keys with their entries, in no particular order.
    pub entries: Vec<(Vec<u8>, Entry)>,
    /// Where to go on; `None` when all was seen.
    pub next: Option<u64>,
}

/// Takes the fields of the variant that was expected.
macro_rules! expect {
    ($reply:expr, $variant:ident { $($field:ident),* }) => {
        match $reply {
            KvReply::$variant { $($field),* } => ($($field),*),
            other => return Err(unexpected(&other)),
        }
    };
}

/// # Keys over the socket
impl Client {
    /// The keys of the broker's region, over the socket. Where [`kv`](Self::kv) is to be had, that
    /// is a thousand times faster.
    pub fn remote_kv(&self) -> RemoteKv {
        RemoteKv {
            client: self.clone(),
        }
    }
}

/// # Reading
impl RemoteKv {
    /// The value of a key; see [`Kv::get`](crate::Kv::get).
    ///
    /// ```no_run
    /// # async fn run(kv: ganger_client::RemoteKv) -> Result<(), ganger_client::Error> {
    /// println!("{:?}", kv.get("greeting").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, Error> {
        let frame = self.command(Command::Get { key: key.as_ref() }).await?;
        match Answer::of(&frame) {
            Some(Answer::Value { value, .. }) => Ok(Some(value.to_vec())),
            Some(Answer::Nothing) => Ok(None),
            _ => Err(strange(&frame)),
        }
    }

    /// The value of a key and what is known of it; see [`Kv::entry`](crate::Kv::entry).
    pub async fn entry(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>, Error> {
        let key = bytes(key);
        let reply = self.ask(&KvRequest::Entry { key }).await?;
        Ok(expect!(reply, Entry { entry }))
    }

    /// The values of several keys, in their order; see [`Kv::get_many`](crate::Kv::get_many).
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let keys = keys.iter().map(bytes).collect();
        let reply = self.ask(&KvRequest::GetMany { keys }).await?;
        let values = expect!(reply, Values { values });
        Ok(values
            .into_iter()
            .map(|value| value.map(Vec::from))
            .collect())
    }

    /// Whether a key is there; see [`Kv::exists`](crate::Kv::exists).
    pub async fn exists(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let key = bytes(key);
        self.is_done(&KvRequest::Exists { key }).await
    }

    /// When a key goes by itself, if it is there; see [`Kv::ttl`](crate::Kv::ttl).
    pub async fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Expiry>, Error> {
        let key = bytes(key);
        let reply = self.ask(&KvRequest::Ttl { key }).await?;
        let (exists, ttl_ms) = expect!(reply, Ttl { exists, ttl_ms });
        let expiry = ttl_ms.map_or(Expiry::Never, |left| {
            Expiry::In(Duration::from_millis(left))
        });
        Ok(exists.then_some(expiry))
    }

    /// How many entries there are; see [`Kv::len`](crate::Kv::len).
    pub async fn len(&self) -> Result<u64, Error> {
        self.count(&KvRequest::Len {}).await
    }

    /// Whether there are none.
    pub async fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len().await? == 0)
    }

    /// One step of a scan: about `limit` of the entries whose keys begin with `prefix`, from
    /// `cursor` on; see [`Kv::scan`](crate::Kv::scan).
    ///
    /// ```no_run
    /// # async fn run(kv: ganger_client::RemoteKv) -> Result<(), ganger_client::Error> {
    /// let mut next = Some(0);
    /// while let Some(cursor) = next {
    ///     let page = kv.scan("user:", cursor, 100).await?;
    ///     println!("{} users", page.entries.len());
    ///     next = page.next;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn scan(
        &self,
        prefix: impl AsRef<[u8]>,
        cursor: u64,
        limit: u32,
    ) -> Result<RemotePage, Error> {
        self.page(bytes(prefix), cursor, limit, false).await
    }

    /// As [`scan`](Self::scan), without the values.
    pub async fn scan_keys(
        &self,
        prefix: impl AsRef<[u8]>,
        cursor: u64,
        limit: u32,
    ) -> Result<RemotePage, Error> {
        self.page(bytes(prefix), cursor, limit, true).await
    }

    /// Numbers of the region; see [`Kv::stats`](crate::Kv::stats).
    pub async fn stats(&self) -> Result<RegionStats, Error> {
        let reply = self.ask(&KvRequest::Stats {}).await?;
        Ok(expect!(reply, Stats { stats }))
    }
}

/// # Writing
impl RemoteKv {
    /// Stores a value and returns its revision; see [`Kv::set`](crate::Kv::set).
    ///
    /// ```no_run
    /// # async fn run(kv: ganger_client::RemoteKv) -> Result<(), ganger_client::Error> {
    /// kv.set("greeting", "hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<u64, Error> {
        let revision = self.set_with(key, value, SetOptions::new()).await?;
        // Without a condition there is nothing that can fail to be met.
        Ok(revision.unwrap_or_default())
    }

    /// Stores a value that expires; see [`Kv::set_for`](crate::Kv::set_for).
    pub async fn set_for(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<u64, Error> {
        let revision = self
            .set_with(key, value, SetOptions::new().ttl(ttl))
            .await?;
        Ok(revision.unwrap_or_default())
    }

    /// Stores a value if the options' condition is met, and returns its revision; see
    /// [`Kv::set_with`](crate::Kv::set_with). An ephemeral key goes when this client's connection
    /// ends.
    ///
    /// ```no_run
    /// # async fn run(kv: ganger_client::RemoteKv) -> Result<(), ganger_client::Error> {
    /// use ganger_client::SetOptions;
    ///
    /// let first = SetOptions::new().if_absent();
    /// println!("we are first: {}", kv.set_with("first", "me", first).await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: SetOptions,
    ) -> Result<Option<u64>, Error> {
        let frame = self
            .command(Command::Set {
                key: key.as_ref(),
                value: value.as_ref(),
                options: options.1,
            })
            .await?;
        match Answer::of(&frame) {
            Some(Answer::Ok(revision)) => Ok(Some(revision)),
            Some(Answer::Nothing) => Ok(None),
            _ => Err(strange(&frame)),
        }
    }

    /// Removes a key; `false` if it was not there.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        self.remove(key.as_ref(), None).await
    }

    /// Removes a key if nobody wrote it since; see [`Kv::delete_if`](crate::Kv::delete_if).
    pub async fn delete_if(&self, key: impl AsRef<[u8]>, revision: u64) -> Result<bool, Error> {
        self.remove(key.as_ref(), Some(revision)).await
    }

    /// Adds to a counter and returns the sum; see [`Kv::incr`](crate::Kv::incr).
    ///
    /// ```no_run
    /// # async fn run(kv: ganger_client::RemoteKv) -> Result<(), ganger_client::Error> {
    /// println!("visit {}", kv.incr("visits", 1).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn incr(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64, Error> {
        let key = key.as_ref();
        let frame = self.command(Command::Incr { key, by }).await?;
        match Answer::of(&frame) {
            Some(Answer::Ok(sum)) => Ok(sum.cast_signed()),
            _ => Err(strange(&frame)),
        }
    }

    /// Adds to a counter that expires `ttl` after its first count; see
    /// [`Kv::incr_for`](crate::Kv::incr_for).
    pub async fn incr_for(
        &self,
        key: impl AsRef<[u8]>,
        by: i64,
        ttl: Duration,
    ) -> Result<i64, Error> {
        let ttl_ms = Some(milliseconds(ttl));
        let key = bytes(key);
        let reply = self.ask(&KvRequest::Incr { key, by, ttl_ms }).await?;
        Ok(expect!(reply, Sum { value }))
    }

    /// Adds bytes to the end of a value and returns its new length; see
    /// [`Kv::append`](crate::Kv::append).
    pub async fn append(
        &self,
        key: impl AsRef<[u8]>,
        more: impl AsRef<[u8]>,
    ) -> Result<u64, Error> {
        let (key, value) = (bytes(key), bytes(more));
        self.count(&KvRequest::Append { key, value }).await
    }

    /// Lets a key expire after this time; `false` if it is not there.
    pub async fn expire(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool, Error> {
        let (key, ttl_ms) = (bytes(key), milliseconds(ttl));
        self.is_done(&KvRequest::Expire { key, ttl_ms }).await
    }

    /// Makes sure a key lives at least this much longer; see [`Kv::touch`](crate::Kv::touch).
    pub async fn touch(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool, Error> {
        let (key, ttl_ms) = (bytes(key), milliseconds(ttl));
        self.is_done(&KvRequest::Touch { key, ttl_ms }).await
    }

    /// Lets a key live for ever; `false` if it is not there.
    pub async fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let key = bytes(key);
        self.is_done(&KvRequest::Persist { key }).await
    }

    /// Removes all entries and returns how many there were.
    pub async fn clear(&self) -> Result<u64, Error> {
        self.count(&KvRequest::Clear {}).await
    }

    /// Several operations in one message, one after the other; others may write in between. Each has
    /// a reply of its own; one that fails does not stop those behind it.
    ///
    /// ```no_run
    /// # async fn run(kv: ganger_client::RemoteKv) -> Result<(), ganger_client::Error> {
    /// use ganger_client::protocol::kv::KvRequest;
    ///
    /// let gone = ["a", "b"].map(|key| KvRequest::Delete { key: key.into(), if_revision: None });
    /// let replies = kv.batch(gone.into()).await?;
    /// assert_eq!(replies.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn batch(&self, requests: Vec<KvRequest>) -> Result<Vec<KvReply>, Error> {
        let reply = self.ask(&KvRequest::Batch { requests }).await?;
        Ok(expect!(reply, Batch { replies }))
    }
}

impl RemoteKv {
    async fn command(&self, command: Command<'_>) -> Result<Frame, Error> {
        let write = |id, out: &mut BytesMut| framed(command.write(id, out));
        self.client.link().call(self.client.ask(), write).await
    }

    async fn ask(&self, request: &KvRequest) -> Result<KvReply, Error> {
        let write = |id, out: &mut BytesMut| control(id, request, out);
        let frame = self.client.link().call(self.client.ask(), write).await?;
        Ok(frame.body()?)
    }

    async fn remove(&self, key: &[u8], if_revision: Option<u64>) -> Result<bool, Error> {
        let frame = self.command(Command::Delete { key, if_revision }).await?;
        match Answer::of(&frame) {
            Some(Answer::Ok(_)) => Ok(true),
            Some(Answer::Nothing) => Ok(false),
            _ => Err(strange(&frame)),
        }
    }

    async fn page(
        &self,
        prefix: Bytes,
        cursor: u64,
        limit: u32,
        keys_only: bool,
    ) -> Result<RemotePage, Error> {
        let request = KvRequest::Scan {
            prefix,
            cursor,
            limit,
            keys_only,
        };
        let (entries, next) = expect!(self.ask(&request).await?, Page { entries, next });
        let entries = entries.into_iter();
        Ok(RemotePage {
            entries: entries
                .map(|entry| (entry.key.into(), entry.entry))
                .collect(),
            next,
        })
    }

    async fn is_done(&self, request: &KvRequest) -> Result<bool, Error> {
        Ok(expect!(self.ask(request).await?, Done { done }))
    }

    async fn count(&self, request: &KvRequest) -> Result<u64, Error> {
        Ok(expect!(self.ask(request).await?, Count { count }))
    }
}

fn bytes(part: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(part.as_ref())
}

fn unexpected(reply: &KvReply) -> Error {
    Error::protocol(format!("{reply:?} to another question"))
}

fn strange(frame: &Frame) -> Error {
    Error::protocol(format!("{:?} to an operation on a key", frame.head.op))
}
