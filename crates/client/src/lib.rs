//! What worker code links.
//!
//! [`Kv`] is a handle on a key-value store in shared memory. Every process that has it attached
//! reads and writes it directly, at the speed of a map of its own: no server stands in between, and
//! a process that is killed at any instruction hurts nobody.
//!
//! ```no_run
//! use ganger_client::Kv;
//!
//! // The region that the supervisor (or whoever started this process) made.
//! let kv = Kv::from_env()?;
//! kv.incr("visits", 1)?;
//! # Ok::<(), ganger_client::KvError>(())
//! ```
//!
//! [`Client`] is a connection to the broker, for async programs: messages, requests, watches,
//! locks. [`blocking::Client`] is the same for all others. [`Worker`] is what a program says to its
//! supervisor.
//!
//! ```no_run
//! # async fn run() -> Result<(), ganger_client::Error> {
//! use ganger_client::Client;
//!
//! let client = Client::connect().await?;
//! let mut orders = client.subscribe("orders.*").await?;
//! client.publish("orders.new", "7 pears").await?;
//! if let Some(order) = orders.next_message().await {
//!     println!("{}: {:?}", order.subject(), order.payload());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Contents: the store
//! | what | where |
//! |---|---|
//! | make a region | [`Kv::create`], [`Kv::create_named`], [`Kv::open_or_create`], [`Config`] |
//! | attach to one | [`Kv::from_env`], [`Kv::open`], [`Kv::from_fd`], [`Kv::of_home`], [`KvOptions`] |
//! | hand it on | [`Kv::fd`], [`REGION_FD_VARIABLE`], [`REGION_VARIABLE`] |
//! | read | [`Kv::get`], [`Kv::get_into`], [`Kv::get_many`], [`Kv::exists`] |
//! | read with what is known | [`Kv::entry`], [`Kv::ttl`] |
//! | write | [`Kv::set`], [`Kv::set_for`], [`Kv::set_with`] and [`SetOptions`], [`Kv::append`] |
//! | remove | [`Kv::delete`], [`Kv::delete_if`], [`Kv::clear`] |
//! | count | [`Kv::incr`], [`Kv::incr_for`] |
//! | read, change, write | [`Kv::update`], [`Kv::try_update`], [`Kv::get_or_insert_with`] |
//! | values of serde types | [`Kv::get_typed`], [`Kv::set_typed`], [`Kv::update_typed`] |
//! | times to live | [`Kv::expire`], [`Kv::touch`], [`Kv::persist`] |
//! | all keys | [`Kv::scan_all`], [`Kv::scan`], [`Kv::len`] |
//! | follow changes | [`Kv::feed`] |
//! | look after it | [`Kv::stats`], [`Kv::reap`], [`Kv::sweep`], [`Kv::check`] |
//!
//! # Contents: the broker
//! | what | where |
//! |---|---|
//! | connect | [`Client::connect`], [`ClientBuilder`], [`Home`], [`Reconnect`] |
//! | the store from here | [`Client::kv`]; over the socket, [`Client::remote_kv`] |
//! | publish | [`Client::publish`], [`Client::publish_with`], [`Client::try_publish`], [`Client::flush`] |
//! | subscribe | [`Client::subscribe`], [`Client::subscribe_with`], [`Client::queue_subscribe`] |
//! | ask and answer | [`Client::request`], [`Client::respond`] |
//! | follow keys | [`Client::watch`], [`Client::watch_prefix`], [`Client::watch_with`] |
//! | locks | [`Client::lock`], [`Client::try_lock`], [`Client::semaphore`], [`Client::acquire`] |
//! | leaders | [`Client::elect`], [`Client::observe_leader`] |
//! | look into the broker | [`Client::topics`], [`Client::clients`], [`Client::stats`], [`Client::tap`] ... |
//! | without tokio | [`blocking`] |
//! | be a worker | [`Worker`] |
//!
//! Keys are 1 to 1024 bytes of anything, values up to a quarter of the region. Everything that
//! takes a key or a value takes `impl AsRef<[u8]>`: `"text"`, `b"bytes"`, a `String`, a `Vec<u8>`.
//! The store's calls return [`KvError`] when they fail, the broker's return [`Error`].

#![forbid(unsafe_code)]
#![warn(missing_docs)]

// The store.
mod attach;
mod env;
mod error;
mod kv;
mod options;
mod set;
// The broker.
pub mod blocking;
mod client;
mod home;
// The supervisor.
mod worker;

pub use attach::Via;
pub use client::{
    Acker, AuditReport, BrokerInfo, Client, ClientBuilder, Error, Event, Fate, Holders, Lease,
    LeaseOptions, Message, PublishOptions, Reconnect, RemoteKv, RemotePage, Reply, Request,
    Responder, SnapshotInfo, SubscribeOptions, Subscription, Watch, WatchEvent, WatchOptions,
    Watched,
};
pub use env::{REGION_FD_VARIABLE, REGION_VARIABLE};
pub use error::{KvError, Result};
pub use home::{Home, HomeError, HOME_VARIABLE, SOCKET_NAME};
pub use kv::{Expiry, Kv};
pub use options::KvOptions;
pub use set::SetOptions;
pub use worker::{Worker, WORKER_VARIABLE};

/// The wire protocol: what listings and batches are made of.
pub use ganger_protocol as protocol;
pub use ganger_protocol::kv::Entry as RemoteEntry;
pub use ganger_protocol::lease::Holder;
pub use ganger_protocol::pubsub::{Gap, GapCause, Policy, Position, Start};
pub use ganger_protocol::watch::ChangeKind;

/// The region itself: what [`Kv::region`] gives, with its events and the audit.
pub use ganger_region as region;
pub use ganger_region::{
    AttachError, Audit, BootClock, Change, Clock, Config, CreateError, Cursor, Damaged, Entry,
    Feed, FeedItem, ReadError, Reaped, ScanPage, SessionError, Stats, TypedError, WhenFull,
    WriteError,
};
