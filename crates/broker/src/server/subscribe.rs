//! Subscribing: the beginning, the stream, and the end.

use super::broker::CHANNEL_EPOCHS;
use super::held::{Drained, Farewell, Held, Kind, Place};
use super::reference;
use super::request;
use super::session::Session;
use crate::message::Message;
use crate::topics::channel::{self, Batch, Delivery, Wish};
use crate::topics::group::MemberOptions;
use crate::topics::{Joined, Membership, SubscribeError, Subscription};
use ganger_protocol::pubsub::{Gap, GapCause, Policy, Position, Start, Subscribe, Subscribed};
use ganger_protocol::{ErrorBody, ErrorCode, Flags, Frame, Group, Head, Op, Pattern};
use std::collections::VecDeque;
use std::sync::Arc;

pub(super) fn handle(session: &mut Session, frame: &Frame) -> Result<(), ErrorBody> {
    let asked: Subscribe = frame.body()?;
    let pattern: Pattern = asked.pattern.parse()?;
    let limit = session.broker.limits().subscriptions;
    if session.held_of(Kind::Subscription) >= limit {
        let error = ErrorBody::from(ErrorCode::TooManySubscriptions);
        return Err(error.limit(limit));
    }
    match &asked.group {
        Some(_) if asked.responds => {
            let why = "those who answer requests are a group already";
            Err(ErrorBody::new(ErrorCode::Invalid, why))
        }
        Some(group) => {
            let group: Group = group.parse()?;
            join(session, frame.head.id, &pattern, Some(&group), &asked)
        }
        None if asked.responds => join(session, frame.head.id, &pattern, None, &asked),
        None => subscribe(session, frame.head.id, &pattern, &asked),
    }
}

fn subscribe(
    session: &mut Session,
    id: u32,
    pattern: &Pattern,
    asked: &Subscribe,
) -> Result<(), ErrorBody> {
    let broker = Arc::clone(&session.broker);
    let (wish, resumes) = wish(asked, broker.limits().block_ms);
    let who = session.subscriber(id);
    let joined = broker
        .topics
        .subscribe(pattern, who, wish, resumes, &mut session.effects)?;
    let Joined {
        epoch, next, head, ..
    } = joined;
    let subscribed = Subscribed {
        next: Position { epoch, seq: next },
        replayed: head - next,
    };
    session.reply(id, &subscribed);
    if joined.is_another {
        session.reply(id, &gap_of_another(resumes, broker.epoch));
    }
    let mut retained = VecDeque::new();
    if asked.start == Start::Last {
        retained.extend(broker.topics.retained_for(pattern));
    }
    if joined.is_ready || !retained.is_empty() {
        session.ready(id);
    }
    let stream = Stream {
        is_behind: matches!(asked.start, Start::From(_)),
        replay_until: head,
        retained,
        subscription: joined.subscription,
    };
    session.hold(id, Box::new(stream));
    Ok(())
}

fn join(
    session: &mut Session,
    id: u32,
    pattern: &Pattern,
    group: Option<&Group>,
    asked: &Subscribe,
) -> Result<(), ErrorBody> {
    let broker = Arc::clone(&session.broker);
    let most = u32::try_from(broker.limits().unacknowledged).unwrap_or(u32::MAX);
    let options = MemberOptions {
        cap: asked.max_unacknowledged.unwrap_or(most).clamp(1, most),
        redeliver: asked.redeliver && group.is_some(),
    };
    let who = session.subscriber(id);
    let name = group.map(Group::as_str);
    let membership = broker
        .topics
        .join(pattern, name, who, options, &mut session.effects)?;
    let next = Position {
        epoch: broker.epoch,
        seq: 1,
    };
    session.reply(id, &Subscribed { next, replayed: 0 });
    let responds = group.is_none();
    session.hold(
        id,
        Box::new(Member {
            membership,
            responds,
        }),
    );
    Ok(())
}

fn wish(asked: &Subscribe, block_ms: u64) -> (Wish, Option<u64>) {
    let (start, resumes) = match asked.start {
        Start::LastN(count) => (channel::Start::Last(count), None),
        Start::From(position) => (channel::Start::From(position.seq), Some(position.epoch)),
        _ => (channel::Start::New, None),
    };
    let policy = match asked.policy {
        Policy::Conflate => channel::Policy::Conflate,
        Policy::Block { ms } => channel::Policy::Block {
            wait_ms: ms.min(block_ms),
        },
        Policy::Disconnect => channel::Policy::Disconnect,
        _ => channel::Policy::DropOldest,
    };
    let wish = Wish {
        policy,
        start,
        max_lag: asked.max_lag,
        no_echo: asked.no_echo,
    };
    (wish, resumes)
}

