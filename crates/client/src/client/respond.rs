//! Requests and their replies.

use super::error::Error;
use super::link::{framed, Ask};
use super::message::Content;
use super::publish::{subject_of, Outgoing, PublishOptions};
use super::route::{Item, Wanted};
use super::subscribe::{content, Subscription};
use super::{Client, Owner};
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use ganger_protocol::pubsub::Subscribe;
use ganger_protocol::request::RequestTag;
use ganger_protocol::{headers, write_frame, Flags, Head, Op, Pattern};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Header by which a library says that a failure is its own, not the responder's.
const ERROR: &str = "ganger-error";
/// Its value: the request was dropped without an answer.
const UNANSWERED: &[u8] = b"unanswered";
/// How much later than the broker the requester gives up: only if the broker itself is stuck.
const GRACE: Duration = Duration::from_secs(1);

/// # Request and reply
impl Client {
    /// Asks one of those who respond to a subject, and waits for the reply: 10 s, or what
    /// [`timeout`](crate::ClientBuilder::timeout) says.
    ///
    /// Fails with [`Error::NoResponders`] at once if there is nobody, with [`Error::WorkerDied`] as
    /// soon as the one that was asked ends, with [`Error::Timeout`] in the end. If the future is
    /// dropped, the broker is told that nobody waits.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// let reply = client.request("price.of", "pears").await?;
    /// println!("{}", String::from_utf8_lossy(reply.payload()));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn request(&self, subject: &str, payload: impl AsRef<[u8]>) -> Result<Reply, Error> {
        let timeout = self.link().settings.timeout;
        self.request_within(subject, payload, timeout).await
    }

    /// As [`request`](Self::request), with a time limit of its own.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// use std::time::Duration;
    ///
    /// let soon = Duration::from_millis(50);
    /// let reply = client.request_within("price.of", "pears", soon).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn request_within(
        &self,
        subject: &str,
        payload: impl AsRef<[u8]>,
        timeout: Duration,
    ) -> Result<Reply, Error> {
        let link = self.link();
        let message = Outgoing {
            subject: subject_of(subject)?,
            headers: &[],
            payload: payload.as_ref(),
            flags: Flags::NONE,
        };
        let reference = link.reference(&message);
        let message = message.referring(reference.as_deref(), Flags::NONE);
        let begun = Instant::now();
        let write = |id, out: &mut BytesMut| {
            // 0 would be the broker's longest.
            let left = timeout.saturating_sub(begun.elapsed()).as_millis();
            let left = u64::try_from(left).unwrap_or(u64::MAX).max(1);
            message.write(Op::Request, id, left, out)
        };
        let ask = Ask {
            limit: Some(timeout.saturating_add(GRACE)),
            cancel: true,
        };
        let answer = link.call(ask, write).await;
        if let (Some(reference), Some(mapped)) = (&reference, link.mapped()) {
            mapped.forget(reference);
        }
        let frame = answer?;
        let failed = frame.head.flags.has(Flags::FAILED);
        let lost = || Error::protocol("a reply whose payload is not there any more");
        let reply = Reply {
            content: content(link, frame).ok_or_else(lost)?,
        };
        match failed {
            false => Ok(reply),
            true if reply.header(ERROR) == Some(UNANSWERED) => Err(Error::Unanswered),
            true => Err(Error::Failed(reply)),
        }
    }

    /// Answers requests of all subjects that match a pattern. Of several responders, in this or
    /// other processes, each request goes to the one that has the fewest in hand.
    ///
    /// ```no_run
    /// # async fn run(client: ganger_client::Client) -> Result<(), ganger_client::Error> {
    /// let mut requests = client.respond("price.of").await?;
    /// while let Some(request) = requests.next().await {
    ///     match request.payload() {
    ///         b"pears" => request.reply("1.20").await?,
    ///         _ => request.fail("we don't sell that").await?,
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn respond(&self, pattern: &str) -> Result<Responder, Error> {
        pattern.parse::<Pattern>()?;
        let mut wanted = Subscribe::new(pattern);
        wanted.responds = true;
        let subscription = self.listen(Wanted::Messages(wanted), false).await?;
        Ok(Responder { subscription })
    }
}

/// The answer to a request.
#[derive(Clone)]
pub struct Reply {
    content: Content,
}

impl Reply {
    /// Its payload.
    pub fn payload(&self) -> &[u8] {
        self.content.payload()
    }

    /// Its payload, without a copy; see [`Message::into_payload`](crate::Message::into_payload).
    pub fn into_payload(self) -> Bytes {
        self.content.into_payload()
    }

    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.content.header(name)
    }

    /// All headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.content.headers()
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("payload_len", &self.payload().len())
            .finish_non_exhaustive()
    }
}

