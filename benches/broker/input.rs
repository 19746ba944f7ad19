//! Bytes that a hand-written client has read, in one piece of memory that is filled again and again.

use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::io::Read;
use std::os::unix::net::UnixStream;

/// Bytes that are read at once, at least.
const READ_LEN: usize = 1 << 18;

pub(crate) struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; 2 * READ_LEN],
            start: 0,
            end: 0,
        }
    }

    /// What was read and not taken yet.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Takes so many bytes.
    pub(crate) fn advance(&mut self, len: usize) {
        self.start += len;
    }

    /// Waits for more.
    pub(crate) fn fill(&mut self, stream: &mut impl Read) {
        self.make_room();
        let read = stream.read(&mut self.bytes[self.end..]).unwrap();
        assert!(read > 0, "the server closed the connection");
        self.end += read;
    }

    /// Whether something is unread, or has come meanwhile.
    #[allow(dead_code)] // benches/store does not ask
    pub(crate) fn has_more(&mut self, stream: &UnixStream) -> bool {
        if self.unread().is_empty() {
            self.make_room();
            let into = &mut self.bytes[self.end..];
            match rustix::net::recv(stream, into, RecvFlags::DONTWAIT) {
                Ok((read, _)) => self.end += read,
                Err(Errno::AGAIN) => {}
                Err(error) => panic!("{error}"),
            }
        }
        !self.unread().is_empty()
    }

    fn make_room(&mut self) {
        if self.bytes.len() - self.end < READ_LEN || self.start == self.end {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= std::mem::take(&mut self.start);
        }
        if self.bytes.len() - self.end < READ_LEN {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
    }

    /// Waits until there are so many bytes, and returns them.
    pub(crate) fn at_least(&mut self, len: usize, stream: &mut impl Read) -> &[u8] {
        while self.unread().len() < len {
            self.fill(stream);
        }
        &self.unread()[..len]
    }

    /// Waits for a line that ends with CR LF, and returns it without.
    pub(crate) fn line(&mut self, stream: &mut impl Read) -> &[u8] {
        let mut seen = 0;
        let len = loop {
            let unread = self.unread();
            if let Some(end) = unread[seen..].iter().position(|&byte| byte == b'\n') {
                break seen + end;
            }
            seen = unread.len();
            self.fill(stream);
        };
        let start = self.start;
        self.start += len + 1;
        &self.bytes[start..start + len - 1]
    }
}
