//! Redis over its Unix socket, as a careful client would use it: commands in batches, answers read
//! in large pieces.

use crate::link::{Publish, Receive, Store, SUBJECT};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

pub(crate) struct Redis {
    stream: UnixStream,
    out: Vec<u8>,
    input: Vec<u8>,
    start: usize,
    unanswered: usize,
}

impl Redis {
    pub(crate) fn connect(address: &str) -> Self {
        Self {
            stream: UnixStream::connect(address).unwrap(),
            out: Vec::with_capacity(1 << 20),
            input: Vec::new(),
            start: 0,
            unanswered: 0,
        }
    }

    pub(crate) fn subscribed(address: &str) -> Self {
        let mut redis = Self::connect(address);
        redis.command(&[b"SUBSCRIBE", SUBJECT.as_bytes()]);
        redis.send();
        // An array of three: "subscribe", the channel, how many there are now.
        redis.array(3, &mut |_, _| {});
        redis
    }

    fn command(&mut self, words: &[&[u8]]) {
        write!(self.out, "*{}\r\n", words.len()).unwrap();
        for word in words {
            write!(self.out, "${}\r\n", word.len()).unwrap();
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
        }
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
        assert!(read > 0, "redis closed the connection");
        self.input.truncate(len + read);
    }

    /// The next line, as a range of the input.
    fn line(&mut self) -> std::ops::Range<usize> {
        let mut seen = self.start;
        loop {
            if let Some(end) = self.input[seen..].iter().position(|&byte| byte == b'\n') {
                let line = self.start..seen + end - 1;
                self.start = seen + end + 1;
                return line;
            }
            let (before, scanned) = (self.start, self.input.len());
            self.fill();
            seen = scanned - before;
        }
    }

    /// An answer that is no array: a number, a status, or a string, which `each` gets.
    fn answer(&mut self, each: &mut dyn FnMut(&[u8])) {
        let line = self.line();
        let kind = self.input[line.start];
        if kind != b'$' {
            assert!(
                kind == b':' || kind == b'+',
                "{}",
                String::from_utf8_lossy(&self.input[line])
            );
            return;
        }
        let digits = &self.input[line.start + 1..line.end];
        let Ok(len) = std::str::from_utf8(digits).unwrap().parse::<usize>() else {
            return; // $-1: no such key
        };
        while self.input.len() - self.start < len + 2 {
            self.fill();
        }
        each(&self.input[self.start..self.start + len]);
        self.start += len + 2;
    }

    fn array(&mut self, len: usize, each: &mut dyn FnMut(usize, &[u8])) {
        self.line();
        for index in 0..len {
            self.answer(&mut |word| each(index, word));
        }
    }
}

impl Publish for Redis {
    fn publish(&mut self, payload: &[u8]) {
        self.command(&[b"PUBLISH", SUBJECT.as_bytes(), payload]);
        self.unanswered += 1;
    }

    fn flush(&mut self) {
        self.send();
        for _ in 0..std::mem::take(&mut self.unanswered) {
            self.answer(&mut |_| {});
        }
    }
}

impl Receive for Redis {
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) {
        loop {
            self.array(3, &mut |index, word| {
                if index == 2 {
                    each(word);
                }
            });
            if self.start == self.input.len() {
                return;
            }
        }
    }
}

impl Store for Redis {
    fn get(&mut self, keys: &[[u8; 16]]) {
        keys.iter().for_each(|key| self.command(&[b"GET", key]));
        self.send();
        let mut found = 0;
        keys.iter().for_each(|_| self.answer(&mut |_| found += 1));
        assert_eq!(found, keys.len());
    }

    fn set(&mut self, keys: &[[u8; 16]], value: &[u8]) {
        keys.iter()
            .for_each(|key| self.command(&[b"SET", key, value]));
        self.send();
        keys.iter().for_each(|_| self.answer(&mut |_| {}));
    }

    fn incr(&mut self, keys: &[[u8; 16]]) {
        keys.iter().for_each(|key| self.command(&[b"INCR", key]));
        self.send();
        keys.iter().for_each(|_| self.answer(&mut |_| {}));
    }

    fn get_many(&mut self, keys: &[[u8; 16]]) {
        let mut words: Vec<&[u8]> = vec![b"MGET"];
        words.extend(keys.iter().map(|key| &key[..]));
        self.command(&words);
        self.send();
        let mut found = 0;
        self.array(keys.len(), &mut |_, _| found += 1);
        assert_eq!(found, keys.len());
    }
}
