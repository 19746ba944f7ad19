use super::*;
use crate::reserved::{lease_key, FENCE_KEY, LEASE_PREFIX};
use bytes::Bytes;
use ganger_region::{Config, Cursor, Options};
use std::collections::BTreeSet;

fn region() -> Region {
    Region::create(&Config::new(4 << 20), Options::new()).unwrap()
}

fn caller(number: u64) -> Caller {
    Caller {
        connection: ConnectionId(number),
        name: format!("client {number}"),
        pid: 1000 + u32::try_from(number).unwrap(),
    }
}

fn asker(connection: u64, id: u32) -> Asker {
    Asker {
        connection: ConnectionId(connection),
        request: RequestId(id),
    }
}

fn lock(name: &str) -> Acquire {
    Acquire {
        name: name.to_owned(),
        ..Acquire::default()
    }
}

fn service(region: &Region, now_ms: u64) -> LeaseService {
    LeaseService::new(region.clone(), &Limits::default(), now_ms, 100)
}

fn ask(
    service: &mut LeaseService,
    who: u64,
    id: u32,
    request: LeaseRequest,
    now: u64,
) -> Vec<Tell> {
    let mut out = Vec::new();
    service.request(&caller(who), id, request, now, &mut out);
    out
}

fn acquire(service: &mut LeaseService, who: u64, id: u32, acquire: Acquire) -> Vec<Tell> {
    ask(service, who, id, LeaseRequest::Acquire(acquire), 0)
}

fn token(tells: &[Tell]) -> u64 {
    let granted = tells.iter().find_map(|tell| match tell.what {
        Told::Event(LeaseEvent::Granted { token, .. }) => Some(token),
        _ => None,
    });
    granted.unwrap_or_else(|| panic!("{tells:?}"))
}

fn code(tells: &[Tell]) -> ErrorCode {
    match tells {
        [Tell {
            what: Told::Error(error),
            ends: true,
            ..
        }] => error.code.clone(),
        _ => panic!("{tells:?}"),
    }
}

fn records(region: &Region) -> BTreeSet<Vec<u8>> {
    let page = region.scan(LEASE_PREFIX, Cursor::START, usize::MAX);
    page.unwrap()
        .entries
        .into_iter()
        .map(|(key, _)| key)
        .collect()
}

#[test]
fn a_lease_is_recorded_before_it_is_told_and_gone_when_it_ends() {
    let region = region();
    let mut service = service(&region, 0);
    let first = token(&acquire(&mut service, 1, 1, lock("door")));
    assert_eq!(records(&region), [lease_key(first)].into());
    let queued = acquire(&mut service, 2, 5, lock("door"));
    assert_eq!(
        queued,
        [Tell::going(asker(2, 5), LeaseEvent::Queued { ahead: 0 })]
    );
    let queued = acquire(&mut service, 3, 5, lock("door"));
    assert_eq!(
        queued,
        [Tell::going(asker(3, 5), LeaseEvent::Queued { ahead: 1 })]
    );
    let release = LeaseRequest::Release {
        name: "door".into(),
        token: first,
    };
    let told = ask(&mut service, 1, 9, release.clone(), 0);
    let second = token(&told);
    let reclaimed = false;
    let expected = [
        Tell::last(asker(1, 1), LeaseEvent::Released {}),
        Tell::last(asker(1, 9), LeaseEvent::Released {}),
        Tell::going(
            asker(2, 5),
            LeaseEvent::Granted {
                token: second,
                reclaimed,
            },
        ),
    ];
    assert_eq!(told, expected);
    assert!(second > first);
    assert_eq!(records(&region), [lease_key(second)].into());
    assert_eq!(
        code(&ask(&mut service, 1, 9, release, 0)),
        ErrorCode::NotHeld
    );
    // Both of those who are left go, the one that waits first.
    let mut out = Vec::new();
    service.connection_ended(ConnectionId(3), 0, &mut out);
    service.connection_ended(ConnectionId(2), 0, &mut out);
    assert_eq!((out, records(&region).len()), (vec![], 0));
    assert_eq!(service.leases().keys(), 0);
    assert!(service.askers.is_empty() && service.tokens.is_empty());
}

