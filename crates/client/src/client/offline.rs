//! What is to be published while there is no connection: a bounded queue, whose every message has
//! its fate told.

use super::error::Error;
use super::link::later;
use super::settings::Settings;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub(crate) struct Offline {
    queue: VecDeque<Unsent>,
    bytes: usize,
    tickets: u64,
    messages_max: usize,
    bytes_max: usize,
    time: Duration,
}

struct Unsent {
    ticket: u64,
    frame: Bytes,
    expires: Instant,
    /// Nobody is told of what had been sent, as far as its publisher knows, when the connection was
    /// lost.
    told: Option<oneshot::Sender<Result<(), Error>>>,
}

/// The fate of a message, to be told.
pub(crate) type Fate = oneshot::Receiver<Result<(), Error>>;

impl Offline {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            tickets: 0,
            messages_max: settings.offline_messages,
            bytes_max: settings.offline_bytes,
            time: settings.offline_time,
        }
    }

    /// Keeps a frame for later. The ticket takes it back.
    pub(crate) fn push(&mut self, frame: Bytes) -> Result<(u64, Fate), Error> {
        if !self.has_room(frame.len()) {
            return Err(Error::BufferFull);
        }
        let (told, fate) = oneshot::channel();
        self.tickets += 1;
        self.bytes += frame.len();
        self.queue.push_back(Unsent {
            ticket: self.tickets,
            frame,
            expires: later(Instant::now(), self.time),
            told: Some(told),
        });
        Ok((self.tickets, fate))
    }

    /// Keeps frames that a lost connection did not take, before all others.
    pub(crate) fn push_front(&mut self, frames: Vec<Bytes>) {
        for frame in frames.into_iter().rev() {
            if !self.has_room(frame.len()) {
                continue;
            }
            self.bytes += frame.len();
            self.queue.push_front(Unsent {
                ticket: 0,
                frame,
                expires: later(Instant::now(), self.time),
                told: None,
            });
        }
    }

    /// Whoever published it does not want it sent any more.
    pub(crate) fn take_back(&mut self, ticket: u64) {
        if let Some(at) = self.queue.iter().position(|unsent| unsent.ticket == ticket) {
            self.remove(at);
        }
    }

    /// Writes all of it to `out`.
    pub(crate) fn send(&mut self, out: &mut BytesMut) {
        while let Some(unsent) = self.remove(0) {
            out.extend_from_slice(&unsent.frame);
            unsent.tell(Ok(()));
        }
    }

    /// Drops what has waited too long; returns when the next one will have.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Instant> {
        loop {
            match self.queue.front()?.expires {
                expires if expires > now => return Some(expires),
                _ => {}
            }
            if let Some(unsent) = self.remove(0) {
                unsent.tell(Err(Error::Expired));
            }
        }
    }

    /// Drops all of it.
    pub(crate) fn fail(&mut self, error: &Error) {
        while let Some(unsent) = self.remove(0) {
            unsent.tell(Err(error.clone()));
        }
    }

    fn has_room(&self, len: usize) -> bool {
        self.queue.len() < self.messages_max && self.bytes + len <= self.bytes_max
    }

    fn remove(&mut self, at: usize) -> Option<Unsent> {
        let unsent = self.queue.remove(at)?;
        self.bytes -= unsent.frame.len();
        Some(unsent)
    }
}

impl Unsent {
    fn tell(self, fate: Result<(), Error>) {
        if let Some(told) = self.told {
            // Whoever does not listen does not care.
            let _ = told.send(fate);
        }
    }
}
