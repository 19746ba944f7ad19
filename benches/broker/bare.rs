//! Ganger's protocol on a bare socket, as the hand-written clients of the others speak theirs: frames in
//! batches, answers read in large pieces.

use crate::input::Input;
use crate::link::{Publish, Receive, Store, SUBJECT};
use bytes::BytesMut;
use ganger_protocol::hello::Hello;
use ganger_protocol::kv::SetOptions;
use ganger_protocol::kv_fast::Command;
use ganger_protocol::pubsub::{Policy, Subscribe};
use ganger_protocol::{write_frame, Frame, FrameCodec, FrameView, Head, Limits, Op};
use std::io::Write;
use std::os::unix::net::UnixStream;

/// All that is asked for is answered in order, so one id does for it.
const ID: u32 = 1;

pub(crate) struct Bare {
    stream: UnixStream,
    out: BytesMut,
    input: Input,
    codec: FrameCodec,
}

impl Bare {
    pub(crate) fn connect(address: &str) -> Self {
        let mut bare = Self {
            stream: UnixStream::connect(address).unwrap(),
            out: BytesMut::with_capacity(1 << 20),
            input: Input::new(),
            codec: FrameCodec::new(&Limits::default()),
        };
        let mut hello = Hello::new("bare");
        hello.wants_region = false;
        hello.capabilities.clear();
        Frame::control(ID, &hello).unwrap().write_to(&mut bare.out);
        bare.send();
        bare.answer(Op::Welcome);
        bare
    }

    pub(crate) fn subscribed(address: &str) -> Self {
        let mut bare = Self::connect(address);
        let mut wanted = Subscribe::new(SUBJECT);
        wanted.policy = Policy::Block { ms: 1000 };
        let subscribe = Frame::control(ID, &wanted).unwrap();
        subscribe.write_to(&mut bare.out);
        bare.send();
        bare.answer(Op::Subscribed);
        bare
    }

    fn send(&mut self) {
        self.stream.write_all(&self.out).unwrap();
        self.out.clear();
    }

    /// Takes the next frame, and waits for it if need be.
    fn next(&mut self, each: impl FnOnce(&FrameView<'_>)) {
        loop {
            if let Some(frame) = self.codec.peek(self.input.unread()).unwrap() {
                each(&frame);
                let len = frame.wire_len();
                self.input.advance(len);
                return;
            }
            self.input.fill(&mut self.stream);
        }
    }

    fn answer(&mut self, op: Op) {
        self.next(|frame| assert_eq!(frame.head.op, op));
    }

    fn ask(&mut self, command: Command<'_>) {
        command.write(ID, &mut self.out).unwrap();
    }

    fn answers(&mut self, count: usize, op: Op) {
        self.send();
        (0..count).for_each(|_| self.answer(op));
    }
}

impl Publish for Bare {
    fn publish(&mut self, payload: &[u8]) {
        let head = Head::new(Op::Publish, 0);
        write_frame(&mut self.out, head, SUBJECT.as_bytes(), b"", payload).unwrap();
    }

    fn flush(&mut self) {
        // Nothing is answered: the broker does not read on while a subscriber is too far behind.
        self.send();
    }

    fn settle(&mut self) {
        // There are no answers, but who looks for them has just been in the kernel when it sends: so do both.
        assert!(!self.input.has_more(&self.stream));
    }

    fn end(&mut self) {
        Frame::bare(Head::new(Op::Ping, ID)).write_to(&mut self.out);
        self.answers(1, Op::Pong);
    }
}

impl Receive for Bare {
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) {
        loop {
            self.next(|frame| {
                assert_eq!(frame.head.op, Op::Message);
                each(frame.payload());
            });
            if self.input.unread().is_empty() {
                return;
            }
        }
    }
}

impl Store for Bare {
    fn get(&mut self, keys: &[[u8; 16]]) {
        keys.iter().for_each(|key| self.ask(Command::Get { key }));
        self.answers(keys.len(), Op::Value);
    }

    fn set(&mut self, keys: &[[u8; 16]], value: &[u8]) {
        for key in keys {
            let options = SetOptions::default();
            self.ask(Command::Set {
                key,
                value,
                options,
            });
        }
        self.answers(keys.len(), Op::Ok);
    }

    fn incr(&mut self, keys: &[[u8; 16]]) {
        keys.iter()
            .for_each(|key| self.ask(Command::Incr { key, by: 1 }));
        self.answers(keys.len(), Op::Ok);
    }
}
