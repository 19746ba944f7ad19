//! Get, set, delete and incr without MessagePack: the key in the subject slot, the value as the
//! payload, numbers in the header.

use crate::error::{ErrorBody, ErrorCode};
use crate::frame::{write_frame, Frame, FrameError, Head};
use crate::kv::SetOptions;
use crate::op::{Flags, Op};
use crate::view::FrameView;
use bytes::BytesMut;

/// One operation, borrowed from a frame or on its way into one.
///
/// ```
/// use bytes::BytesMut;
/// use ganger_protocol::kv_fast::Command;
/// use ganger_protocol::{FrameCodec, Limits};
/// use tokio_util::codec::Decoder;
///
/// let mut wire = BytesMut::new();
/// Command::Get { key: b"color" }.write(7, &mut wire)?;
/// let frame = FrameCodec::new(&Limits::default()).decode(&mut wire)?.unwrap();
/// assert_eq!(Command::of(&frame)?, Some(Command::Get { key: b"color" }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// Answered by [`Answer::Value`] or [`Answer::Nothing`].
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// Answered by [`Answer::Ok`] with the revision, or [`Answer::Nothing`] if the condition is
    /// not met.
    Set {
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
        /// What it requires of the key, and what it gives it.
        options: SetOptions,
    },
    /// Answered by [`Answer::Ok`], or [`Answer::Nothing`] if the key is not there or the condition
    /// not met.
    Delete {
        /// The key.
        key: &'a [u8],
        /// Only if its revision is this.
        if_revision: Option<u64>,
    },
    /// Answered by [`Answer::Ok`] with the sum.
    Incr {
        /// The key.
        key: &'a [u8],
        /// How much.
        by: i64,
    },
}

impl<'a> Command<'a> {
    /// The operation of a frame; `None` if it has another op.
    #[inline]
    pub fn of(frame: &'a Frame) -> Result<Option<Self>, ErrorBody> {
        Self::of_view(&frame.view())
    }

    /// The operation of a frame that was not cut off; `None` if it has another op.
    #[inline]
    pub fn of_view(frame: &FrameView<'a>) -> Result<Option<Self>, ErrorBody> {
        let (flags, seq) = (frame.head.flags, frame.head.seq);
        let key = frame.subject();
        let if_revision = flags.has(Flags::IF_REVISION).then_some(seq);
        Ok(Some(match frame.head.op {
            Op::Get => Self::Get { key },
            Op::Set => Self::Set {
                key,
                value: frame.payload(),
                options: options(flags, seq, frame.headers())?,
            },
            Op::Delete => Self::Delete { key, if_revision },
            Op::Incr => Self::Incr {
                key,
                by: seq.cast_signed(),
            },
            _ => return Ok(None),
        }))
    }

    /// Appends it to `out` as a frame.
    #[inline]
    pub fn write(&self, id: u32, out: &mut BytesMut) -> Result<(), FrameError> {
        match *self {
            Self::Get { key } => write_frame(out, Head::new(Op::Get, id), key, b"", b""),
            Self::Set {
                key,
                value,
                options,
            } => {
                let both = options
                    .if_revision
                    .and(options.ttl_ms)
                    .map(u64::to_be_bytes);
                let beside = both.as_ref().map_or(&b""[..], |ttl_ms| ttl_ms);
                write_frame(out, set_head(id, &options), key, beside, value)
            }
            Self::Delete { key, if_revision } => {
                let mut head = Head::new(Op::Delete, id);
                if let Some(revision) = if_revision {
                    head = head.flags(Flags::IF_REVISION).seq(revision);
                }
                write_frame(out, head, key, b"", b"")
            }
            Self::Incr { key, by } => {
                let head = Head::new(Op::Incr, id).seq(by.cast_unsigned());
                write_frame(out, head, key, b"", b"")
            }
        }
    }
}

/// What answers a [`Command`], if it is no [`Op::Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The value.
    Value {
        /// Its bytes.
        value: &'a [u8],
        /// Its revision.
        revision: u64,
        /// Whether it is a counter, 8 bytes little-endian.
        counter: bool,
    },
    /// Done: revision or sum (by [`u64::cast_signed`]).
    Ok(u64),
    /// Not there, or the condition not met.
    Nothing,
}

impl<'a> Answer<'a> {
    /// The answer of a frame; `None` if it has another op.
    #[inline]
    pub fn of(frame: &'a Frame) -> Option<Self> {
        match frame.head.op {
            Op::Value => Some(Self::Value {
                value: frame.payload(),
                revision: frame.head.seq,
                counter: frame.head.flags.has(Flags::COUNTER),
            }),
            Op::Ok => Some(Self::Ok(frame.head.seq)),
            Op::Nothing => Some(Self::Nothing),
            _ => None,
        }
    }

    /// Appends it to `out` as a frame.
    #[inline]
    pub fn write(&self, id: u32, out: &mut BytesMut) -> Result<(), FrameError> {
        match *self {
            Self::Value {
                value,
                revision,
                counter,
            } => {
                let flags = if counter { Flags::COUNTER } else { Flags::NONE };
                let head = Head::new(Op::Value, id).flags(flags).seq(revision);
                write_frame(out, head, b"", b"", value)
            }
            Self::Ok(number) => write_frame(out, Head::new(Op::Ok, id).seq(number), b"", b"", b""),
            Self::Nothing => write_frame(out, Head::new(Op::Nothing, id), b"", b"", b""),
        }
    }
}

