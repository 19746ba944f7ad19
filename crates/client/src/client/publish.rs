//! Publishing.

use super::error::Error;
use super::link::{framed, open, Ask, Link, Phase};
use super::payload::Mapped;
use super::table::Entry;
use super::Client;
use bytes::BytesMut;
use ganger_protocol::hello::BY_REFERENCE;
use ganger_protocol::{check_subject, headers, write_frame, Flags, Head, Op};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::timeout_at;

/// What a message has beside subject and payload, and what the publisher wants to know of it.
///
/// ```
/// use ganger_client::PublishOptions;
///
/// let options = PublishOptions::new().retain().header("zone", "eu").ack();
/// ```
#[derive(Debug, Clone, Default)]
pub struct PublishOptions {
    headers: Vec<(String, Vec<u8>)>,
    flags: Flags,
}

impl PublishOptions {
    /// No headers, no acknowledgement.
    pub fn new() -> Self {
        Self::default()
    }

    /// It is kept as the last message of its subject, for those who subscribe later with
    /// [`Start::Last`](crate::Start::Last). One without payload makes the broker forget the last one.
    #[must_use]
    pub fn retain(self) -> Self {
        self.flag(Flags::RETAIN)
    }

    /// A header: passed on as it is, but for `key` (see there) and `traceparent`.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// By which subscriptions that conflate tell messages apart; without it, by their subject.
    #[must_use]
    pub fn key(self, key: impl AsRef<[u8]>) -> Self {
        self.header(headers::KEY, key)
    }

    /// The call waits until the broker has it, and tells how many subscriptions it reached.
    #[must_use]
    pub fn ack(self) -> Self {
        self.flag(Flags::WANT_ACK)
    }

    /// Not to subscriptions of this client.
    #[must_use]
    pub fn no_echo(self) -> Self {
        self.flag(Flags::NO_ECHO)
    }

    pub(crate) fn encoded_headers(&self) -> Result<Vec<u8>, Error> {
        Ok(headers::encode(&self.headers)?)
    }

    fn flag(mut self, flag: Flags) -> Self {
        self.flags = self.flags.with(flag);
        self
    }
}