/// Requests to be answered: a [`Stream`] of [`Request`]s.
///
/// It outlives lost connections; requests that were not answered by then have failed with
/// [`Error::WorkerDied`] for those who sent them, and are not handed out any more. Dropping it ends
/// it.
pub struct Responder {
    subscription: Subscription,
}

impl Responder {
    /// The next request; `None` when it is over. The future can be dropped at any time: nothing is
    /// lost.
    pub async fn next(&mut self) -> Option<Request> {
        poll_fn(|context| self.poll_request(context)).await
    }

    /// Why it is over, if that is an error.
    pub fn error(&self) -> Option<Error> {
        self.subscription.error()
    }

    fn poll_request(&mut self, context: &mut Context<'_>) -> Poll<Option<Request>> {
        loop {
            let (frame, generation) = match ready!(self.subscription.poll_item(context)) {
                None => return Poll::Ready(None),
                Some(Item::Gap(_) | Item::Run(..)) => continue,
                Some(Item::Frame(frame, generation)) => (frame, generation),
            };
            let handle = Handle {
                owner: Arc::clone(self.subscription.owner()),
                id: self.subscription.id(),
                seq: frame.head.seq,
                generation,
                arrived: Instant::now(),
                answered: false,
            };
            // Without its payload it can't be answered: dropping the handle says so.
            if let Some(content) = content(&handle.owner.link, frame) {
                return Poll::Ready(Some(Request { content, handle }));
            }
        }
    }
}

impl Stream for Responder {
    type Item = Request;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Request>> {
        self.get_mut().poll_request(context)
    }
}

/// A request to be answered. Whoever drops it unanswered lets the requester fail with
/// [`Error::Unanswered`], at once.
pub struct Request {
    content: Content,
    handle: Handle,
}

impl Request {
    /// The subject it was sent to.
    pub fn subject(&self) -> &str {
        self.content.subject()
    }

    /// Its payload.
    pub fn payload(&self) -> &[u8] {
        self.content.payload()
    }

    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.content.header(name)
    }

    /// All headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.content.headers()
    }

    /// How long the requester still waits, about.
    pub fn time_left(&self) -> Duration {
        let told = RequestTag::from_seq(self.handle.seq).timeout_ms();
        let told = Duration::from_millis(u64::from(told));
        told.saturating_sub(self.handle.arrived.elapsed())
    }

    /// Answers it. Fails with [`Error::ConnectionLost`] if the connection it came by is gone: the
    /// requester was told so.
    pub async fn reply(self, payload: impl AsRef<[u8]>) -> Result<(), Error> {
        let no_headers = PublishOptions::new();
        self.reply_with(payload, &no_headers).await
    }

    /// Answers it, with the headers of these options.
    pub async fn reply_with(
        self,
        payload: impl AsRef<[u8]>,
        options: &PublishOptions,
    ) -> Result<(), Error> {
        let headers = options.encoded_headers()?;
        self.handle
            .answer(&headers, payload.as_ref(), Flags::NONE)
            .await
    }

    /// Says that it can't be done, and why: the requester gets [`Error::Failed`].
    pub async fn fail(self, why: impl AsRef<[u8]>) -> Result<(), Error> {
        self.handle.answer(&[], why.as_ref(), Flags::FAILED).await
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("subject", &self.subject())
            .field("payload_len", &self.payload().len())
            .finish_non_exhaustive()
    }
}

/// What an answer needs.
struct Handle {
    owner: Arc<Owner>,
    id: u32,
    seq: u64,
    generation: u64,
    arrived: Instant,
    answered: bool,
}

impl Handle {
    async fn answer(mut self, headers: &[u8], payload: &[u8], flags: Flags) -> Result<(), Error> {
        let owner = Arc::clone(&self.owner);
        let link = &owner.link;
        let message = Outgoing {
            subject: b"",
            headers,
            payload,
            flags,
        };
        let reference = link.reference(&message);
        let message = message.referring(reference.as_deref(), Flags::NONE);
        link.when_up(link.deadline(), |state| {
            let is_same = state
                .session()?
                .is_some_and(|session| session.generation == self.generation);
            if !is_same {
                self.answered = true;
                return Err(Error::ConnectionLost);
            }
            message.write(Op::Reply, self.id, self.seq, &mut state.out)?;
            self.answered = true;
            Ok(())
        })
        .await
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let link = &self.owner.link;
        let state = &mut *link.lock();
        let current = state.session().ok().flatten();
        if current.is_some_and(|session| session.generation == self.generation) {
            refuse(self.id, self.seq, &mut state.out);
            link.written(state);
        }
    }
}

/// Tells the requester that nobody will answer.
pub(crate) fn refuse(id: u32, seq: u64, out: &mut BytesMut) {
    let head = Head::new(Op::Reply, id).flags(Flags::FAILED).seq(seq);
    let headers = headers::encode(&[(ERROR, UNANSWERED)]).unwrap_or_default();
    // It is short.
    let _ = framed(write_frame(out, head, b"", &headers, b""));
}