#[test]
fn a_holder_that_was_told_comes_back_to_the_next_broker_within_the_grace_time() {
    let region = region();
    let mut before = service(&region, 0);
    let kept = token(&acquire(&mut before, 1, 1, lock("kept")));
    let lost = token(&acquire(&mut before, 2, 1, lock("lost")));
    drop(before);
    region.set(&lease_key(7), b"no record").unwrap();

    let mut after = LeaseService::new(region.clone(), &Limits::default(), 1000, 1);
    assert_eq!((after.totals().1.restored, after.totals().1.broken), (2, 1));
    // Nobody else gets it.
    assert!(matches!(
        acquire(&mut after, 5, 1, lock("lost"))[..],
        [Tell {
            what: Told::Event(LeaseEvent::Queued { .. }),
            ..
        }]
    ));
    let observed = ask(
        &mut after,
        6,
        1,
        LeaseRequest::Observe {
            name: "kept".into(),
        },
        1000,
    );
    let Told::Event(LeaseEvent::Holders { holders, .. }) = &observed[0].what else {
        panic!("{observed:?}");
    };
    assert_eq!((holders[0].token, holders[0].connection), (kept, 0));
    let reclaim = |token| Acquire {
        reclaim: Some(token),
        wait_ms: Some(0),
        ..lock("kept")
    };
    // Not with another's token.
    assert_eq!(
        code(&acquire(&mut after, 5, 2, reclaim(lost))),
        ErrorCode::Taken
    );
    let mut told = ask(&mut after, 1, 8, LeaseRequest::Acquire(reclaim(kept)), 2000);
    let reclaimed = true;
    let granted = LeaseEvent::Granted {
        token: kept,
        reclaimed,
    };
    assert_eq!(told.pop(), Some(Tell::going(asker(1, 8), granted)));
    assert!(
        matches!(told[..], [Tell { to, .. }] if to == asker(6, 1)),
        "{told:?}"
    );
    assert_eq!(after.next_deadline(), Some(3000));
    let mut out = Vec::new();
    after.expire(3000, &mut out);
    assert_eq!((out[0].to, out.len()), (asker(5, 1), 1));
    assert!(token(&out) > lost);
    assert!(!records(&region).contains(&lease_key(lost)));
}

#[test]
fn tokens_grow_over_a_new_region_an_old_snapshot_and_an_evicted_counter() {
    let region = region();
    let mut service = LeaseService::new(region.clone(), &Limits::default(), 0, 5_000_000);
    let mut last = 5_000_000;
    for (round, spoil) in (1..).zip([0, 1, 2]) {
        let next = token(&acquire(&mut service, 1, round, lock(&format!("{round}"))));
        assert!(next > last);
        last = next;
        match spoil {
            0 => drop(region.delete(FENCE_KEY)),
            1 => drop(region.incr(FENCE_KEY, -3_000_000)),
            _ => {}
        }
    }
    // A counter that somebody put far ahead is followed, and one that is none is an error.
    region.incr(FENCE_KEY, 1 << 40).unwrap();
    assert!(token(&acquire(&mut service, 1, 10, lock("ahead"))) > 1 << 40);
    region.set(FENCE_KEY, b"no counter").unwrap();
    let failed = acquire(&mut service, 1, 11, lock("none"));
    assert_eq!(code(&failed), ErrorCode::NotACounter);
    assert_eq!(service.totals().0.no_token, 1);
}

#[test]
fn a_region_that_takes_no_record_gives_no_lease() {
    let region = Region::create(&Config::new(1 << 20), Options::new()).unwrap();
    let mut service = service(&region, 0);
    let held = token(&acquire(&mut service, 1, 1, lock("door")));
    acquire(&mut service, 2, 1, lock("door"));
    let mut len = 10_000;
    for number in 0..100_000_u32 {
        let key = number.to_be_bytes();
        if region
            .set(&[b"k", &key[..]].concat(), &vec![0; len])
            .is_err()
        {
            if len == 1 {
                break;
            }
            len = (len / 2).max(1);
        }
    }
    let value = Bytes::from(vec![b'v'; 4000]);
    let large = Acquire {
        value: value.clone(),
        ..lock("other")
    };
    assert_eq!(code(&acquire(&mut service, 1, 2, large)), ErrorCode::Full);
    let (ttl_ms, value) = (None, Some(value));
    let renew = LeaseRequest::Renew {
        name: "door".into(),
        token: held,
        ttl_ms,
        value,
    };
    assert_eq!(code(&ask(&mut service, 1, 3, renew, 0)), ErrorCode::Full);
    assert_eq!(service.totals().1.unkept, 2);
    assert_eq!(service.leases().keys(), 1);
    assert_eq!(records(&region), [lease_key(held)].into());
}

