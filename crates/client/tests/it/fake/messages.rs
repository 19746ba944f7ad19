//! Messages, requests, and the end of what lasts.

use super::{Asked, State, Sub};
use ganger_protocol::hello::Ended;
use ganger_protocol::pubsub::{Gap, GapCause, Position, Start, Subscribe, Subscribed};
use ganger_protocol::request::RequestTag;
use ganger_protocol::{ErrorBody, ErrorCode, Flags, Frame, Head, Op, Pattern, Tail};

impl State {
    pub(super) fn publish(&mut self, tail: &Tail, flags: Flags) -> u64 {
        let subject = std::str::from_utf8(tail.subject()).unwrap().to_owned();
        if flags.has(Flags::RETAIN) {
            self.retained.insert(tail.subject().to_vec(), tail.clone());
        }
        let mut reached = 0;
        for (pattern, ring) in &mut self.channels {
            if pattern.parse::<Pattern>().unwrap().matches(&subject) {
                ring.push(tail.clone());
            }
        }
        let mut groups = Vec::new();
        let mut told = Vec::new();
        for sub in &self.subscriptions {
            let group = sub.asked.group.clone();
            if sub.asked.responds
                || !sub.pattern.matches(&subject)
                || group.is_some() && groups.contains(&group)
            {
                continue;
            }
            groups.push(group);
            reached += 1;
            told.push((
                sub.connection,
                sub.id,
                self.channels[sub.pattern.as_str()].len() as u64,
            ));
        }
        for (connection, id, seq) in told {
            let flags = Flags(flags.0 & Flags::BY_REFERENCE.0);
            let head = Head::new(Op::Message, id).flags(flags).seq(seq);
            self.frame(connection, &Frame::new(head, tail.clone()));
        }
        reached
    }

    pub(super) fn subscribe(
        &mut self,
        to: u64,
        id: u32,
        asked: Subscribe,
    ) -> Result<(), ErrorBody> {
        let pattern: Pattern = asked.pattern.parse()?;
        if pattern.as_str() == "refused" {
            return Err(ErrorCode::TooManySubscriptions.into());
        }
        let ring = self
            .channels
            .entry(pattern.as_str().to_owned())
            .or_default()
            .clone();
        let epoch = self.epoch;
        let (seq, gap) = match &asked.start {
            Start::From(from) if from.epoch == epoch => (from.seq, None),
            Start::From(_) => {
                let gap = Gap {
                    from: 0,
                    to: 0,
                    count: None,
                    cause: GapCause::Restart,
                };
                (ring.len() as u64 + 1, Some(gap))
            }
            Start::LastN(n) => ((ring.len() as u64 + 1).saturating_sub(*n).max(1), None),
            _ => (ring.len() as u64 + 1, None),
        };
        let replayed = ring.len() as u64 + 1 - seq;
        self.send(
            to,
            id,
            &Subscribed {
                next: Position { epoch, seq },
                replayed,
            },
        );
        if let Some(gap) = gap {
            self.send(to, id, &gap);
        }
        if asked.start == Start::Last {
            let matching: Vec<_> = self
                .retained
                .values()
                .filter(|tail| pattern.matches(std::str::from_utf8(tail.subject()).unwrap()))
                .cloned()
                .collect();
            for tail in matching {
                self.frame(
                    to,
                    &Frame::new(Head::new(Op::Message, id).flags(Flags::RETAIN), tail),
                );
            }
        }
        for (tail, seq) in ring.iter().zip(1..).skip(usize::try_from(seq).unwrap() - 1) {
            let head = Head::new(Op::Message, id).flags(Flags::REPLAY).seq(seq);
            self.frame(to, &Frame::new(head, tail.clone()));
        }
        self.subscriptions.push(Sub {
            connection: to,
            id,
            pattern,
            asked,
        });
        Ok(())
    }

    pub(super) fn cancel(&mut self, from: u64, id: u32) {
        let before = self.subscriptions.len() + self.watches.len() + self.observers.len();
        self.subscriptions
            .retain(|sub| (sub.connection, sub.id) != (from, id));
        self.watches
            .retain(|watch| (watch.0, watch.1) != (from, id));
        self.observers
            .retain(|observer| (observer.1, observer.2) != (from, id));
        let after = self.subscriptions.len() + self.watches.len() + self.observers.len();
        let held = self
            .holders
            .iter()
            .find(|(_, holder)| (holder.0, holder.1) == (from, id));
        let held = held.map(|(name, _)| name.clone());
        if before != after || held.is_some() {
            self.send(from, id, &Ended::default());
        }
        if let Some(name) = held {
            self.holders.remove(&name);
            self.grant_next(&name);
        }
        let waits = |waiter: &(String, u64, u32)| (waiter.1, waiter.2) == (from, id);
        let asks = |asked: &Asked| asked.requester == (from, id);
        if self.waiters.iter().any(waits) || self.requests.iter().any(asks) {
            self.waiters.retain(|waiter| !waits(waiter));
            self.requests.retain(|asked| !asks(asked));
            self.send(from, id, &ErrorBody::from(ErrorCode::Cancelled));
        }
    }

    pub(super) fn request(&mut self, from: u64, frame: &Frame) -> Result<(), ErrorBody> {
        let subject = std::str::from_utf8(frame.subject()).unwrap();
        let responder = self
            .subscriptions
            .iter()
            .find(|sub| sub.asked.responds && sub.pattern.matches(subject));
        let (responder, id) = responder
            .map(|sub| (sub.connection, sub.id))
            .ok_or(ErrorCode::NoResponders)?;
        let number = self.seen.len() as u64;
        let tag = RequestTag::new(number, frame.head.seq);
        let head = Head::new(Op::Request, id)
            .flags(frame.head.flags)
            .seq(tag.to_seq());
        self.requests.push(Asked {
            number,
            requester: (from, frame.head.id),
            responder,
        });
        self.frame(responder, &Frame::new(head, frame.tail.clone()));
        Ok(())
    }

    pub(super) fn reply(&mut self, frame: &Frame) {
        let number = RequestTag::from_seq(frame.head.seq).number();
        let Some(at) = self
            .requests
            .iter()
            .position(|asked| asked.number == number)
        else {
            return;
        };
        let (requester, id) = self.requests.remove(at).requester;
        let head = Head::new(Op::Reply, id).flags(frame.head.flags);
        self.frame(requester, &Frame::new(head, frame.tail.clone()));
    }
}
