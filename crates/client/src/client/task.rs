//! The task that owns the connection: writes what the handles left, hands out what comes, and makes
//! a new connection when one is lost.
//!
//! One task for both directions: most of what it does is short, and so it needs no locks of its own.
//! It reads even while it can't write, else a broker that waits for it to read would wait for ever.

use super::backoff::{random, Backoff};
use super::error::Error;
use super::establish::{establish, unreadable, Established};
use super::link::{Link, Phase, Session};
use super::outlet::Outlet;
use super::payload::Mapped;
use super::run::{Extent, Run};
use bytes::{Bytes, BytesMut};
use ganger_protocol::hello::Welcome;
use ganger_protocol::limits::{HEAD_LEN, LENGTH_LEN};
use ganger_protocol::{Flags, Frame, FrameCodec, Head, Limits, Op};
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::time::{sleep, sleep_until, Instant, Sleep};
use tokio_util::codec::Decoder;

/// Bytes that are read at once, at most.
const READ_LEN: usize = 64 << 10;
/// A write buffer that has grown beyond this is given back when it is empty.
const KEEP_LEN: usize = 4 << 20;
/// When to write again if there is no descriptor left to wait with.
const RETRY: Duration = Duration::from_millis(5);
/// How long the last bytes of a client that was dropped may take.
const CLOSING_TIME: Duration = Duration::from_secs(1);

/// Keeps the connection until nobody needs it any more. The link is up already.
pub(crate) async fn drive(link: Arc<Link>, mut stream: Receiver, mut received: BytesMut) {
    loop {
        let mut connection = Connection::new(stream, received);
        if let End::Closed = connection.run(&link).await {
            link.fail(&Error::Closed);
            return;
        }
        link.down(connection.unsent());
        let Some(next) = again(&link).await else {
            return;
        };
        link.up(next.welcome, next.mapped, &next.stream);
        (stream, received) = (next.stream, next.received);
    }
}

/// A new connection; `None`, with the link closed, if there is to be none.
async fn again(link: &Link) -> Option<Established> {
    let policy = link.settings.reconnect;
    let begun = Instant::now();
    let mut backoff = Backoff::default();
    loop {
        let wait = backoff.next(random());
        let attempt = async {
            sleep(wait).await;
            establish(&link.settings).await
        };
        let error = tokio::select! {
            () = tend(link) => Error::Closed,
            done = attempt => match done {
                Ok(established) => return Some(established),
                Err(error) => error,
            },
        };
        let too_long = policy.give_up.is_some_and(|time| begun.elapsed() >= time);
        if too_long || error.is_final() || matches!(error, Error::Closed) {
            link.fail(&error);
            return None;
        }
    }
}

/// Looks after what waits for a connection, until nobody needs one any more.
async fn tend(link: &Link) {
    loop {
        let next = {
            let mut state = link.lock();
            if state.closing {
                return;
            }
            state.offline.expire(Instant::now())
        };
        let due = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = link.wake.notified() => {}
        }
    }
}

enum End {
    /// Nobody needs it any more.
    Closed,
    Lost,
}

/// What came, in order.
enum Piece {
    Frame(Frame),
    /// Messages of one subscription.
    Run(u32, Run),
}

struct Connection {
    /// To tokio, the socket is what is registered for reading alone: else the kernel would wake this
    /// process whenever the broker has read what was written, often before those whom a message is for.
    stream: Receiver,
    /// To be woken just then, while the client asks one thing after another: its processor is awake
    /// when the answer comes, which takes a tenth off a call where waking one takes long.
    awake: Option<Sender>,
    /// Ends when the socket takes more bytes again.
    blocked: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    codec: FrameCodec,
    received: BytesMut,
    pieces: Vec<Piece>,
    /// What is being written, and how much of it has been.
    batch: BytesMut,
    written: usize,
    /// For calls that are to be given up.
    timer: Option<Pin<Box<Sleep>>>,
}

/// Ends then. The timer stays where it is as long as the time does.
async fn due(timer: &mut Option<Pin<Box<Sleep>>>, at: Option<Instant>) {
    let Some(at) = at else {
        return std::future::pending().await;
    };
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
    if timer.deadline() != at {
        timer.as_mut().reset(at);
    }
    timer.as_mut().await;
}

impl Connection {
    fn new(stream: Receiver, received: BytesMut) -> Self {
        Self {
            stream,
            awake: None,
            blocked: None,
            codec: FrameCodec::new(&Limits::default()),
            received,
            pieces: Vec::new(),
            batch: BytesMut::new(),
            written: 0,
            timer: None,
        }
    }

