//! The beginning and the end of a connection.

use crate::body::bodies;
use crate::error::{ErrorBody, ErrorCode};
use crate::limits::Limits;
use serde::{Deserialize, Serialize};

/// The protocol versions this build speaks.
pub const VERSIONS: Versions = Versions { min: 1, max: 1 };

/// Capability: payloads by reference into the region.
pub const BY_REFERENCE: &str = "by_reference";

/// What this build can beyond the bare protocol.
pub const CAPABILITIES: &[&str] = &[BY_REFERENCE];

/// A range of protocol versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

/// Body of [`Op::Hello`](crate::Op::Hello): the client's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Protocol versions the client speaks.
    pub versions: Versions,
    /// What it can beyond the bare protocol.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// What listings show it as; 256 bytes at most.
    #[serde(default)]
    pub name: String,
    /// Library and version, for listings.
    #[serde(default)]
    pub software: String,
    /// Whether it wants the region's descriptor. It then has to read with `recvmsg` until the
    /// welcome is there.
    #[serde(default)]
    pub wants_region: bool,
}

impl Hello {
    /// A hello of this build.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            versions: VERSIONS,
            capabilities: CAPABILITIES.iter().map(|&name| name.to_owned()).collect(),
            name: name.into(),
            software: concat!("ganger/", env!("CARGO_PKG_VERSION")).to_owned(),
            wants_region: false,
        }
    }

    /// Whether the client can do this.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|name| name == capability)
    }
}

/// Body of [`Op::Welcome`](crate::Op::Welcome): the broker's answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that is spoken from here on.
    pub version: u16,
    /// What both sides can.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// The broker's run. Sequence numbers of another epoch mean nothing in this one.
    pub epoch: u64,
    /// The connection's number, as listings show it.
    pub connection: u64,
    /// What the broker allows.
    #[serde(default)]
    pub limits: Limits,
    /// Whether the region's descriptor came with the first byte of this frame (`SCM_RIGHTS`).
    #[serde(default)]
    pub region: bool,
    /// Program and version.
    #[serde(default)]
    pub software: String,
}

impl Welcome {
    /// Whether both sides can do this.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|name| name == capability)
    }
}

/// Body of [`Op::Goodbye`](crate::Op::Goodbye).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Goodbye {
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// After so many milliseconds the sender closes the connection.
    #[serde(default)]
    pub closes_in_ms: u64,
}

/// Body of [`Op::Ended`](crate::Op::Ended): no further frame of this id comes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ended {
    /// Why, if it was not the client who cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

bodies! {
    Hello => Hello,
    Welcome => Welcome,
    Goodbye => Goodbye,
    Ended => Ended,
}

/// The newest version that both sides speak.
///
/// ```
/// use ganger_protocol::hello::{negotiate, Versions};
///
/// let client = Versions { min: 2, max: 5 };
/// let broker = Versions { min: 1, max: 3 };
/// assert_eq!(negotiate(client, broker), Ok(3));
/// assert!(negotiate(client, Versions { min: 1, max: 1 }).is_err());
/// ```
pub fn negotiate(client: Versions, broker: Versions) -> Result<u16, ErrorBody> {
    let version = client.max.min(broker.max);
    if version >= client.min.max(broker.min) {
        return Ok(version);
    }
    let advice = match client.max < broker.min {
        true => "the client is too old",
        false if client.min > broker.max => "the broker is too old",
        false => "a range ends before it begins",
    };
    Err(ErrorBody::new(
        ErrorCode::UnsupportedVersion,
        format!(
            "the client speaks versions {} to {}, the broker {} to {}: {advice}",
            client.min, client.max, broker.min, broker.max
        ),
    ))
}

/// The capabilities that both sides have.
pub fn shared_capabilities(client: &[String], broker: &[&str]) -> Vec<String> {
    let both = |name: &&String| broker.contains(&name.as_str());
    client.iter().filter(both).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_shared_version_is_chosen_or_the_older_side_named() {
        let range = |min, max| Versions { min, max };
        for (client, broker, chosen) in [
            (range(1, 1), range(1, 1), 1),
            (range(1, 9), range(2, 4), 4),
            (range(4, 9), range(2, 4), 4),
            (range(0, 2), range(2, u16::MAX), 2),
        ] {
            assert_eq!(negotiate(client, broker), Ok(chosen));
            assert_eq!(negotiate(broker, client), Ok(chosen));
        }
        for (client, broker, told) in [
            (range(1, 1), range(2, 3), "the client is too old"),
            (range(4, 5), range(2, 3), "the broker is too old"),
            (range(3, 1), range(1, 3), "a range ends before it begins"),
        ] {
            let error = negotiate(client, broker).unwrap_err();
            assert_eq!(error.code, ErrorCode::UnsupportedVersion);
            assert!(error.message.ends_with(told), "{error}");
        }
    }

    #[test]
    fn only_what_both_can_is_shared() {
        let client = ["by_reference".to_owned(), "flying".to_owned()];
        assert_eq!(shared_capabilities(&client, CAPABILITIES), ["by_reference"]);
        assert!(Hello::new("").can(BY_REFERENCE) && !Hello::new("").can("flying"));
    }
}
