//! Where a session is while it runs: its own task has it turn by turn, and between those turns others
//! have it write what they have for its client.
//!
//! So a message goes to its subscribers' sockets in the turn of the connection that published it,
//! without a turn of the scheduler for each. What can't be written then is left to the task.

use super::session::{End, Session};
use std::fmt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// The place of a session.
#[derive(Default)]
pub(super) struct Seat(Mutex<Option<Session>>);

/// While this is there, a session is in its place, if nothing ended it.
pub(super) struct Seated<'s>(&'s Seat);

impl Seat {
    /// Puts a session in until the task that runs it ends.
    pub(super) fn hold(&self, session: Session) -> Seated<'_> {
        self.put(session);
        Seated(self)
    }

    fn put(&self, session: Session) {
        *self.lock() = Some(session);
    }

    /// Takes it out.
    pub(super) fn take(&self) -> Option<Session> {
        self.lock().take()
    }

    /// A turn of the session's own task.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<End> {
        match &mut *self.lock() {
            Some(session) => session.poll(cx),
            None => Poll::Ready(End::Broken),
        }
    }

    /// Has the session drain a stream and write what it gives. `false`, and nothing is done, if it
    /// is busy, or still has something to write.
    pub(super) fn serve(&self, id: u32) -> bool {
        let Ok(mut seat) = self.0.try_lock() else {
            return false;
        };
        let Some(session) = &mut *seat else {
            return false;
        };
        // A panic ends the connection in which it is, not the one whose turn this is.
        let served = catch_unwind(AssertUnwindSafe(|| session.serve(id)));
        served.unwrap_or_else(|_| {
            drop(seat.take());
            false
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Session>> {
        // After a panic the session is not polled any more, but dropped.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seat")
    }
}

#[cfg(test)]
mod tests {
    use crate::server::connection::{Client, Connection};
    use crate::server::held::{Drained, Farewell, Held, Kind, Place};
    use crate::server::outbox::Outbox;
    use crate::server::session::Session;
    use crate::server::socket::Socket;
    use crate::server::{Broker, Config};
    use crate::topics::channel::Batch;
    use bytes::BytesMut;
    use ganger_protocol::{Head, Op, Tail};
    use ganger_region::{Config as RegionConfig, Options, Region};
    use std::io::Read;
    use std::sync::Arc;
    use std::task::Waker;

    enum Stream {
        Panics,
        Gives(usize),
    }

    impl Held for Stream {
        fn kind(&self) -> Kind {
            Kind::Subscription
        }

        fn drain(&mut self, place: &mut Place<'_>, _: Batch) -> Drained {
            let Self::Gives(len) = self else {
                panic!("as it was told");
            };
            let tail = Tail::new(b"a", b"", &vec![7; *len]).unwrap();
            place.out.push(Head::new(Op::Message, place.id), &tail);
            Drained::Idle
        }

        fn end(self: Box<Self>, _: &mut Place<'_>) -> Farewell {
            Farewell::Ended
        }
    }

    /// A connection whose task sleeps, with this under the id 1, and its client's end.
    fn asleep(
        broker: &Arc<Broker>,
        stream: Stream,
    ) -> (Arc<Connection>, std::os::unix::net::UnixStream) {
        let (socket, client) = tokio::net::UnixStream::pair().unwrap();
        let socket = Socket::new(socket).unwrap();
        let id = broker.next_connection_id();
        let connection = Arc::new(Connection::new(id, Client::default()));
        broker.enter(&connection);
        let (received, out) = (BytesMut::new(), Outbox::default());
        let mut session = Session::new(
            Arc::clone(broker),
            Arc::clone(&connection),
            socket,
            received,
            out,
        );
        session.hold(1, Box::new(stream));
        connection.seat.put(session);
        assert!(connection.sleep(Waker::noop()));
        let client = client.into_std().unwrap();
        (connection, client)
    }

    fn broker() -> Arc<Broker> {
        let region = Region::create(&RegionConfig::new(1 << 20), Options::new()).unwrap();
        Arc::new(Broker::new(Config::default(), region).unwrap())
    }

    #[tokio::test]
    async fn what_comes_for_one_that_sleeps_is_written_at_once() {
        let broker = broker();
        let (connection, mut client) = asleep(&broker, Stream::Gives(100));
        connection.serve(1);
        let mut bytes = [0; 200];
        let read = client.read(&mut bytes).unwrap();
        assert!(read > 100 && bytes[..read].ends_with(&[7; 100]));
        // Its task was not needed.
        assert!(connection.sleep(Waker::noop()));
    }

    #[tokio::test]
    async fn what_the_socket_does_not_take_is_left_to_the_task() {
        let broker = broker();
        let (connection, _client) = asleep(&broker, Stream::Gives(1 << 20));
        assert!(connection.seat.serve(1));
        let session = connection.seat.take().unwrap();
        assert!((1..1 << 20).contains(&session.out.bytes()));
        // While that waits, nobody else puts more before it.
        connection.seat.put(session);
        assert!(!connection.seat.serve(1));
    }

    #[tokio::test]
    async fn a_panic_ends_the_connection_it_is_in() {
        let broker = broker();
        let (healthy, _healthy_client) = asleep(&broker, Stream::Gives(1));
        let (connection, mut client) = asleep(&broker, Stream::Panics);
        connection.serve(1);
        assert!(connection.seat.take().is_none());
        assert!(broker.connection(connection.id).is_none());
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        assert!(broker.connection(healthy.id).is_some());
    }
}