    async fn run(&mut self, link: &Link) -> End {
        // Something may have come with the welcome.
        if self.hand_out(link).is_err() {
            return End::Lost;
        }
        let mut closing: Option<Instant> = None;
        loop {
            if self.write(link).is_err() {
                return End::Lost;
            }
            let (is_closing, only_asks) = link.state_of_writers();
            if only_asks != self.awake.is_some() {
                self.awake = only_asks.then(|| another(&self.stream).ok()).flatten();
            }
            if is_closing {
                let until = *closing.get_or_insert_with(|| Instant::now() + CLOSING_TIME);
                if self.blocked.is_none() && link.lock().out.is_empty() || Instant::now() >= until {
                    return End::Closed;
                }
            }
            let until = async {
                match closing {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let room = self.make_room();
            let due = due(&mut self.timer, link.lock().table.due());
            let writable = async {
                match &mut self.blocked {
                    Some(blocked) => blocked.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                read = self.stream.read_buf(&mut self.received) => match read {
                    Ok(len @ 1..) if self.hand_out(link).is_ok() => {
                        if len == room {
                            // There is more, maybe for hours: let those run who wait for this.
                            tokio::task::yield_now().await;
                        }
                    }
                    _ => return End::Lost,
                },
                () = writable => self.blocked = None,
                () = link.wake.notified() => {}
                () = due => {
                    let state = &mut *link.lock();
                    state.table.expire(Instant::now(), &mut state.out);
                }
                () = until => {}
            }
        }
    }

    /// Writes until there is nothing left, or the socket takes no more.
    fn write(&mut self, link: &Link) -> io::Result<()> {
        while self.blocked.is_none() {
            if self.written == self.batch.len() {
                self.batch.clear();
                if self.batch.capacity() > KEEP_LEN {
                    self.batch = BytesMut::new();
                }
                match link.take_out(&mut self.batch) {
                    Some(written) => self.written = written,
                    None => {
                        self.written = 0;
                        return Ok(());
                    }
                }
            }
            let rest = &self.batch[self.written..];
            match rustix::net::send(&self.stream, rest, SendFlags::NOSIGNAL) {
                Ok(len) => self.written += len,
                Err(Errno::AGAIN) => self.blocked = Some(Box::pin(writable(&self.stream))),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Room for what comes next; how much.
    fn make_room(&mut self) -> usize {
        if self.received.capacity() - self.received.len() < READ_LEN / 4 {
            self.received.reserve(READ_LEN);
        }
        self.received.capacity() - self.received.len()
    }

    /// Hands out the frames that are there.
    fn hand_out(&mut self, link: &Link) -> Result<(), Error> {
        loop {
            let found = self.codec.peek(&self.received).map_err(unreadable)?;
            let Some(first) = found else {
                self.codec.make_room(&mut self.received);
                break;
            };
            let piece = match Extent::begin(&first) {
                Some(extent) => self.cut_run(extent)?,
                None => match self.codec.decode(&mut self.received).map_err(unreadable)? {
                    Some(frame) => Piece::Frame(frame),
                    None => break,
                },
            };
            self.pieces.push(piece);
        }
        if !self.pieces.is_empty() {
            link.hand_out(&mut self.pieces);
        }
        Ok(())
    }

    /// Cuts off a run that begins with what is known of it.
    fn cut_run(&mut self, mut extent: Extent) -> Result<Piece, Error> {
        while let Some(frame) = self
            .codec
            .peek(&self.received[extent.len..])
            .map_err(unreadable)?
        {
            if !extent.grow(&frame) {
                break;
            }
        }
        let bytes = self.received.split_to(extent.len).freeze();
        Ok(Piece::Run(extent.id, extent.of(bytes)))
    }

    /// The messages of the last batch of which not a byte was written.
    fn unsent(self) -> Vec<Bytes> {
        publishes(self.batch.freeze(), self.written)
    }
}

/// The same socket, registered for writing. Epoll knows a descriptor once, so it has another.
fn another(socket: &Receiver) -> io::Result<Sender> {
    Sender::from_owned_fd_unchecked(socket.as_fd().try_clone_to_owned()?)
}

/// Waits until a socket takes bytes again.
fn writable(socket: &Receiver) -> impl Future<Output = ()> + Send + 'static {
    let another = another(socket);
    async move {
        match another {
            // An error will be told by the next write.
            Ok(another) => drop(another.writable().await),
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// The messages among these frames that begin at or behind `from`, and whose publisher was told
/// that they were sent.
fn publishes(mut frames: Bytes, from: usize) -> Vec<Bytes> {
    let mut unsent = Vec::new();
    let mut at = 0;
    while let Some(length) = frames.first_chunk::<LENGTH_LEN>() {
        let len = LENGTH_LEN + u32::from_be_bytes(*length) as usize;
        if len > frames.len() {
            break;
        }
        let frame = frames.split_to(len);
        if at >= from && len >= HEAD_LEN {
            let head = Frame::decode(frame.slice(LENGTH_LEN..)).map(|frame| frame.head);
            if head.is_ok_and(|head| head.op == Op::Publish && !head.flags.has(Flags::WANT_ACK)) {
                unsent.push(frame);
            }
        }
        at += len;
    }
    unsent
}

/// # What the task does to the link
impl Link {
    /// There is a connection: all that lasts goes on, then what waited.
    pub(crate) fn up(&self, welcome: Welcome, mapped: Option<Mapped>, stream: &Receiver) {
        let mut state = self.lock();
        state.generations += 1;
        let session = Arc::new(Session {
            welcome,
            generation: state.generations,
        });
        state.mapped = match (mapped, state.mapped.take()) {
            (Some(new), Some(old)) if old.is_same(&new) => Some(old),
            (new, _) => new.map(Arc::new),
        };
        let state = &mut *state;
        state.out.clear();
        state.outlet = Outlet::new(stream.as_fd().try_clone_to_owned().ok());
        state.table.resume(&session, &mut state.out);
        state.offline.send(&mut state.out);
        state.phase = Phase::Up(session);
        state.idle = false;
        self.changed.notify_waiters();
    }

    /// The connection is lost. `unsent` was not written any more.
    fn down(&self, mut unsent: Vec<Bytes>) {
        let mut state = self.lock();
        state.phase = Phase::Down;
        state.idle = false;
        let written = std::mem::take(&mut state.outlet).take();
        unsent.extend(publishes(state.out.split().freeze(), written));
        state.offline.push_front(unsent);
        state.table.lost(&Error::ConnectionLost);
        self.changed.notify_waiters();
    }

    /// It is over for good.
    fn fail(&self, error: &Error) {
        let mut state = self.lock();
        state.phase = Phase::Closed(error.clone());
        state.out = BytesMut::new();
        state.outlet = Outlet::default();
        state.table.fail(error);
        state.offline.fail(error);
        state.mapped = None;
        self.changed.notify_waiters();
    }

    /// Puts what is to be written into `batch`, which is empty, and returns how much of it is
    /// written already. `None` if there is nothing: from then on, the task is woken when there is.
    fn take_out(&self, batch: &mut BytesMut) -> Option<usize> {
        let mut state = self.lock();
        state.idle = state.out.is_empty();
        if state.idle {
            state.outlet.give_back();
            return None;
        }
        let written = state.outlet.take();
        std::mem::swap(&mut state.out, batch);
        drop(state);
        self.changed.notify_waiters();
        Some(written)
    }

    /// Whether nobody writes any more, and whether those who do only ask.
    fn state_of_writers(&self) -> (bool, bool) {
        let state = self.lock();
        (state.closing, state.outlet.only_asks())
    }

    fn hand_out(&self, pieces: &mut Vec<Piece>) {
        let mut state = self.lock();
        let state = &mut *state;
        for piece in pieces.drain(..) {
            match piece {
                Piece::Run(id, run) => state.table.take_run(id, run, &mut state.out),
                Piece::Frame(frame) if frame.head.op == Op::Ping => {
                    let head = Head::new(Op::Pong, frame.head.id).seq(frame.head.seq);
                    Frame::new(head, frame.tail).write_to(&mut state.out);
                }
                Piece::Frame(frame) => {
                    let id = frame.head.id;
                    if state.table.take(frame, &mut state.out) {
                        Frame::bare(Head::new(Op::Cancel, id)).write_to(&mut state.out);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ganger_protocol::write_frame;

    #[test]
    fn of_a_batch_only_messages_without_answer_of_which_nothing_was_written_are_kept() {
        let mut batch = BytesMut::new();
        let mut ends = Vec::new();
        for (op, flags) in [
            (Op::Publish, Flags::NONE),
            (Op::Get, Flags::NONE),
            (Op::Publish, Flags::WANT_ACK),
            (Op::Publish, Flags::RETAIN),
        ] {
            write_frame(&mut batch, Head::new(op, 1).flags(flags), b"a", b"", b"x").unwrap();
            ends.push(batch.len());
        }
        let batch = batch.freeze();
        let kept = |from| publishes(batch.clone(), from);
        assert_eq!(kept(0), [batch.slice(..ends[0]), batch.slice(ends[2]..)]);
        assert_eq!(kept(1), [batch.slice(ends[2]..)]);
        assert_eq!(kept(ends[2]), [batch.slice(ends[2]..)]);
        assert!(kept(ends[2] + 1).is_empty());
        assert!(publishes(batch.slice(..ends[0] - 1), 0).is_empty());
    }
}
