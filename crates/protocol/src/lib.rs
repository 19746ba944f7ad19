//! Wire messages and frame codec of Ganger's broker.
//!
//! Pure: no I/O, no clock, no randomness. The bytes are written down in `docs/protocol.md`, enough
//! for a client in another language.
//!
//! A [`Frame`] is a fixed header ([`Head`]) and a [`Tail`]: subject, headers, payload. The broker
//! routes by these without decoding the payload, and sends one tail to many subscribers, each with
//! a head of its own. What only the two ends of a connection say to each other is MessagePack in
//! the payload: the types of [`hello`], [`pubsub`], [`kv`], [`watch`], [`lease`] and [`admin`].
//!
//! ```
//! use bytes::BytesMut;
//! use ganger_protocol::{Frame, FrameCodec, Head, Limits, Op, Tail};
//! use tokio_util::codec::{Decoder, Encoder};
//!
//! let tail = Tail::new(b"orders.new", b"", b"7 pears")?;
//! let publish = Frame::new(Head::new(Op::Publish, 1), tail);
//!
//! let mut codec = FrameCodec::new(&Limits::default());
//! let mut wire = BytesMut::new();
//! codec.encode(&publish, &mut wire)?;
//! let received = codec.decode(&mut wire)?.expect("all of it is there");
//! assert_eq!(received.subject(), b"orders.new");
//! assert_eq!(received, publish);
//! # Ok::<(), ganger_protocol::FrameError>(())
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

// The bytes.
mod codec;
mod frame;
pub mod headers;
pub mod limits;
mod op;
mod reference;
mod view;
// Names.
mod subject;
// What is said in them.
pub mod admin;
mod body;
pub mod error;
pub mod hello;
pub mod kv;
pub mod kv_fast;
pub mod lease;
pub mod pubsub;
pub mod request;
pub mod watch;

pub use body::{Body, DecodeError, EncodeError};
pub use codec::FrameCodec;
pub use error::{ErrorBody, ErrorCode};
pub use frame::{write_frame, Frame, FrameError, Head, Tail, LAYOUT_VERSION};
pub use limits::Limits;
pub use op::{Flags, Op};
pub use reference::Reference;
pub use subject::{check_subject, Group, Pattern, Subject, SubjectError};
pub use view::FrameView;
