//! NATS over loopback TCP; its server has no Unix socket.

use crate::link::{Publish, Receive, SERVICE, SUBJECT};
use std::io::{Read, Write};
use std::net::TcpStream;

pub(crate) struct Nats {
    stream: TcpStream,
    out: Vec<u8>,
    input: Vec<u8>,
    start: usize,
}

impl Nats {
    pub(crate) fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut nats = Self {
            stream,
            out: Vec::with_capacity(1 << 20),
            input: Vec::new(),
            start: 0,
        };
        nats.out
            .extend_from_slice(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
        nats.flush();
        nats
    }

    pub(crate) fn subscribed(address: &str, subject: &str) -> Self {
        let mut nats = Self::connect(address);
        write!(nats.out, "SUB {subject} 1\r\n").unwrap();
        nats.flush();
        nats
    }

    pub(crate) fn replying(address: &str) -> Self {
        Self::subscribed(address, SERVICE)
    }

    pub(crate) fn asking(address: &str) -> Self {
        Self::subscribed(address, "_inbox.bench")
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask(&mut self, payload: &[u8]) {
        self.put(SERVICE, "_inbox.bench", payload);
        self.send();
        let mut answered = false;
        while !answered {
            self.receive(&mut |_| answered = true);
        }
    }

    /// Answers what comes with the same.
    pub(crate) fn serve(&mut self) {
        let mut payload = Vec::new();
        self.receive(&mut |asked| payload = asked.to_vec());
        self.put("_inbox.bench", "", &payload);
        self.send();
    }

    fn put(&mut self, subject: &str, reply_to: &str, payload: &[u8]) {
        write!(self.out, "PUB {subject} {reply_to} {}\r\n", payload.len()).unwrap();
        self.out.extend_from_slice(payload);
        self.out.extend_from_slice(b"\r\n");
    }

    fn send(&mut self) {
        self.stream.write_all(&self.out).unwrap();
        self.out.clear();
    }

    fn fill(&mut self) {
        self.input.drain(..self.start);
        self.start = 0;
        let len = self.input.len();
        self.input.resize(len + (1 << 18), 0);
        let read = self.stream.read(&mut self.input[len..]).unwrap();
        assert!(read > 0, "nats closed the connection");
        self.input.truncate(len + read);
    }

    /// The next protocol line, without its end.
    fn line(&mut self) -> String {
        loop {
            let rest = &self.input[self.start..];
            if let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&rest[..end]).into_owned();
                self.start += end + 2;
                return line;
            }
            self.fill();
        }
    }

    /// Handles one line; whether it was the answer to a PING.
    fn step(&mut self, each: &mut dyn FnMut(&[u8])) -> bool {
        let line = self.line();
        if line.starts_with("MSG ") {
            let len: usize = line.rsplit(' ').next().unwrap().parse().unwrap();
            while self.input.len() - self.start < len + 2 {
                self.fill();
            }
            each(&self.input[self.start..self.start + len]);
            self.start += len + 2;
        } else if line == "PING" {
            self.out.extend_from_slice(b"PONG\r\n");
            self.send();
        }
        assert!(!line.starts_with("-ERR"), "{line}");
        line == "PONG"
    }
}

impl Publish for Nats {
    fn publish(&mut self, payload: &[u8]) {
        self.put(SUBJECT, "", payload);
    }

    fn flush(&mut self) {
        self.out.extend_from_slice(b"PING\r\n");
        self.send();
        while !self.step(&mut |_| {}) {}
    }

    fn batch(&self) -> usize {
        // Each flush waits for an answer; more at a time let it wait less often.
        1024
    }
}

impl Receive for Nats {
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) {
        let mut received = false;
        while !received || self.start < self.input.len() {
            self.step(&mut |payload| {
                received = true;
                each(payload);
            });
        }
    }
}
