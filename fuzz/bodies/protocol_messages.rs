//! Any bytes as each control message. Each must give a message or a typed error; a message that was
//! read must come back the same when it is written and read again.

use ganger_protocol::admin::{AdminProgress, AdminReply, AdminRequest};
use ganger_protocol::hello::{negotiate, Ended, Goodbye, Hello, Welcome, VERSIONS};
use ganger_protocol::kv::{KvReply, KvRequest};
use ganger_protocol::lease::{LeaseEvent, LeaseRequest};
use ganger_protocol::pubsub::{Gap, Subscribe, Subscribed};
use ganger_protocol::watch::{SnapshotBegin, SnapshotEnd, Watch, Watching};
use ganger_protocol::{Body, ErrorBody, Group, Pattern};
use std::fmt::Debug;

/// Runs a program: the bytes of a message, as every type of message there is.
pub fn run(bytes: &[u8]) {
    if let Some(hello) = again::<Hello>(bytes) {
        let _ = negotiate(hello.versions, VERSIONS);
    }
    if let Some(subscribe) = again::<Subscribe>(bytes) {
        if let Ok(pattern) = subscribe.pattern.parse::<Pattern>() {
            assert_eq!(
                pattern.matches(pattern.as_str()),
                pattern.matches(&subscribe.pattern)
            );
        }
        let _ = subscribe.group.map(|group| group.parse::<Group>());
    }
    again::<Welcome>(bytes);
    again::<Goodbye>(bytes);
    again::<Ended>(bytes);
    again::<ErrorBody>(bytes);
    again::<Subscribed>(bytes);
    again::<Gap>(bytes);
    again::<KvRequest>(bytes);
    again::<KvReply>(bytes);
    again::<Watch>(bytes);
    again::<Watching>(bytes);
    again::<SnapshotBegin>(bytes);
    again::<SnapshotEnd>(bytes);
    again::<LeaseRequest>(bytes);
    again::<LeaseEvent>(bytes);
    again::<AdminRequest>(bytes);
    again::<AdminReply>(bytes);
    again::<AdminProgress>(bytes);
}

fn again<B: Body + PartialEq + Debug>(bytes: &[u8]) -> Option<B> {
    let message = B::from_bytes(bytes).ok()?;
    let written = message.to_bytes().unwrap();
    assert_eq!(B::from_bytes(&written).unwrap(), message);
    Some(message)
}
