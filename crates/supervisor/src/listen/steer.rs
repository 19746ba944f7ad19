//! Ways round the balancing, for the supervisor's own connections.

use super::{Address, Listeners, Slot};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

impl Listeners {
    /// A duplicate of a slot's socket, to look after its queue when no process does. `None` if it
    /// has none, or shares it.
    pub(crate) fn peek(&self, address: &Address, slot: Slot) -> Option<OwnedFd> {
        self.groups
            .iter()
            .find(|group| group.address == *address)?
            .peek(slot)
    }

    /// Gives an address back that no worker is meant to serve any more: one that a release brought
    /// which did not go live. Those told beforehand stay.
    pub(crate) fn give_back(&mut self, address: &Address) {
        self.groups
            .retain(|group| group.is_declared || group.address != *address);
    }

    /// Where a connection must come from to get into a slot's own queue, whatever the weights: the
    /// balancing program knows these addresses. `None` if there is no such way: the address is a v6
    /// one without v4, or the socket is shared.
    pub(crate) fn probe_source(&self, address: &Address, slot: Slot) -> Option<IpAddr> {
        let Address::Tcp {
            address: at,
            is_v6_only,
        } = address
        else {
            return None;
        };
        if at.is_ipv6() && (*is_v6_only || !at.ip().is_unspecified()) {
            return None;
        }
        let group = self.groups.iter().find(|group| group.address == *address)?;
        let [high, low] = u16::try_from(group.own_index(slot)?).ok()?.to_be_bytes();
        let [first, second] = super::program::PROBE_NET;
        Some(Ipv4Addr::new(first, second, high, low).into())
    }
}
