//! NATS over loopback TCP; its server has no Unix socket.

use crate::input::Input;
use crate::link::{Publish, Receive, SERVICE, SUBJECT};
use std::io::Write;
use std::net::TcpStream;

pub(crate) struct Nats {
    stream: TcpStream,
    out: Vec<u8>,
    input: Input,
}

impl Nats {
    pub(crate) fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut nats = Self {
            stream,
            out: Vec::with_capacity(1 << 20),
            input: Input::new(),
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

    /// Handles one line; whether it was the answer to a PING.
    fn step(&mut self, each: &mut dyn FnMut(&[u8])) -> bool {
        let line = std::str::from_utf8(self.input.line(&mut self.stream)).unwrap();
        assert!(!line.starts_with("-ERR"), "{line}");
        let (is_ping, is_pong) = (line == "PING", line == "PONG");
        if line.starts_with("MSG ") {
            let len: usize = line.rsplit(' ').next().unwrap().parse().unwrap();
            each(&self.input.at_least(len + 2, &mut self.stream)[..len]);
            self.input.advance(len + 2);
        } else if is_ping {
            self.out.extend_from_slice(b"PONG\r\n");
            self.send();
        }
        is_pong
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

    fn send_one(&mut self, payload: &[u8]) {
        self.publish(payload);
        self.send();
    }

    fn batch(&self, _payload_len: usize) -> usize {
        // Each flush waits for an answer; more at a time let it wait less often.
        1024
    }
}

impl Receive for Nats {
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) {
        let mut received = false;
        while !received || !self.input.unread().is_empty() {
            self.step(&mut |payload| {
                received = true;
                each(payload);
            });
        }
    }
}