/// # Publishing
impl Client {
    /// Publishes a message to all who subscribed to its subject.
    ///
    /// When it returns, the message is on its way: in order behind all that this client sent before.
    /// If the connection breaks just then, the message can be lost; who must know that the broker
    /// has it asks for an [`ack`](PublishOptions::ack). If there is no connection, the message waits
    /// in a bounded buffer: the call returns when it was sent, or with [`Error::Expired`] when it has
    /// waited too long, or with [`Error::BufferFull`] at once. Dropping the future takes the message
    /// back, if it was not sent yet. See [`try_publish`](Self::try_publish) for one that never waits.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// client.publish("orders.new", "7 pears").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish(&self, subject: &str, payload: impl AsRef<[u8]>) -> Result<(), Error> {
        let message = Outgoing {
            subject: subject_of(subject)?,
            headers: &[],
            payload: payload.as_ref(),
            flags: Flags::NONE,
        };
        self.send(&message).await.map(drop)
    }

    /// Publishes with options. Returns how many subscriptions it reached, if
    /// [`ack`](PublishOptions::ack) asks for that.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// use ganger_client::PublishOptions;
    ///
    /// let options = PublishOptions::new().retain().ack();
    /// let reached = client.publish_with("price.pears", "1.20", &options).await?;
    /// println!("{reached:?} subscriptions got it");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_with(
        &self,
        subject: &str,
        payload: impl AsRef<[u8]>,
        options: &PublishOptions,
    ) -> Result<Option<u64>, Error> {
        let message = Outgoing {
            subject: subject_of(subject)?,
            headers: &options.encoded_headers()?,
            payload: payload.as_ref(),
            flags: options.flags,
        };
        self.send(&message).await
    }

    /// Publishes without ever waiting: if the connection is busy or away, the message goes into the
    /// bounded buffer, and its fate will be told by what is returned, to those who want to know.
    /// Dropping that does not take the message back. [`Error::BufferFull`] if there is no room.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// let fate = client.try_publish("log.info", "it is raining")?;
    /// // Later, or never:
    /// fate.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_publish(&self, subject: &str, payload: impl AsRef<[u8]>) -> Result<Fate, Error> {
        let message = Outgoing {
            subject: subject_of(subject)?,
            headers: &[],
            payload: payload.as_ref(),
            flags: Flags::NONE,
        };
        match self.link().offer(&message)? {
            Offered::Sent => Ok(Fate(None)),
            Offered::Kept { fate, .. } => Ok(Fate(Some(fate))),
            Offered::Full => Err(Error::BufferFull),
        }
    }

    /// Waits until the broker has got everything that was sent before.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// for number in 0..1000 {
    ///     client.publish("numbers", number.to_string()).await?;
    /// }
    /// client.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn flush(&self) -> Result<(), Error> {
        self.link().ping().await
    }

    async fn send(&self, message: &Outgoing<'_>) -> Result<Option<u64>, Error> {
        let link = self.link();
        if message.flags.has(Flags::WANT_ACK) {
            let reference = link.reference(message);
            let message = message.referring(reference.as_deref(), Flags::NONE);
            let write = |id, out: &mut BytesMut| message.write(Op::Publish, id, 0, out);
            let answer = link.call(self.ask(), write).await?;
            return Ok(Some(answer.head.seq));
        }
        if link.send_reference(message).await? {
            return Ok(None);
        }
        let mut offered = link.offer(message)?;
        let deadline = link.deadline();
        loop {
            match offered {
                Offered::Sent => return Ok(None),
                Offered::Kept { ticket, fate } => {
                    let _kept = Kept { link, ticket };
                    return fate.await.unwrap_or(Err(Error::Closed)).map(|()| None);
                }
                Offered::Full => {}
            }
            let changed = link.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            offered = link.offer(message)?;
            if matches!(offered, Offered::Full) && timeout_at(deadline, changed).await.is_err() {
                return Err(Error::Timeout);
            }
        }
    }
}

/// What becomes of a message that was published with [`Client::try_publish`].
#[must_use = "a message that could not be sent is lost silently, unless this is awaited"]
pub struct Fate(Option<super::offline::Fate>);

impl Future for Fate {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            None => Poll::Ready(Ok(())),
            Some(fate) => {
                let fate = Pin::new(fate).poll(context);
                fate.map(|fate| fate.unwrap_or(Err(Error::Closed)))
            }
        }
    }
}

/// A message on its way out.
pub(crate) struct Outgoing<'a> {
    pub(crate) subject: &'a [u8],
    pub(crate) headers: &'a [u8],
    pub(crate) payload: &'a [u8],
    pub(crate) flags: Flags,
}

impl<'a> Outgoing<'a> {
    /// The same with another payload, if there is one, and more flags.
    pub(crate) fn referring(&self, reference: Option<&'a [u8]>, flags: Flags) -> Self {
        let flags = self.flags.with(flags);
        Self {
            payload: reference.unwrap_or(self.payload),
            flags: match reference {
                Some(_) => flags.with(Flags::BY_REFERENCE),
                None => flags,
            },
            ..*self
        }
    }

    pub(crate) fn write(&self, op: Op, id: u32, seq: u64, out: &mut BytesMut) -> Result<(), Error> {
        let head = Head::new(op, id).flags(self.flags).seq(seq);
        framed(write_frame(
            out,
            head,
            self.subject,
            self.headers,
            self.payload,
        ))
    }
}

enum Offered {
    Sent,
    /// There is no connection.
    Kept {
        ticket: u64,
        fate: super::offline::Fate,
    },
    /// There is one, and it is busy.
    Full,
}

