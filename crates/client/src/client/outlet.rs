//! Writing to the socket from where something is said, rather than from the task that owns it.
//!
//! What handles write gathers until the task runs, and goes out in one piece. One who says much
//! without ever waiting would gather a lot before the task has its turn, and the broker would have
//! nothing to do meanwhile: so when enough has come together, the handle writes it itself. So it does where
//! somebody asks and waits, and nothing else is on its way: then there is nothing to gather.

use bytes::BytesMut;
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::os::fd::OwnedFd;

/// Bytes that are worth a system call of their own.
const WORTH: usize = 16 << 10;
/// Urgent writes in a row after which more of the same is expected.
const HABIT: u8 = 16;

/// The way out, beside the task's.
#[derive(Default)]
pub(crate) struct Outlet {
    socket: Option<OwnedFd>,
    /// Bytes at the beginning of what waits that are written already.
    sent: usize,
    /// The task has something in hand that comes first.
    is_taken: bool,
    /// What is written now is worth a system call, however little it is.
    is_urgent: bool,
    /// Urgent writes since the last that was not.
    urgent: u8,
}

impl Outlet {
    /// To a new connection; without a descriptor for it, only the task writes.
    pub(crate) fn new(socket: Option<OwnedFd>) -> Self {
        Self {
            socket,
            ..Self::default()
        }
    }

    /// Says of what is written next that it is not to wait for more.
    pub(crate) fn hurry(&mut self) {
        self.is_urgent = true;
    }

    /// Writes what waits, if that is much or urgent and nothing comes before it. `true` if nothing is
    /// left; otherwise the task goes on with it.
    #[inline]
    pub(crate) fn pour(&mut self, out: &mut BytesMut) -> bool {
        let is_urgent = std::mem::take(&mut self.is_urgent);
        self.urgent = if is_urgent {
            self.urgent.saturating_add(1)
        } else {
            0
        };
        !self.is_taken && (is_urgent || out.len() >= WORTH) && self.write(out)
    }

    /// Whether those who write here ask one thing after another, and do nothing else.
    pub(crate) fn only_asks(&self) -> bool {
        self.urgent >= HABIT
    }

    fn write(&mut self, out: &mut BytesMut) -> bool {
        let Some(socket) = &self.socket else {
            return false;
        };
        while self.sent < out.len() {
            match rustix::net::send(socket, &out[self.sent..], SendFlags::NOSIGNAL) {
                Ok(len) => self.sent += len,
                Err(Errno::INTR) => {}
                Err(_) => {
                    // Whether it is full or broken, the task will find out.
                    self.is_taken = true;
                    return false;
                }
            }
        }
        out.clear();
        self.sent = 0;
        true
    }

    /// The task takes all that waits; returns how much of it is written already.
    pub(crate) fn take(&mut self) -> usize {
        self.is_taken = true;
        std::mem::take(&mut self.sent)
    }

    /// The task has written all that it took.
    pub(crate) fn give_back(&mut self) {
        self.is_taken = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn much_goes_out_at_once_in_order_and_the_task_gets_the_rest() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut outlet = Outlet::new(Some(ours.into()));
        let mut out = BytesMut::from(&[1; WORTH - 1][..]);
        assert!(!outlet.pour(&mut out), "it is not worth it");
        out.extend_from_slice(&[2]);
        assert!(outlet.pour(&mut out) && out.is_empty());

        // More than the socket takes.
        out.resize(16 << 20, 3);
        assert!(!outlet.pour(&mut out));
        let written = outlet.take();
        assert!((1..16 << 20).contains(&written));
        let mut later = BytesMut::from(&[4; WORTH][..]);
        assert!(!outlet.pour(&mut later), "what the task has comes first");
        outlet.give_back();
        let mut received = vec![0; WORTH + written];
        theirs.read_exact(&mut received).unwrap();
        let expected = [vec![1; WORTH - 1], vec![2], vec![3; written]].concat();
        assert!(received == expected);
        assert!(outlet.pour(&mut later));
    }

    #[test]
    fn what_is_urgent_goes_out_at_once_and_what_comes_behind_it_waits() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut outlet = Outlet::new(Some(ours.into()));
        let mut out = BytesMut::from(&b"first"[..]);
        outlet.hurry();
        assert!(outlet.pour(&mut out) && out.is_empty());
        out.extend_from_slice(b"second");
        assert!(!outlet.pour(&mut out));
        // It is not urgent any more when the task has given back what came first.
        outlet.take();
        outlet.hurry();
        assert!(!outlet.pour(&mut out));
        outlet.give_back();
        assert!(!outlet.pour(&mut out));
        let mut received = [0; 5];
        theirs.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"first");
    }

    #[test]
    fn many_urgent_writes_in_a_row_are_a_habit_until_one_is_not() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut outlet = Outlet::new(Some(ours.into()));
        let mut write = |is_urgent| {
            if is_urgent {
                outlet.hurry();
            }
            outlet.pour(&mut BytesMut::from(&b"x"[..]));
            outlet.only_asks()
        };
        assert!((1..HABIT).all(|_| !write(true)));
        assert!((0..300).all(|_| write(true)));
        assert!(!write(false));
        assert!(!write(true));
    }
}
