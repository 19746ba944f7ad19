//! Redis over its Unix socket, as a careful client would use it: commands in batches, answers read
//! in large pieces.

use crate::input::Input;
use crate::link::{Publish, Receive, Store, SUBJECT};
use std::io::Write;
use std::os::unix::net::UnixStream;

/// Publications whose answers are not waited for yet.
const WINDOW: usize = 1024;

pub(crate) struct Redis {
    stream: UnixStream,
    out: Vec<u8>,
    input: Input,
    unanswered: usize,
}

impl Redis {
    pub(crate) fn connect(address: &str) -> Self {
        Self {
            stream: UnixStream::connect(address).unwrap(),
            out: Vec::with_capacity(1 << 20),
            input: Input::new(),
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

    /// The kind of the next line, and its number if it has one.
    fn line(&mut self) -> (u8, Option<usize>) {
        let line = self.input.line(&mut self.stream);
        let text = std::str::from_utf8(line).unwrap();
        assert!(matches!(line[0], b':' | b'+' | b'$' | b'*'), "{text}");
        (line[0], text[1..].parse().ok())
    }

    /// An answer that is no array: a number, a status, or a string, which `each` gets.
    fn answer(&mut self, each: &mut dyn FnMut(&[u8])) {
        let (kind, number) = self.line();
        assert!(kind != b'*', "an array");
        // $-1: no such key
        if let (b'$', Some(len)) = (kind, number) {
            each(&self.input.at_least(len + 2, &mut self.stream)[..len]);
            self.input.advance(len + 2);
        }
    }

    fn answers(&mut self, count: usize) {
        (0..count).for_each(|_| self.answer(&mut |_| {}));
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
        self.answers(self.unanswered.saturating_sub(WINDOW));
        self.unanswered = self.unanswered.min(WINDOW);
    }

    fn settle(&mut self) {
        while self.unanswered > 0 && self.input.has_more(&self.stream) {
            self.answers(1);
            self.unanswered -= 1;
        }
    }

    fn end(&mut self) {
        self.send();
        self.answers(self.unanswered);
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
            if self.input.unread().is_empty() {
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
        self.answers(keys.len());
    }

    fn incr(&mut self, keys: &[[u8; 16]]) {
        keys.iter().for_each(|key| self.command(&[b"INCR", key]));
        self.send();
        self.answers(keys.len());
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