fn options(flags: Flags, seq: u64, headers: &[u8]) -> Result<SetOptions, ErrorBody> {
    let invalid = |why| ErrorBody::new(ErrorCode::Invalid, why);
    let if_revision = flags.has(Flags::IF_REVISION).then_some(seq);
    let ttl_ms = match (flags.has(Flags::TTL), if_revision, headers.try_into()) {
        (false, ..) => None,
        (true, None, _) => Some(seq),
        (true, Some(_), Ok(ttl_ms)) => Some(u64::from_be_bytes(ttl_ms)),
        _ => {
            return Err(invalid(
                "a time to live beside a revision has 8 bytes as headers",
            ))
        }
    };
    let options = SetOptions {
        ttl_ms,
        if_absent: flags.has(Flags::IF_ABSENT),
        if_present: flags.has(Flags::IF_PRESENT),
        if_revision,
        keep_expiry: flags.has(Flags::KEEP_EXPIRY),
        ephemeral: flags.has(Flags::EPHEMERAL),
    };
    match options.is_sound() {
        true => Ok(options),
        false => Err(invalid("a set has one condition at most")),
    }
}

fn set_head(id: u32, options: &SetOptions) -> Head {
    let mut flags = Flags::NONE;
    for (asked, flag) in [
        (options.if_absent, Flags::IF_ABSENT),
        (options.if_present, Flags::IF_PRESENT),
        (options.keep_expiry, Flags::KEEP_EXPIRY),
        (options.ephemeral, Flags::EPHEMERAL),
    ] {
        if asked {
            flags = flags.with(flag);
        }
    }
    if options.if_revision.is_some() {
        flags = flags.with(Flags::IF_REVISION);
    }
    if options.ttl_ms.is_some() {
        flags = flags.with(Flags::TTL);
    }
    let seq = options.if_revision.or(options.ttl_ms).unwrap_or_default();
    Head::new(Op::Set, id).flags(flags).seq(seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FrameCodec, Limits};
    use tokio_util::codec::Decoder;

    fn received(mut wire: BytesMut) -> Frame {
        let mut codec = FrameCodec::new(&Limits::default());
        codec.decode(&mut wire).unwrap().unwrap()
    }

    #[test]
    fn all_sets_come_back_as_they_went_but_those_with_two_conditions_are_refused() {
        let (key, value) = (&b"key"[..], &b"value"[..]);
        for bits in 0..1 << 6 {
            let bit = |at: u32| bits >> at & 1 == 1;
            let options = SetOptions {
                ttl_ms: bit(0).then_some(1 << 50),
                if_absent: bit(1),
                if_present: bit(2),
                if_revision: bit(3).then_some(u64::MAX),
                keep_expiry: bit(4),
                ephemeral: bit(5),
            };
            let command = Command::Set {
                key,
                value,
                options,
            };
            let mut wire = BytesMut::new();
            command.write(5, &mut wire).unwrap();
            let frame = received(wire);
            assert_eq!(frame.head.flags, Flags(bits));
            match Command::of(&frame) {
                Ok(back) => assert!(options.is_sound() && back == Some(command)),
                Err(error) => assert!(!options.is_sound() && error.code == ErrorCode::Invalid),
            }
        }
        for headers in [&b""[..], b"1234567", b"123456789"] {
            let mut wire = BytesMut::new();
            let flags = Flags::TTL.with(Flags::IF_REVISION);
            write_frame(
                &mut wire,
                Head::new(Op::Set, 5).flags(flags),
                key,
                headers,
                value,
            )
            .unwrap();
            assert!(Command::of(&received(wire)).is_err());
        }
    }

    #[test]
    fn the_other_commands_and_all_answers_come_back_as_they_went() {
        let key = &b"key"[..];
        let commands = [
            Command::Get { key: b"" },
            Command::Get { key },
            Command::Incr { key, by: i64::MIN },
            Command::Incr { key, by: -1 },
            Command::Delete {
                key,
                if_revision: None,
            },
            Command::Delete {
                key,
                if_revision: Some(0),
            },
        ];
        for command in commands {
            let mut wire = BytesMut::new();
            command.write(1, &mut wire).unwrap();
            let frame = received(wire);
            assert_eq!(Command::of(&frame).unwrap(), Some(command));
            assert_eq!(Answer::of(&frame), None);
        }
        let (value, revision) = (&b"12345678"[..], 6);
        let answers = [
            Answer::Value {
                value,
                revision,
                counter: false,
            },
            Answer::Value {
                value,
                revision,
                counter: true,
            },
            Answer::Ok(u64::MAX),
            Answer::Nothing,
        ];
        for answer in answers {
            let mut wire = BytesMut::new();
            answer.write(u32::MAX, &mut wire).unwrap();
            let frame = received(wire);
            assert_eq!(
                (Answer::of(&frame), frame.head.id),
                (Some(answer), u32::MAX)
            );
            assert_eq!(Command::of(&frame).unwrap(), None);
        }
    }
}