/// What is told to one whose channel is not there any more: how much it missed, nobody knows.
fn gap_of_another(resumes: Option<u64>, epoch: u64) -> Gap {
    let is_of_this_run = resumes.is_some_and(|resumed| resumed >= epoch + CHANNEL_EPOCHS);
    Gap {
        from: 0,
        to: 0,
        count: None,
        cause: match is_of_this_run {
            true => GapCause::Expired,
            false => GapCause::Restart,
        },
    }
}

/// A subscription to a channel.
struct Stream {
    subscription: Subscription,
    /// Last messages that are still to be sent, before all others.
    retained: VecDeque<Arc<Message>>,
    /// Messages below this number are older than the subscription.
    replay_until: u64,
    /// Whether the first gap is one of messages that were gone before it began.
    is_behind: bool,
}

impl Held for Stream {
    fn kind(&self) -> Kind {
        Kind::Subscription
    }

    fn drain(&mut self, place: &mut Place<'_>, batch: Batch) -> Drained {
        if let Some(message) = self.retained.pop_front() {
            let flags = flags_of(&message).with(Flags::RETAIN);
            let head = Head::new(Op::Message, place.id).flags(flags);
            reference::push(place, head, message.tail());
            return Drained::More;
        }
        let Place {
            broker,
            connection,
            id,
            out,
            effects,
        } = place;
        let mut messages = 0;
        let (replay_until, is_behind) = (self.replay_until, &mut self.is_behind);
        // The channel is locked meanwhile; what a reference needs would take too long.
        let mut references = Vec::new();
        let drained = self.subscription.drain(batch, effects, |item| match item {
            Delivery::Message(seq, message) => {
                messages += 1;
                let mut flags = flags_of(message);
                if seq < replay_until {
                    flags = flags.with(Flags::REPLAY);
                }
                let head = Head::new(Op::Message, *id).flags(flags).seq(seq);
                if flags.has(Flags::BY_REFERENCE) || !references.is_empty() {
                    references.push((head, Arc::clone(message)));
                } else {
                    out.push(head, message.tail());
                }
            }
            Delivery::Gap(gap) => {
                let cause = match std::mem::take(is_behind) {
                    true => GapCause::Expired,
                    false => GapCause::Slow,
                };
                broker.counters.gaps.count();
                broker.counters.messages_lost.add(gap.lost);
                connection.traffic.lost.add(gap.lost);
                let gap = Gap {
                    from: gap.from,
                    to: gap.to - 1,
                    count: Some(gap.lost),
                    cause,
                };
                out.control(*id, &gap);
            }
        });
        broker.counters.messages_delivered.add(messages);
        for (head, message) in references {
            reference::push(place, head, message.tail());
        }
        match drained {
            channel::Drained::Idle => Drained::Idle,
            channel::Drained::More => Drained::More,
            channel::Drained::Overrun => {
                place.broker.counters.too_slow_subscriptions.count();
                Drained::Ended(ErrorCode::TooSlow.into())
            }
        }
    }

    fn end(self: Box<Self>, place: &mut Place<'_>) -> Farewell {
        let now_ms = place.broker.now_ms();
        let topics = &place.broker.topics;
        topics.unsubscribe(self.subscription, now_ms, place.effects);
        if let Some(at_ms) = topics.next_deadline() {
            place.broker.timer.arm(at_ms);
        }
        Farewell::Ended
    }
}

/// What of a message's flags its subscribers see.
fn flags_of(message: &Message) -> Flags {
    Flags(message.flags().0 & Flags::BY_REFERENCE.0)
}

/// A place in a queue group, or among those who answer requests. Its messages come by themselves.
struct Member {
    membership: Membership,
    responds: bool,
}

impl Held for Member {
    fn kind(&self) -> Kind {
        Kind::Subscription
    }

    fn ack(&mut self, place: &mut Place<'_>, seq: u64, up_to: bool) {
        if self.responds {
            return;
        }
        match up_to {
            true => drop(self.membership.ack_up_to(seq, place.effects)),
            false => drop(self.membership.ack(seq, place.effects)),
        }
    }

    fn end(self: Box<Self>, place: &mut Place<'_>) -> Farewell {
        let broker = place.broker;
        if self.responds {
            request::responder_ended(place);
        }
        broker
            .topics
            .quit(self.membership, broker.now_ms(), place.effects);
        if let Some(at_ms) = broker.topics.next_deadline() {
            broker.timer.arm(at_ms);
        }
        Farewell::Ended
    }
}

impl From<SubscribeError> for ErrorBody {
    fn from(error: SubscribeError) -> Self {
        use crate::topics::group::GroupJoinError;
        let text = error.to_string();
        match error {
            SubscribeError::Topics { limit } => {
                Self::new(ErrorCode::TooManyChannels, text).limit(limit)
            }
            SubscribeError::Group(GroupJoinError::Full { limit }) => {
                Self::new(ErrorCode::TooManySubscriptions, text).limit(limit)
            }
            SubscribeError::Group(_) => Self::new(ErrorCode::IdInUse, text),
        }
    }
}
