//! `queryServer`: which listener a worker asks for.

use super::super::Context;
use crate::listen::{Address, ListenError};
use rustix::io::{ioctl_fionbio, Errno};
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

/// `UV_TCP_IPV6ONLY`.
const V6_ONLY: u64 = 1;

/// What a worker has asked for, by the key it was answered with.
#[derive(Debug, Default)]
pub(super) struct Queries {
    open: BTreeMap<String, Address>,
}

/// The answer to a query.
#[derive(Debug)]
pub(super) enum Answer {
    /// A listener of the type `kind`, with the message that it rides on.
    Handle {
        kind: &'static str,
        message: Value,
        fd: OwnedFd,
    },
    /// None.
    Failed {
        message: Value,
        address: String,
        error: String,
    },
}

impl Queries {
    pub(super) fn answer(&mut self, message: &Value, context: &Context) -> Answer {
        let key = key(message);
        let found = self.listener(message, &key, context);
        let mut listeners = context.listeners();
        // What the first worker brought is what all get: the keys of TLS session tickets.
        let place = &message["data"];
        let data = if place.is_null() {
            Value::Null
        } else {
            listeners
                .data
                .entry(key.clone())
                .or_insert_with(|| place.clone())
                .clone()
        };
        drop(listeners);
        let mut reply = json!({
            "cmd": "NODE_CLUSTER", "errno": 0, "key": key, "ack": message["seq"], "data": data,
        });
        match found {
            Ok((fd, address)) => {
                let kind = match address {
                    Address::Udp(_) => "dgram.Native",
                    _ => "net.Native",
                };
                self.open.insert(key, address);
                Answer::Handle {
                    kind,
                    message: reply,
                    fd,
                }
            }
            Err((errno, error)) => {
                reply["errno"] = (-errno).into();
                let address = wanted(message).map_or(key, |address| address.to_string());
                Answer::Failed {
                    message: reply,
                    address,
                    error,
                }
            }
        }
    }

    /// Whether it has got a listener that it did not close.
    pub(super) fn are_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The address that a worker says it listens on.
    pub(super) fn listening(&self, message: &Value) -> Option<Address> {
        // The port is the real one by now, so the key of the question is not that of this.
        let port = message["port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok());
        let told = wanted(message)?;
        let same = |address: &&Address| match (address.socket(), port) {
            (Some(socket), Some(port)) => socket.port() == port,
            _ => **address == told,
        };
        Some(self.open.values().find(same).cloned().unwrap_or(told))
    }

    /// Forgets a listener that was closed.
    pub(super) fn close(&mut self, key: &Value) -> Option<Address> {
        self.open.remove(key.as_str()?)
    }

    fn listener(
        &self,
        message: &Value,
        key: &str,
        context: &Context,
    ) -> Result<(OwnedFd, Address), (i32, String)> {
        let invalid = || {
            (
                Errno::INVAL.raw_os_error(),
                "a query of an unknown form".to_owned(),
            )
        };
        let wanted = match inherited(message, context) {
            Some(managed) => managed?,
            None => wanted(message).ok_or_else(invalid)?,
        };
        let nth = message["index"]
            .as_u64()
            .and_then(|index| u32::try_from(index).ok());
        let backlog = message["backlog"]
            .as_u64()
            .and_then(|len| u32::try_from(len).ok());
        let is_open = |open: &(&String, &Address)| *open.1 == wanted && open.0.as_str() != key;
        if !wanted.is_ephemeral() && self.open.iter().any(|open| is_open(&open)) {
            let text = format!("{wanted}: this worker listens on it already");
            return Err((Errno::ADDRINUSE.raw_os_error(), text));
        }
        let mut listeners = context.listeners();
        let mut open = |wanted: &Address| {
            listeners.socket(wanted, nth.unwrap_or(0), backlog.unwrap_or(0), context.slot)
        };
        let mut found = open(&wanted);
        // Without an address Node takes v4 where there is no v6.
        if matches!(found, Err(ListenError::Unavailable { .. })) && message["address"].is_null() {
            if let Some(port) = wanted.socket().map(|address| address.port()) {
                found = open(&Address::tcp((Ipv4Addr::UNSPECIFIED, port).into()));
            }
        }
        let found = found.map_err(|error| (error.errno(), error.to_string()))?;
        ioctl_fionbio(&found.0, true).map_err(|errno| (errno.raw_os_error(), errno.to_string()))?;
        Ok(found)
    }
}

/// `listen({fd})`: in a cluster the number is the primary's, so it names the listeners told
/// beforehand as systemd would number them.
fn inherited(message: &Value, context: &Context) -> Option<Result<Address, (i32, String)>> {
    let fd = message["fd"].as_i64().filter(|fd| *fd >= 0)?;
    let at = usize::try_from(fd - i64::from(super::FIRST_FD));
    let managed = at.ok().and_then(|at| context.managed.get(at));
    Some(managed.cloned().ok_or_else(|| {
        let text = format!("listen({{fd: {fd}}}): 3 is the first address of --listen, and so on");
        (Errno::BADF.raw_os_error(), text)
    }))
}

/// The address a message is about.
fn wanted(message: &Value) -> Option<Address> {
    let kind = &message["addressType"];
    let text = message["address"].as_str();
    if kind == -1 {
        return Some(Address::Unix(text?.into()));
    }
    let port = message["port"].as_u64().unwrap_or(0);
    let port = u16::try_from(port).ok()?;
    let ip = match text.filter(|text| !text.is_empty()) {
        Some(text) => text.split('%').next()?.parse().ok()?,
        None if kind == "udp4" => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        None => Ipv6Addr::UNSPECIFIED.into(),
    };
    if kind == "udp4" || kind == "udp6" {
        return Some(Address::Udp((ip, port).into()));
    }
    Some(Address::Tcp {
        address: (ip, port).into(),
        is_v6_only: ip.is_ipv6() && message["flags"].as_u64().unwrap_or(0) & V6_ONLY != 0,
    })
}

/// What tells one question from another, the same in all workers.
fn key(message: &Value) -> String {
    ["address", "port", "addressType", "fd", "index"]
        .map(|name| match &message[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
        .join(":")
}