impl Link {
    /// Sends a message now, or keeps it for the next connection.
    fn offer(&self, message: &Outgoing<'_>) -> Result<Offered, Error> {
        let state = &mut *self.lock();
        if state.session()?.is_none() {
            let mut frame = BytesMut::new();
            message.write(Op::Publish, 0, 0, &mut frame)?;
            let (ticket, fate) = state.offline.push(frame.freeze())?;
            // The task has to look when it expires.
            self.wake.notify_one();
            return Ok(Offered::Kept { ticket, fate });
        }
        if state.out.len() >= self.settings.outbox_bytes {
            return Ok(Offered::Full);
        }
        message.write(Op::Publish, 0, 0, &mut state.out)?;
        self.written(state);
        Ok(Offered::Sent)
    }

    /// Sends a message with its payload by reference. It does not wait for the broker's answer, but
    /// for those to messages before it, if too much was sent so: who gets ahead of the broker by more
    /// than stays in the region loses it. `false`, with nothing sent, if the payload is to go inline.
    async fn send_reference(&self, message: &Outgoing<'_>) -> Result<bool, Error> {
        let Some((mapped, ttl_ms)) = self.place_for(message) else {
            return Ok(false);
        };
        let deadline = self.deadline();
        let ahead = timeout_at(deadline, mapped.run_ahead(message.payload.len())).await;
        let Some(permit) = ahead.map_err(|_| Error::Timeout)? else {
            return Ok(false);
        };
        let Some(reference) = mapped.store(message.payload, ttl_ms) else {
            return Ok(false);
        };
        let message = message.referring(Some(&reference), Flags::WANT_ACK);
        let mut permit = Some(permit);
        self.when_up(deadline, |state| {
            let is_same = |now: &Arc<Mapped>| Arc::ptr_eq(now, &mapped);
            if !state.mapped.as_ref().is_some_and(is_same) {
                return Err(Error::ConnectionLost);
            }
            let id = open(state)?;
            message.write(Op::Publish, id, 0, &mut state.out)?;
            if let Some(permit) = permit.take() {
                state.table.insert(id, Entry::Receipt(permit));
            }
            Ok(true)
        })
        .await
    }

    /// A reference to the payload, stored in the region, if it is worth it and both sides can.
    pub(crate) fn reference(&self, message: &Outgoing<'_>) -> Option<Vec<u8>> {
        let (mapped, ttl_ms) = self.place_for(message)?;
        mapped.store(message.payload, ttl_ms)
    }

    /// Where the payload is to be stored, and for how long, if it is to go by reference. What is
    /// retained may be wanted long after it would be gone.
    fn place_for(&self, message: &Outgoing<'_>) -> Option<(Arc<Mapped>, u64)> {
        let len = message.payload.len();
        if len < ganger_protocol::limits::INLINE_LEN_MAX / 2 || message.flags.has(Flags::RETAIN) {
            return None;
        }
        let state = self.lock();
        let Phase::Up(session) = &state.phase else {
            return None;
        };
        let welcome = &session.welcome;
        if len < welcome.limits.inline_bytes || !welcome.can(BY_REFERENCE) {
            return None;
        }
        Some((state.mapped.clone()?, welcome.limits.reference_ttl_ms))
    }
}

/// A message that waits; dropping it takes the message back.
struct Kept<'a> {
    link: &'a Link,
    ticket: u64,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.link.lock().offline.take_back(self.ticket);
    }
}

/// The bytes of a subject, if it is one.
pub(crate) fn subject_of(subject: &str) -> Result<&[u8], Error> {
    check_subject(subject.as_bytes())?;
    Ok(subject.as_bytes())
}

impl Client {
    /// A call that waits as long as the settings say.
    pub(crate) fn ask(&self) -> Ask {
        Ask {
            limit: Some(self.link().settings.timeout),
            cancel: false,
        }
    }
}
