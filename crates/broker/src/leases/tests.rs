//! Leases: a random history of clients, deaths and broker restarts, watched from outside.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const LIMITS: LeaseLimits = LeaseLimits {
    keys: 3,
    per_connection: 6,
    waiters: 4,
    permits: 5,
};

fn asker(connection: u64, request: u32) -> Asker {
    Asker {
        connection: ConnectionId(connection),
        request: RequestId(request),
    }
}

fn ask(key: &'static str, permits: u32, ttl_ms: Option<u64>, wait_until_ms: Option<u64>) -> Ask {
    Ask {
        key: Bytes::from(key),
        permits,
        value: Bytes::from("value"),
        ttl_ms,
        wait_until_ms,
    }
}

/// What the outside knows, from events alone.
struct World {
    leases: Leases,
    now: u64,
    fence: u64,
    has_fence: bool,
    requests: u32,
    records: BTreeMap<u64, LeaseRecord>,
    owners: BTreeMap<u64, Option<ConnectionId>>,
    queues: HashMap<Bytes, Vec<(Asker, u64)>>,
    views: BTreeMap<(Asker, Bytes), Vec<u64>>,
    last_token: u64,
}

#[derive(Debug, Clone)]
enum Op {
    Acquire(u64, &'static str, Option<u64>, Option<u64>),
    Cancel(usize),
    Renew(usize),
    Release(usize),
    Observe(u64, &'static str),
    Gone(u64),
    Wait(u64),
    Fence(bool),
    Restart(Vec<bool>),
}

const KEYS: [(&str, u32); 4] = [("lock", 1), ("pool", 3), ("chief", 1), ("fourth", 1)];

fn op() -> impl Strategy<Value = Op> {
    let key = select(KEYS.map(|key| key.0).to_vec());
    let ttl = prop::option::of(0..40_u64);
    let wait = prop::option::of(0..40_u64);
    prop_oneof![
        10 => (0..5_u64, key.clone(), ttl, wait)
            .prop_map(|(c, key, ttl, wait)| Op::Acquire(c, key, ttl, wait)),
        1 => any::<usize>().prop_map(Op::Cancel),
        2 => any::<usize>().prop_map(Op::Renew),
        5 => any::<usize>().prop_map(Op::Release),
        1 => (0..5_u64, key).prop_map(|(c, key)| Op::Observe(c, key)),
        2 => (0..5_u64).prop_map(Op::Gone),
        4 => (0..15_u64).prop_map(Op::Wait),
        1 => prop::bool::weighted(0.8).prop_map(Op::Fence),
        1 => vec(any::<bool>(), 8).prop_map(Op::Restart),
    ]
}

impl World {
    fn new() -> Self {
        Self {
            leases: Leases::new(LIMITS),
            now: 0,
            fence: 0,
            has_fence: true,
            requests: 0,
            records: BTreeMap::new(),
            owners: BTreeMap::new(),
            queues: HashMap::new(),
            views: BTreeMap::new(),
            last_token: 0,
        }
    }

    fn pick(&self, which: usize) -> Option<(u64, ConnectionId)> {
        let owned: Vec<_> = self
            .owners
            .iter()
            .filter_map(|(token, owner)| Some((*token, (*owner)?)))
            .collect();
        (!owned.is_empty()).then(|| owned[which % owned.len()])
    }

    fn step(&mut self, op: Op) -> Result<(), TestCaseError> {
        let mut events = Vec::new();
        let mut fence_now = self.fence;
        let has_fence = self.has_fence;
        let mut next = || {
            fence_now += 2;
            has_fence.then_some(fence_now)
        };
        let (now, leases) = (self.now, &mut self.leases);
        let mut direct = None;
        match op {
            Op::Acquire(connection, key, ttl, wait) => {
                self.requests += 1;
                let asker = asker(connection, self.requests);
                let permits = KEYS.iter().find(|known| known.0 == key).unwrap().1;
                let ask = ask(key, permits, ttl, wait.map(|wait| now + wait));
                let outcome = leases.acquire(asker, ask, now, &mut next, &mut events);
                let is_answered = events
                    .iter()
                    .any(|event| matches!(event, LeaseEvent::Granted(who, _) if *who == asker));
                match outcome {
                    Err(_) => prop_assert!(!is_answered),
                    Ok(()) if is_answered => direct = Some(asker),
                    Ok(()) => {
                        let until = now + wait.unwrap();
                        self.queues
                            .entry(key.into())
                            .or_default()
                            .push((asker, until));
                    }
                }
            }
            Op::Cancel(which) => {
                let waits: Vec<_> = self.queues.values().flatten().map(|wait| wait.0).collect();
                if !waits.is_empty() {
                    let asker = waits[which % waits.len()];
                    prop_assert!(leases.cancel(asker) && !leases.cancel(asker));
                    self.queues
                        .values_mut()
                        .for_each(|queue| queue.retain(|wait| wait.0 != asker));
                }
            }
            Op::Renew(which) => {
                if let Some((token, owner)) = self.pick(which) {
                    let renewed =
                        self.leases
                            .renew(owner, token, (None, None), now, &mut next, &mut events);
                    let expired = events.contains(&LeaseEvent::Expired(owner, token));
                    prop_assert_eq!(renewed.is_err(), expired);
                }
            }
            Op::Release(which) => {
                if let Some((token, owner)) = self.pick(which) {
                    let thief = ConnectionId(owner.0 + 1);
                    let stolen = self
                        .leases
                        .release(thief, token, now, &mut next, &mut events);
                    prop_assert_eq!(stolen, Err(LeaseError::NotHeld { token }));
                    let _ = self
                        .leases
                        .release(owner, token, now, &mut next, &mut events);
                    prop_assert!(events.contains(&LeaseEvent::Forget(token)));
                }
            }
            Op::Observe(connection, key) => {
                self.requests += 1;
                let observer = asker(connection, self.requests);
                let _ = leases.observe(observer, key.as_bytes(), &mut events);
            }
            Op::Gone(connection) => {
                let gone = ConnectionId(connection);
                leases.connection_ended(gone, now, &mut next, &mut events);
                for queue in self.queues.values_mut() {
                    queue.retain(|wait| wait.0.connection != gone);
                }
                self.views.retain(|view, _| view.0.connection != gone);
                prop_assert!(!events.iter().any(
                    |event| matches!(event, LeaseEvent::Granted(who, _) if who.connection == gone),
                ));
            }
            Op::Wait(by) => {
                self.now += by;
                leases.expire(self.now, &mut next, &mut events);
                prop_assert!(leases.next_deadline().is_none_or(|next| next > self.now));
            }
            Op::Fence(has) => self.has_fence = has,
            Op::Restart(claims) => {
                *leases = Leases::new(LIMITS);
                self.queues.clear();
                self.views.clear();
                for record in self.records.values() {
                    let bytes = record.to_bytes().unwrap();
                    let record = LeaseRecord::from_bytes(&bytes).unwrap();
                    prop_assert!(leases.restore(record, now + 10));
                }
                let before = std::mem::take(&mut self.owners);
                for ((token, _), claims) in before.into_iter().zip(claims.iter().cycle()) {
                    self.owners.insert(token, None);
                    let owner = ConnectionId(token % 5);
                    let key = self.records[&token].key.clone();
                    let wrong = leases.reclaim(owner, token, b"other", now, &mut next, &mut events);
                    prop_assert!(wrong.is_err());
                    let wants = *claims && !events.contains(&LeaseEvent::Forget(token));
                    if wants
                        && leases
                            .reclaim(owner, token, &key, now, &mut next, &mut events)
                            .is_ok()
                    {
                        self.owners.insert(token, Some(owner));
                    }
                }
            }
        }
        self.fence = fence_now;
        self.watch(events, direct)?;
        self.judge()
    }

    fn watch(
        &mut self,
        events: Vec<LeaseEvent>,
        direct: Option<Asker>,
    ) -> Result<(), TestCaseError> {
        for event in events {
            match event {
                LeaseEvent::Keep(record) => {
                    self.records.insert(record.token, record);
                }
                LeaseEvent::Forget(token) => {
                    prop_assert!(self.records.remove(&token).is_some());
                    self.owners.remove(&token);
                }
                LeaseEvent::Granted(asker, token) => {
                    prop_assert!(token > self.last_token, "tokens grow");
                    self.last_token = token;
                    // The record was there first.
                    let key = self.records[&token].key.clone();
                    self.owners.insert(token, Some(asker.connection));
                    let queue = self.queues.entry(key.clone()).or_default();
                    if direct == Some(asker) {
                        prop_assert!(queue.is_empty(), "nobody is passed");
                    } else {
                        prop_assert_eq!(queue.remove(0).0, asker, "first come, first served");
                    }
                    let permits = self.records[&token].permits as usize;
                    let holders = self
                        .records
                        .values()
                        .filter(|record| record.key == key)
                        .count();
                    prop_assert!(holders <= permits, "never more than permits");
                }
                LeaseEvent::NotGranted(asker, why) => {
                    let until = self.queues.values_mut().find_map(|queue| {
                        let at = queue.iter().position(|wait| wait.0 == asker)?;
                        Some(queue.remove(at).1)
                    });
                    prop_assert!(until.is_some());
                    prop_assert!(why == NotGranted::NoToken || until <= Some(self.now));
                    prop_assert!(why == NotGranted::TimedOut || !self.has_fence);
                }
                LeaseEvent::Expired(owner, token) => {
                    prop_assert_eq!(self.owners[&token], Some(owner));
                    prop_assert!(self.records[&token].expires_at_ms <= Some(self.now));
                }
                LeaseEvent::Holders(observer, key) => {
                    // Of several news of one step, the last is the state.
                    let holders = self.leases.holders(&key).map(|holder| holder.0.token);
                    self.views
                        .insert((observer, key.clone()), holders.collect());
                }
            }
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), TestCaseError> {
        let held: BTreeMap<_, _> = self
            .leases
            .held()
            .map(|(record, owner)| (record.token, owner))
            .collect();
        prop_assert_eq!(&held, &self.owners);
        prop_assert!(self
            .leases
            .held()
            .all(|(record, _)| self.records[&record.token] == *record));
        for (key, permits) in KEYS {
            let holders = self
                .records
                .values()
                .filter(|record| record.key == key)
                .count();
            let waits = self.queues.get(key.as_bytes()).map_or(0, Vec::len);
            prop_assert_eq!(self.leases.waiting(key.as_bytes()), waits);
            prop_assert!(
                waits == 0 || holders == permits as usize,
                "a permit is free, one waits"
            );
        }
        for ((_, key), view) in &self.views {
            let records = self.records.values().filter(|record| record.key == key);
            let tokens: Vec<u64> = records.map(|record| record.token).collect();
            prop_assert_eq!(view, &tokens);
        }
        prop_assert!(self.leases.keys() <= LIMITS.keys);
        let used = |key: &str| {
            self.records.values().any(|record| record.key == key)
                || self.views.keys().any(|view| view.1 == key)
        };
        let used = KEYS.iter().filter(|key| used(key.0)).count();
        prop_assert_eq!(self.leases.keys(), used);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn leases_are_exclusive_fair_and_fenced(ops in vec(op(), 0..150)) {
        let mut world = World::new();
        for op in ops {
            world.step(op)?;
        }
    }
}

/// Counts up from `first`.
fn fence(first: u64) -> impl FnMut() -> Option<u64> {
    let mut next = first;
    move || {
        next += 1;
        Some(next - 1)
    }
}

#[test]
fn one_more_than_allowed_is_refused_and_counted() {
    let mut leases = Leases::new(LIMITS);
    let (mut fence, mut events) = (fence(1), Vec::new());
    let mut acquire = |leases: &mut Leases, connection, request, key, permits, wait| {
        let ask = ask(key, permits, None, wait);
        leases.acquire(asker(connection, request), ask, 0, &mut fence, &mut events)
    };
    let limit = 5;
    for permits in [0, 6] {
        let refused = acquire(&mut leases, 1, 0, "pool", permits, None);
        assert_eq!(refused, Err(LeaseError::Permits { limit }));
    }
    for (request, key) in ["a", "b", "c"].into_iter().enumerate() {
        let request = u32::try_from(request).unwrap();
        acquire(&mut leases, 1, request, key, 1, None).unwrap();
    }
    let fourth = acquire(&mut leases, 1, 3, "d", 1, None);
    assert_eq!(fourth, Err(LeaseError::Keys { limit: 3 }));
    let other = acquire(&mut leases, 1, 3, "a", 2, None);
    assert_eq!(other, Err(LeaseError::Disagree { permits: 1 }));
    assert_eq!(
        acquire(&mut leases, 2, 0, "a", 1, None),
        Err(LeaseError::Held)
    );
    for request in 10..13 {
        acquire(&mut leases, 1, request, "a", 1, Some(9)).unwrap();
    }
    let seventh = acquire(&mut leases, 1, 13, "a", 1, Some(9));
    assert_eq!(seventh, Err(LeaseError::TooMany { limit: 6 }));
    acquire(&mut leases, 2, 1, "a", 1, Some(9)).unwrap();
    let again = acquire(&mut leases, 2, 1, "b", 1, Some(9));
    assert_eq!(
        again,
        Err(LeaseError::Duplicate {
            request: RequestId(1)
        })
    );
    let fifth = acquire(&mut leases, 3, 1, "a", 1, Some(9));
    assert_eq!(fifth, Err(LeaseError::Waiters { limit: 4 }));
    assert_eq!((leases.totals().granted, leases.totals().refused), (3, 7));
}

#[test]
fn a_restarted_broker_holds_a_lease_for_its_holder_and_then_for_nobody() {
    let (mut fence, mut events) = (fence(100), Vec::new());
    let mut leases = Leases::new(LIMITS);
    let lock = ask("lock", 1, Some(60_000), None);
    leases
        .acquire(asker(1, 1), lock, 0, &mut fence, &mut events)
        .unwrap();
    let LeaseEvent::Keep(record) = events.remove(0) else {
        panic!("the record comes first");
    };
    events.clear();

    let mut leases = Leases::new(LIMITS);
    assert!(leases.restore(record.clone(), 2000));
    assert!(!leases.restore(record.clone(), 2000), "it is there");
    let second = LeaseRecord { token: 7, ..record };
    assert!(!leases.restore(second, 2000), "one lock, one holder");
    let wish = ask("lock", 1, None, Some(5000));
    leases
        .acquire(asker(2, 1), wish, 10, &mut fence, &mut events)
        .unwrap();
    assert_eq!((events.len(), leases.next_deadline()), (0, Some(2000)));
    leases.expire(2000, &mut fence, &mut events);
    assert_eq!(events[0], LeaseEvent::Forget(100));
    assert_eq!(events[2], LeaseEvent::Granted(asker(2, 1), 101));
    let late = leases.reclaim(ConnectionId(9), 100, b"lock", 2001, &mut fence, &mut events);
    assert_eq!(late, Err(LeaseError::NotHeld { token: 100 }));
    assert_eq!(leases.totals().unclaimed, 1);
}

#[test]
fn a_token_that_does_not_grow_is_no_token() {
    let mut leases = Leases::new(LIMITS);
    let mut events = Vec::new();
    let mut stuck = || Some(7);
    let first = ask("a", 1, None, None);
    leases
        .acquire(asker(1, 1), first, 0, &mut stuck, &mut events)
        .unwrap();
    let second = ask("b", 1, None, None);
    let refused = leases.acquire(asker(1, 2), second, 0, &mut stuck, &mut events);
    assert_eq!(refused, Err(LeaseError::NoToken));
    assert_eq!((leases.keys(), leases.totals().no_token), (1, 1));
}

#[test]
fn a_renewal_may_change_time_and_value_and_observers_hear_of_it() {
    let mut leases = Leases::new(LIMITS);
    let (mut fence, mut events) = (fence(1), Vec::new());
    let (owner, watcher) = (ConnectionId(1), asker(2, 9));
    leases.observe(watcher, b"chief", &mut events).unwrap();
    let wish = ask("chief", 1, Some(10), Some(u64::MAX));
    leases
        .acquire(asker(1, 1), wish.clone(), 0, &mut fence, &mut events)
        .unwrap();
    let change = (Some(50), Some(&b"new"[..]));
    let until = leases.renew(owner, 1, change, 5, &mut fence, &mut events);
    assert_eq!(until, Ok(Some(55)));
    let key = Bytes::from("chief");
    assert_eq!(
        events
            .iter()
            .filter(|e| **e == LeaseEvent::Holders(watcher, key.clone()))
            .count(),
        3
    );
    assert_eq!(leases.holders(b"chief").next().unwrap().0.value, "new");
    // One who waits for ever arms no timer.
    leases
        .acquire(asker(3, 1), wish, 6, &mut fence, &mut events)
        .unwrap();
    assert_eq!(leases.next_deadline(), Some(55));
    assert!(leases.unobserve(watcher) && !leases.unobserve(watcher));
    leases
        .release(owner, 1, 7, &mut fence, &mut events)
        .unwrap();
    assert!(events.contains(&LeaseEvent::Granted(asker(3, 1), 2)));
}
