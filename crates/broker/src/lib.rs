//! Ganger's broker: messages between the processes of a machine, and what they agree on.
//!
//! What is here decides; only [`server`] acts. Time is an argument (milliseconds, from a clock that never
//! goes back), connections are numbers, and what has to be done for others is returned: so all of
//! it is tested without a socket, a clock or a runtime. [`snapshot`], too, does more than
//! decide: it writes files.
//!
//! ```
//! use ganger_broker::ids::Subscriber;
//! use ganger_broker::message::Message;
//! use ganger_broker::topics::channel::{Batch, Delivery, Wish};
//! use ganger_broker::topics::{Effects, Topics};
//! use ganger_protocol::Limits;
//! use std::sync::Arc;
//!
//! let topics = Topics::new((&Limits::default()).into(), 1);
//! let mut effects = Effects::default();
//! let who = Subscriber::new(7, 1);
//! let joined = topics.subscribe(&"orders.*".parse()?, who, Wish::default(), None, &mut effects)?;
//!
//! let message = Arc::new(Message::plain(b"orders.new", b"7 pears")?);
//! topics.publish(&message, &mut effects)?;
//! assert_eq!(effects.wake, [who]);
//!
//! let batch = Batch { messages: 100, bytes: 65_536 };
//! joined.subscription.drain(batch, &mut effects, |item| {
//!     assert_eq!(item, Delivery::Message(1, &message));
//! });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Modules, in reading order

#![forbid(unsafe_code)]
#![warn(missing_docs)]

// What all of them speak of.
pub mod ids;
pub mod message;
pub mod read_memory;
pub mod reserved;
// Who gets which message.
pub mod topics;
// Who waits for what.
pub mod leases;
pub mod requests;
// What outlives the machine's being on.
pub mod snapshot;
// What it does besides passing messages on.
pub mod services;
// All of it on a socket.
pub mod server;