#[test]
fn a_lease_that_is_not_renewed_is_lost_and_its_holder_told() {
    let region = region();
    let mut service = service(&region, 0);
    let with_ttl = Acquire {
        ttl_ms: Some(100),
        ..lock("door")
    };
    let held = token(&acquire(&mut service, 1, 1, with_ttl));
    let waits = Acquire {
        wait_ms: Some(50),
        ..lock("door")
    };
    acquire(&mut service, 2, 1, waits);
    let renew = LeaseRequest::Renew {
        name: "door".into(),
        token: held,
        ttl_ms: None,
        value: None,
    };
    let renewed = ask(&mut service, 1, 2, renew.clone(), 40);
    assert_eq!(renewed, [Tell::last(asker(1, 2), LeaseEvent::Renewed {})]);
    let mut out = Vec::new();
    service.expire(139, &mut out);
    assert_eq!(code(&out), ErrorCode::Timeout);
    out.clear();
    service.expire(140, &mut out);
    let [Tell {
        to,
        what: Told::Event(LeaseEvent::Lost { token, .. }),
        ends: true,
    }] = &out[..]
    else {
        panic!("{out:?}");
    };
    assert_eq!((*to, *token), (asker(1, 1), held));
    assert_eq!(
        code(&ask(&mut service, 1, 3, renew, 150)),
        ErrorCode::NotHeld
    );
    assert_eq!((service.next_deadline(), records(&region).len()), (None, 0));
}

#[test]
fn what_is_cancelled_ends_as_what_it_was() {
    let region = region();
    let mut service = service(&region, 0);
    acquire(&mut service, 1, 1, lock("door"));
    acquire(&mut service, 2, 1, lock("door"));
    ask(
        &mut service,
        3,
        1,
        LeaseRequest::Observe {
            name: "door".into(),
        },
        0,
    );
    let mut out = Vec::new();
    assert_eq!(service.cancel(asker(2, 1), 0, &mut out), WasLease::Waiting);
    assert_eq!(service.cancel(asker(2, 1), 0, &mut out), WasLease::Nothing);
    assert_eq!(service.cancel(asker(1, 1), 0, &mut out), WasLease::Going);
    let told: Vec<_> = out.iter().map(|tell| tell.to).collect();
    assert_eq!(told, [asker(3, 1)]);
    assert_eq!(service.cancel(asker(3, 1), 0, &mut out), WasLease::Going);
    assert_eq!(service.leases().keys(), 0);
}

#[test]
fn one_beyond_every_limit_is_refused() {
    let region = region();
    let limits = Limits {
        leases_total: 3,
        leases: 2,
        lease_waiters: 1,
        lease_ttl_ms: 1000,
        lease_value_bytes: 10,
        ..Limits::default()
    };
    let mut service = LeaseService::new(region, &limits, 0, 0);
    let with = |ttl_ms, len: usize, permits| Acquire {
        ttl_ms,
        value: vec![0; len].into(),
        permits,
        ..lock("a")
    };
    for (acquire_with, expected) in [
        (with(Some(1001), 0, 1), ErrorCode::Invalid),
        (with(Some(0), 0, 1), ErrorCode::Invalid),
        (with(None, 11, 1), ErrorCode::Invalid),
        (with(None, 0, PERMITS_MAX + 1), ErrorCode::Invalid),
        (lock(""), ErrorCode::BadSubject),
        (lock("a b"), ErrorCode::BadSubject),
        (lock(&"x".repeat(257)), ErrorCode::BadSubject),
    ] {
        assert_eq!(code(&acquire(&mut service, 1, 1, acquire_with)), expected);
    }
    token(&acquire(&mut service, 1, 1, with(Some(1000), 10, 1)));
    assert_eq!(
        code(&acquire(&mut service, 1, 1, lock("b"))),
        ErrorCode::IdInUse
    );
    assert_eq!(
        code(&acquire(&mut service, 3, 1, with(None, 0, 2))),
        ErrorCode::Invalid
    );
    token(&acquire(&mut service, 1, 2, lock("b")));
    assert_eq!(
        code(&acquire(&mut service, 1, 3, lock("c"))),
        ErrorCode::TooManyLeases
    );
    acquire(&mut service, 2, 1, lock("a"));
    assert_eq!(
        code(&acquire(&mut service, 3, 1, lock("a"))),
        ErrorCode::TooManyWaiters
    );
    token(&acquire(&mut service, 3, 1, lock("c")));
    assert_eq!(
        code(&acquire(&mut service, 4, 1, lock("d"))),
        ErrorCode::TooManyLeases
    );
}
