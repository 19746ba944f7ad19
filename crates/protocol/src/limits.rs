//! Every limit of the protocol and of the broker.
//!
//! The constants belong to the wire and are the same on both sides. [`Limits`] is what one broker
//! allows; it tells its clients in the [`Welcome`](crate::hello::Welcome). Each breach has an
//! [`ErrorCode`](crate::ErrorCode) of its own and hurts only the one who commits it.

use serde::{Deserialize, Serialize};

/// Bytes of a frame's length word.
pub const LENGTH_LEN: usize = 4;
/// Bytes of the fixed header behind the length word.
pub const HEADER_LEN: usize = 20;
/// Bytes of length word and fixed header: what a [`Head`](crate::Head) is on the wire.
pub const HEAD_LEN: usize = LENGTH_LEN + HEADER_LEN;
/// Greatest length a frame can declare, in bytes. Below 16 MiB, so that the first byte of a frame
/// is always 0, which tells this protocol from others on the same socket.
pub const FRAME_LEN_MAX: usize = (16 << 20) - 1;
/// Bytes of the subject slot of a frame: a subject, or a key.
pub const SUBJECT_SLOT_MAX: usize = KEY_LEN_MAX;
/// Bytes of a subject or pattern.
pub const SUBJECT_LEN_MAX: usize = 256;
/// Tokens of a subject or pattern.
pub const SUBJECT_TOKENS_MAX: usize = 32;
/// Bytes of the name of a queue group, lease or client.
pub const NAME_LEN_MAX: usize = 256;
/// Bytes of the encoded headers of a message.
pub const HEADERS_LEN_MAX: usize = 16 << 10;
/// Bytes of a key; the shortest has 1.
pub const KEY_LEN_MAX: usize = 1024;
/// Payloads of so many bytes and more go by reference, where both sides can.
pub const INLINE_LEN_MAX: usize = 64 << 10;
/// Longest time a request may wait for its reply, in milliseconds: what 24 bits hold.
pub const REQUEST_TIMEOUT_MS_MAX: u32 = (1 << 24) - 1;
/// Levels of nesting in a MessagePack body.
pub const BODY_DEPTH_MAX: usize = 16;
/// Values of a MessagePack body, all levels together. A value of one byte on the wire may take a
/// hundred in memory.
pub const BODY_ITEMS_MAX: usize = 1 << 20;
/// First byte of the keys that are Ganger's own, which clients may not use.
pub const RESERVED_KEY_BYTE: u8 = 0;
/// Keys under which publishers store payloads that go by reference.
pub const PAYLOAD_KEY_PREFIX: &[u8] = b"\0ganger/payload/";

/// What one broker allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    // What a client can run into.
    /// Bytes of a frame behind its length word.
    pub frame_bytes: usize,
    /// Bytes of the encoded headers of a message.
    pub headers_bytes: usize,
    /// Payloads of so many bytes and more may go by reference.
    pub inline_bytes: usize,
    /// Connections at a time.
    pub connections: usize,
    /// Subscriptions of one connection.
    pub subscriptions: usize,
    /// Watches of one connection.
    pub watches: usize,
    /// Requests of one connection that wait for their reply.
    pub pending_requests: usize,
    /// Longest time a request may wait for its reply, in milliseconds.
    pub request_timeout_ms: u32,
    /// Leases that one connection holds.
    pub leases: usize,
    /// Those who wait for one lease.
    pub lease_waiters: usize,
    /// Longest time to live of a lease, in milliseconds.
    pub lease_ttl_ms: u64,
    /// Bytes of the value of a lease.
    pub lease_value_bytes: usize,
    /// Operations of one key-value batch; keys of one `get_many`.
    pub batch: usize,
    /// Entries of one page of a scan.
    pub scan_page: usize,
    /// Ephemeral keys of one connection.
    pub ephemeral_keys: usize,

    // What the broker spends.
    /// Channels: distinct patterns that are or were subscribed to.
    pub channels: usize,
    /// Messages of one channel's ring.
    pub ring_messages: usize,
    /// Bytes of one channel's ring.
    pub ring_bytes: usize,
    /// Bytes of one channel's ring that every subscriber has got, kept for those who ask for them later.
    pub history_bytes: usize,
    /// Bytes of all channels' rings together.
    pub rings_bytes: usize,
    /// How long a channel stays after its last subscriber has gone, in milliseconds.
    pub channel_linger_ms: u64,
    /// Bytes that wait to be written to one connection.
    pub outbox_bytes: usize,
    /// Answers that wait to be written to one connection; beyond, it is not read any more.
    pub outbox_frames: usize,
    /// Longest time a subscription may block a publisher, in milliseconds.
    pub block_ms: u64,
    /// Messages of one queue group that wait for their acknowledgement.
    pub unacknowledged: usize,
    /// Times a message of a queue group is delivered again.
    pub redeliveries: u8,
    /// Retained messages.
    pub retained_messages: usize,
    /// Bytes of all retained messages together.
    pub retained_bytes: usize,
    /// Changes kept for watches that resume.
    pub watch_log: usize,
    /// Changes that wait to be written to one watcher.
    pub watch_backlog: usize,
    /// Leases in the broker.
    pub leases_total: usize,
    /// How long the holders known from before a restart have to come back, in milliseconds.
    pub lease_grace_ms: u64,
    /// How long a payload stored for sending by reference stays, in milliseconds.
    pub reference_ttl_ms: u64,
    /// How long a connection may take for its hello, in milliseconds.
    pub hello_ms: u64,
    /// Rows of one page of an administrative listing.
    pub admin_rows: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: FRAME_LEN_MAX,
            headers_bytes: HEADERS_LEN_MAX,
            inline_bytes: INLINE_LEN_MAX,
            connections: 16_384,
            subscriptions: 4096,
            watches: 256,
            pending_requests: 65_536,
            request_timeout_ms: 3_600_000,
            leases: 4096,
            lease_waiters: 4096,
            lease_ttl_ms: 24 * 3_600_000,
            lease_value_bytes: 4096,
            batch: 4096,
            scan_page: 1024,
            ephemeral_keys: 65_536,
            channels: 65_536,
            ring_messages: 65_536,
            ring_bytes: 64 << 20,
            history_bytes: 8 << 20,
            rings_bytes: 256 << 20,
            channel_linger_ms: 30_000,
            outbox_bytes: 8 << 20,
            outbox_frames: 65_536,
            block_ms: 1000,
            unacknowledged: 65_536,
            redeliveries: 15,
            retained_messages: 65_536,
            retained_bytes: 64 << 20,
            watch_log: 65_536,
            watch_backlog: 65_536,
            leases_total: 65_536,
            lease_grace_ms: 2000,
            reference_ttl_ms: 30_000,
            hello_ms: 5000,
            admin_rows: 1024,
        }
    }
}
