//! Replies that wait for a client to read them.

use super::{Reply, REPLY_MAX};
use std::collections::VecDeque;
use std::io;
use tokio::net::UnixStream;

/// Bytes that may wait.
const WAITING_MAX: usize = 1024 * 1024;

/// Replies that wait for one client.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Reply>,
    weight: usize,
    /// Log lines that were dropped since the last one that waits.
    dropped: u64,
    /// The frame being written, and how far it got.
    frame: Vec<u8>,
    at: usize,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.at == self.frame.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.weight < WAITING_MAX
    }

    /// Takes it in. If there is no room, the oldest lines and events go: the next line says how many
    /// (events have numbers). What answers the request always stays.
    pub(super) fn push(&mut self, mut reply: Reply) {
        if !self.has_room() {
            self.drop_oldest();
        }
        if let Reply::Log(line) = &mut reply {
            line.dropped += std::mem::take(&mut self.dropped);
        }
        self.weight += weigh(&reply);
        self.waiting.push_back(reply);
    }

    /// Writes what the socket takes now.
    pub(super) fn write(&mut self, stream: &UnixStream) -> io::Result<()> {
        loop {
            if self.at == self.frame.len() && !self.next_frame() {
                return Ok(());
            }
            match stream.try_write(&self.frame[self.at..]) {
                Ok(len) => self.at += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn next_frame(&mut self) -> bool {
        let Some(reply) = self.waiting.pop_front() else {
            self.frame = Vec::new();
            self.at = 0;
            return false;
        };
        self.weight -= weigh(&reply);
        self.frame.clear();
        self.at = 0;
        super::server::encode(&reply, &mut self.frame);
        if self.frame.len() > REPLY_MAX {
            self.frame.clear();
            let failed = Reply::failed("the answer is too long for the control socket");
            super::server::encode(&failed, &mut self.frame);
        }
        true
    }

    /// Makes room for something, if what may be dropped takes it.
    fn drop_oldest(&mut self) {
        while !self.has_room() {
            let may_go = |reply: &Reply| {
                matches!(reply, Reply::Log(_) | Reply::Event(_) | Reply::Progress(_))
            };
            let Some(at) = self.waiting.iter().position(may_go) else {
                return;
            };
            let Some(gone) = self.waiting.remove(at) else {
                return;
            };
            self.weight -= weigh(&gone);
            if let Reply::Log(line) = gone {
                self.tell_dropped(line.dropped + 1);
            }
        }
    }

    fn tell_dropped(&mut self, count: u64) {
        let next = self.waiting.iter_mut().find_map(|reply| match reply {
            Reply::Log(line) => Some(line),
            _ => None,
        });
        match next {
            Some(line) => line.dropped += count,
            None => self.dropped += count,
        }
    }
}

/// About what it takes.
fn weigh(reply: &Reply) -> usize {
    256 + match reply {
        Reply::Log(line) => line.text.len() + line.app.len(),
        Reply::Event(event) | Reply::Progress(event) => event.text.len() + event.app.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::LogLine;

    fn line(number: u64) -> Reply {
        Reply::Log(LogLine {
            at_ms: number,
            app: String::new(),
            worker: 0,
            pid: 1,
            is_stderr: false,
            dropped: 0,
            text: vec![0; 768],
        })
    }

    #[test]
    fn a_reader_too_slow_loses_the_oldest_lines_and_never_the_answer() {
        let mut outbox = Outbox::default();
        outbox.push(Reply::done("first"));
        for number in 0..2000 {
            outbox.push(line(number));
        }
        outbox.push(Reply::done("last"));
        assert!(outbox.weight <= WAITING_MAX + 2048);
        assert_eq!(outbox.waiting.front(), Some(&Reply::done("first")));
        assert_eq!(outbox.waiting.back(), Some(&Reply::done("last")));
        let lines = outbox.waiting.iter().filter_map(|reply| match reply {
            Reply::Log(line) => Some(line.dropped + 1),
            _ => None,
        });
        assert_eq!(lines.sum::<u64>(), 2000);
    }
}
