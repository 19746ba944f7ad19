//! Leases.

use super::State;
use ganger_protocol::lease::{Acquire, Holder, LeaseEvent, LeaseRequest};
use ganger_protocol::{ErrorBody, ErrorCode};

impl State {
    pub(super) fn lease(
        &mut self,
        from: u64,
        id: u32,
        request: LeaseRequest,
    ) -> Result<(), ErrorBody> {
        match request {
            LeaseRequest::Acquire(Acquire {
                name,
                reclaim: Some(token),
                ..
            }) if self
                .holders
                .get(&name)
                .is_some_and(|holder| holder.2 == token) =>
            {
                self.holders.insert(name, (from, id, token));
                self.send(
                    from,
                    id,
                    &LeaseEvent::Granted {
                        token,
                        reclaimed: true,
                    },
                );
            }
            LeaseRequest::Acquire(Acquire { name, wait_ms, .. }) => {
                match self.holders.contains_key(&name) {
                    true if wait_ms == Some(0) => return Err(ErrorCode::Taken.into()),
                    true => {
                        self.waiters.push((name, from, id));
                        self.send(from, id, &LeaseEvent::Queued { ahead: 0 });
                    }
                    false => {
                        self.waiters.push((name.clone(), from, id));
                        self.grant_next(&name);
                    }
                }
            }
            LeaseRequest::Renew { name, token, .. } => {
                if self
                    .holders
                    .get(&name)
                    .is_none_or(|holder| holder.2 != token)
                {
                    return Err(ErrorCode::NotHeld.into());
                }
                self.send(from, id, &LeaseEvent::Renewed {});
            }
            LeaseRequest::Observe { name } => {
                self.observers.push((name.clone(), from, id));
                self.tell_observers(&name);
            }
            _ => return Err(ErrorCode::UnknownOperation.into()),
        }
        Ok(())
    }

    pub(super) fn grant_next(&mut self, name: &str) {
        if let Some(at) = self.waiters.iter().position(|waiter| waiter.0 == name) {
            let (name, connection, id) = self.waiters.remove(at);
            self.tokens += 1;
            let token = self.tokens;
            self.holders.insert(name, (connection, id, token));
            self.send(
                connection,
                id,
                &LeaseEvent::Granted {
                    token,
                    reclaimed: false,
                },
            );
        }
        self.tell_observers(name);
    }

    /// Takes a lease from whoever holds it.
    pub(crate) fn take_away(&mut self, name: &str) {
        let (connection, id, token) = self.holders.remove(name).unwrap();
        let error = ErrorCode::Timeout.into();
        self.send(connection, id, &LeaseEvent::Lost { token, error });
        self.grant_next(name);
    }

    /// As if it were not known any more after a restart.
    pub(crate) fn forget(&mut self, name: &str) {
        self.holders.remove(name);
    }

    pub(super) fn tell_observers(&mut self, name: &str) {
        let holders = self.holders.get(name).map(|holder| Holder {
            token: holder.2,
            ..Holder::default()
        });
        let event = LeaseEvent::Holders {
            holders: holders.into_iter().collect(),
            waiting: 0,
        };
        let told: Vec<_> = self
            .observers
            .iter()
            .filter(|observer| observer.0 == name)
            .map(|observer| (observer.1, observer.2))
            .collect();
        for (connection, id) in told {
            self.send(connection, id, &event);
        }
    }
}
