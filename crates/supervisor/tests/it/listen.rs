//! Slot listeners: who gets a connection, and what never gets lost.

use crate::ports::free_port;
use crate::support::{alone, until, Folder};
use ganger_supervisor::config::Balance;
use ganger_supervisor::listen::{Address, ListenError, Listeners, Side, Slot};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

const ANY_PORT: &str = "127.0.0.1:0";

fn slot(worker: u16, side: Side) -> Slot {
    Slot { worker, side }
}

fn weights(pairs: &[(Slot, u32)]) -> BTreeMap<Slot, u32> {
    pairs.iter().copied().collect()
}

fn parse(text: &str) -> Address {
    text.parse().unwrap()
}

/// A worker's listener.
fn take(listeners: &mut Listeners, address: &Address, slot: Slot) -> TcpListener {
    let (fd, _) = listeners.socket(address, 0, 128, slot).unwrap();
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(true).unwrap();
    listener
}

/// So many connections; they stay in the queues.
fn connect(address: &Address, count: usize) -> Vec<TcpStream> {
    let address = address.socket().unwrap();
    (0..count)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect()
}

/// Takes all that waits.
fn drain(listener: &TcpListener) -> usize {
    let mut count = 0;
    loop {
        match listener.accept() {
            Ok(_) => count += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn connections_are_spread_evenly() {
    let mut listeners = Listeners::new("even", Balance::Reuseport, 4);
    let address = listeners.declare(&parse(ANY_PORT)).unwrap();
    let slots: Vec<Slot> = (0..4).map(|worker| slot(worker, Side::A)).collect();
    let all: Vec<_> = slots.iter().map(|slot| (*slot, 1)).collect();
    listeners.route(&weights(&all)).unwrap();
    let workers: Vec<_> = slots
        .iter()
        .map(|slot| take(&mut listeners, &address, *slot))
        .collect();
    let mut counts = [0_usize; 4];
    for _ in 0..40 {
        let connections = connect(&address, 100);
        for (count, worker) in counts.iter_mut().zip(&workers) {
            *count += drain(worker);
        }
        drop(connections);
    }
    assert_eq!(counts.iter().sum::<usize>(), 4000);
    // A fair coin of 4000 throws is within 200 of 1000 but once in 10^12 times.
    assert!(
        counts.iter().all(|count| (800..1200).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn weights_are_kept_and_zero_gets_nothing() {
    let mut listeners = Listeners::new("weights", Balance::Reuseport, 3);
    let address = listeners.declare(&parse(ANY_PORT)).unwrap();
    let slots: Vec<Slot> = (0..3).map(|worker| slot(worker, Side::A)).collect();
    let workers: Vec<_> = slots
        .iter()
        .map(|slot| take(&mut listeners, &address, *slot))
        .collect();
    listeners
        .route(&weights(&[(slots[0], 90), (slots[1], 10), (slots[2], 0)]))
        .unwrap();
    let mut counts = [0_usize; 3];
    for _ in 0..20 {
        let connections = connect(&address, 100);
        for (count, worker) in counts.iter_mut().zip(&workers) {
            *count += drain(worker);
        }
        drop(connections);
    }
    assert_eq!(counts[2], 0);
    assert!((80..350).contains(&counts[1]), "{counts:?}");
    assert_eq!(counts[0] + counts[1], 2000);
}

#[test]
fn a_switch_moves_all_new_connections_and_none_that_wait() {
    let mut listeners = Listeners::new("switch", Balance::Reuseport, 2);
    let address = listeners.declare(&parse(ANY_PORT)).unwrap();
    let second = listeners.declare(&parse(ANY_PORT));
    let both = [address, second.unwrap()];
    let old = weights(&[(slot(0, Side::A), 1), (slot(1, Side::A), 1)]);
    let new = weights(&[(slot(0, Side::B), 1), (slot(1, Side::B), 1)]);
    listeners.route(&old).unwrap();
    let queued = |listeners: &Listeners, side| {
        listeners.queue_len(slot(0, side)) + listeners.queue_len(slot(1, side))
    };
    let before: Vec<_> = both.iter().map(|address| connect(address, 20)).collect();
    assert_eq!(queued(&listeners, Side::A), 40);
    listeners.route(&new).unwrap();
    let after: Vec<_> = both.iter().map(|address| connect(address, 20)).collect();
    assert_eq!(queued(&listeners, Side::A), 40);
    assert_eq!(queued(&listeners, Side::B), 40);
    // Back again, as a rollback does.
    listeners.route(&old).unwrap();
    let again: Vec<_> = both.iter().map(|address| connect(address, 20)).collect();
    assert_eq!(queued(&listeners, Side::A), 80);
    assert_eq!(queued(&listeners, Side::B), 40);
    drop((before, after, again));
}

#[test]
fn a_switch_under_load_loses_nothing() {
    let mut listeners = Listeners::new("load", Balance::Reuseport, 2);
    let address = listeners.declare(&parse(ANY_PORT)).unwrap();
    let sides = [Side::A, Side::B];
    let slots: Vec<Slot> = sides
        .iter()
        .flat_map(|side| [slot(0, *side), slot(1, *side)])
        .collect();
    let workers: Vec<_> = slots
        .iter()
        .map(|slot| take(&mut listeners, &address, *slot))
        .collect();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let served = std::sync::atomic::AtomicUsize::new(0);
    let order = std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        for worker in &workers {
            scope.spawn(|| {
                while !is_over.load(order) {
                    match worker.accept() {
                        Ok((mut stream, _)) => stream.write_all(b"served").unwrap(),
                        Err(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
                    }
                }
            });
        }
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let mut stream = TcpStream::connect(address.socket().unwrap()).unwrap();
                        let mut text = String::new();
                        stream.read_to_string(&mut text).unwrap();
                        assert_eq!(text, "served");
                        served.fetch_add(1, order);
                    }
                })
            })
            .collect();
        // Not as fast as can be: each switch leaves the kernel a program to free, and a thousand of
        // them waiting for that at once have locked up Linux 6.18.
        let mut switches = 0;
        while !clients
            .iter()
            .all(std::thread::ScopedJoinHandle::is_finished)
        {
            if served.load(order) / 15 >= switches {
                let side = sides[switches % 2];
                let weights = weights(&[(slot(0, side), 1), (slot(1, side), 1)]);
                listeners.route(&weights).unwrap();
                switches += 1;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(switches > 1);
        is_over.store(true, order);
    });
    assert_eq!(served.load(order), 900);
}

#[test]
fn the_queue_of_a_dead_worker_waits_for_the_next() {
    let mut listeners = Listeners::new("queue", Balance::Reuseport, 2);
    let address = listeners.declare(&parse(ANY_PORT)).unwrap();
    let own = slot(1, Side::A);
    listeners.route(&weights(&[(own, 1)])).unwrap();
    let dead = take(&mut listeners, &address, own);
    let mut connections = connect(&address, 5);
    drop(dead);
    assert_eq!(listeners.queue_len(own), 5);
    let next = take(&mut listeners, &address, own);
    for _ in 0..5 {
        let (mut stream, _) = next.accept().unwrap();
        stream.write_all(b"served").unwrap();
    }
    for connection in &mut connections {
        let mut text = String::new();
        connection.read_to_string(&mut text).unwrap();
        assert_eq!(text, "served");
    }
    assert_eq!(listeners.queue_len(own), 0);
}

#[test]
fn workers_come_and_go_without_a_lost_connection() {
    let mut listeners = Listeners::new("scale", Balance::Reuseport, 2);
    let address = listeners.declare(&parse(ANY_PORT)).unwrap();
    let mut connections = Vec::new();
    for (round, workers) in [2_u16, 4, 1, 3].into_iter().enumerate() {
        let slots: Vec<_> = (0..workers)
            .map(|worker| (slot(worker, Side::A), 1))
            .collect();
        listeners.route(&weights(&slots)).unwrap();
        let queued = |workers: u16| {
            (0..workers)
                .map(|w| listeners.queue_len(slot(w, Side::A)))
                .sum::<u32>()
        };
        let before = queued(workers);
        connections.extend(connect(&address, 40));
        assert_eq!(queued(workers), before + 40, "{workers} workers");
        assert_eq!(queued(4), 40 * (round as u32 + 1));
    }
}

#[test]
fn an_address_that_some_workers_serve_is_theirs_alone() {
    let mut listeners = Listeners::new("some", Balance::Reuseport, 4);
    let slots: Vec<_> = (0..4).map(|worker| (slot(worker, Side::A), 1)).collect();
    listeners.route(&weights(&slots)).unwrap();
    let (fd, address) = listeners
        .socket(&parse(ANY_PORT), 0, 128, slot(2, Side::A))
        .unwrap();
    let only = TcpListener::from(fd);
    only.set_nonblocking(true).unwrap();
    let connections = connect(&address, 30);
    assert_eq!(drain(&only), 30);
    // A second one takes its share from then on.
    let other = take(&mut listeners, &address, slot(0, Side::A));
    let more = connect(&address, 60);
    let share = drain(&other);
    assert_eq!(drain(&only) + share, 60);
    assert!(share > 5, "{share}");
    // And one that closes its listener gets nothing more.
    listeners.release(&address, slot(0, Side::A));
    let last = connect(&address, 30);
    assert_eq!((drain(&only), drain(&other)), (30, 0));
    drop((connections, more, last));
}

#[test]
fn a_port_that_the_system_chose_is_given_back_when_all_closed_it() {
    let _alone = alone();
    let mut listeners = Listeners::new("free", Balance::Reuseport, 2);
    let (fd, address) = listeners
        .socket(&parse(ANY_PORT), 0, 8, slot(0, Side::A))
        .unwrap();
    let (same, again) = listeners
        .socket(&parse(ANY_PORT), 0, 8, slot(1, Side::A))
        .unwrap();
    assert_eq!(address, again, "the same for all workers");
    let (_, other) = listeners
        .socket(&parse(ANY_PORT), 1, 8, slot(1, Side::A))
        .unwrap();
    assert_ne!(address, other, "but another for another request");
    drop((fd, same));
    listeners.release(&address, slot(0, Side::A));
    drop(connect(&address, 1));
    listeners.release(&address, slot(1, Side::A));
    let refused = TcpStream::connect(address.socket().unwrap()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(listeners.addresses(), [other]);
}

#[test]
fn with_one_queue_for_all_the_switch_still_moves_all() {
    let mut listeners = Listeners::new("shared", Balance::Shared, 3);
    let address = listeners.declare(&parse(ANY_PORT)).unwrap();
    let old = take(&mut listeners, &address, slot(0, Side::A));
    let also_old = take(&mut listeners, &address, slot(2, Side::A));
    let new = take(&mut listeners, &address, slot(1, Side::B));
    listeners
        .route(&weights(&[(slot(0, Side::A), 1), (slot(2, Side::A), 1)]))
        .unwrap();
    let first = connect(&address, 10);
    assert!(old.accept().is_ok());
    assert_eq!(drain(&also_old), 9, "any worker takes from the one queue");
    listeners.route(&weights(&[(slot(1, Side::B), 1)])).unwrap();
    let second = connect(&address, 10);
    assert_eq!((drain(&new), drain(&old)), (10, 0));
    drop((first, second));
}

#[test]
fn a_listener_that_was_shut_down_listens_again() {
    let mut listeners = Listeners::new("shutdown", Balance::Reuseport, 4);
    let address = listeners.declare(&parse(ANY_PORT)).unwrap();
    let slots: Vec<_> = (0..4).map(|worker| (slot(worker, Side::A), 1)).collect();
    listeners.route(&weights(&slots)).unwrap();
    let workers: Vec<_> = slots
        .iter()
        .map(|(slot, _)| take(&mut listeners, &address, *slot))
        .collect();
    rustix::net::shutdown(&workers[1], rustix::net::Shutdown::Both).unwrap();
    listeners.heal();
    for (worker, (slot, _)) in workers.iter().zip(&slots) {
        listeners.route(&weights(&[(*slot, 1)])).unwrap();
        let connections = connect(&address, 3);
        assert_eq!(drain(worker), 3, "{slot:?}");
        drop(connections);
    }
}

#[test]
fn v6_dual_stack_and_v6_only() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 here");
        return;
    }
    let mut listeners = Listeners::new("six", Balance::Reuseport, 1);
    let own = slot(0, Side::A);
    let port = free_port();
    let dual = listeners.declare(&parse(&format!("[::]:{port}"))).unwrap();
    let worker = take(&mut listeners, &dual, own);
    for ip in ["127.0.0.1", "[::1]"] {
        TcpStream::connect(format!("{ip}:{port}")).unwrap();
    }
    assert_eq!(drain(&worker), 2);
    let port = free_port();
    let only = format!("[::]:{port},v6only");
    let only = listeners.declare(&parse(&only)).unwrap();
    let worker = take(&mut listeners, &only, own);
    TcpStream::connect(format!("[::1]:{port}")).unwrap();
    assert!(TcpStream::connect(format!("127.0.0.1:{port}")).is_err());
    assert_eq!(drain(&worker), 1);
    // The other half of the port is free for a v4 listener of the same app.
    let four: SocketAddr = format!("0.0.0.0:{port}").parse().unwrap();
    listeners.declare(&Address::tcp(four)).unwrap();
    TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
}

#[test]
fn datagrams_of_a_peer_stay_together_and_peers_are_spread() {
    // The port that the system chooses is bound twice.
    let _alone = alone();
    for any in ["udp:127.0.0.1:0", "udp:[::]:0"] {
        let mut listeners = Listeners::new("udp", Balance::Reuseport, 4);
        let slots: Vec<_> = (0..4).map(|worker| (slot(worker, Side::A), 1)).collect();
        listeners.route(&weights(&slots)).unwrap();
        let address = listeners.declare(&parse(any)).unwrap();
        let workers: Vec<UdpSocket> = slots
            .iter()
            .map(|(slot, _)| listeners.socket(&address, 0, 0, *slot).unwrap().0)
            .map(|fd: OwnedFd| UdpSocket::from(fd))
            .collect();
        let port = address.socket().unwrap().port();
        let mut busy = [0; 4];
        for _ in 0..64 {
            let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
            for _ in 0..3 {
                peer.send_to(b"x", ("127.0.0.1", port)).unwrap();
            }
            let got: Vec<usize> = workers
                .iter()
                .map(|worker| {
                    worker.set_nonblocking(true).unwrap();
                    std::iter::from_fn(|| worker.recv_from(&mut [0; 8]).ok()).count()
                })
                .collect();
            let at = got.iter().position(|count| *count == 3);
            busy[at.unwrap_or_else(|| panic!("{got:?}"))] += 1;
        }
        assert!(busy.iter().all(|count| *count > 0), "{any}: {busy:?}");
    }
}

#[test]
fn a_unix_socket_is_removed_at_the_end_and_a_stale_one_at_the_start() {
    let _alone = alone();
    let folder = Folder::new();
    let path = folder.0.join("app.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a stale one is left");
    let address = Address::Unix(path.clone());
    let mut listeners = Listeners::new("unix", Balance::Reuseport, 2);
    listeners.declare(&address).unwrap();
    let (fd, _) = listeners
        .socket(&address, 0, 128, slot(1, Side::B))
        .unwrap();
    let worker = UnixListener::from(fd);
    let client = UnixStream::connect(&path).unwrap();
    worker.accept().unwrap();
    drop(client);
    // Programs remove a socket's file before they bind, and when they end.
    std::fs::remove_file(&path).unwrap();
    listeners.heal();
    UnixStream::connect(&path).unwrap();
    let mut other = Listeners::new("other", Balance::Reuseport, 1);
    let error = other.declare(&address).unwrap_err();
    assert!(error.to_string().contains("app `unix`"), "{error}");
    drop((listeners, worker));
    assert_eq!(
        std::fs::read_dir(&folder.0).unwrap().count(),
        0,
        "no file is left"
    );
    // One that is alive, or no socket at all, is nobody's to remove.
    let alive = UnixListener::bind(&path).unwrap();
    let error = other.declare(&address).unwrap_err();
    assert!(
        matches!(&error, ListenError::Busy { holder, .. }
        if holder.contains(&std::process::id().to_string())),
        "{error}"
    );
    drop(alive);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(
        other.declare(&address),
        Err(ListenError::NoSocket { .. })
    ));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_busy_port_names_who_holds_it() {
    let _alone = alone();
    let other = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let address = Address::tcp(other.local_addr().unwrap());
    let mut listeners = Listeners::new("busy", Balance::Reuseport, 1);
    let error = listeners.declare(&address).unwrap_err();
    assert!(
        matches!(&error, ListenError::Busy { holder, .. }
        if holder.contains(&std::process::id().to_string())),
        "{error}"
    );
    assert_eq!(error.errno(), libc::EADDRINUSE);
    drop(other);
    listeners.declare(&address).unwrap();
    let mut second = Listeners::new("second", Balance::Reuseport, 1);
    let error = second.declare(&address).unwrap_err();
    assert!(
        matches!(&error, ListenError::App { app, .. } if app == "busy"),
        "{error}"
    );
    // Under another name it is still the same port.
    let port = address.socket().unwrap().port();
    let whole = parse(&format!("0.0.0.0:{port}"));
    assert!(matches!(
        second.declare(&whole),
        Err(ListenError::App { .. })
    ));
    assert!(matches!(
        listeners.declare(&whole),
        Err(ListenError::Own { .. })
    ));
    drop(listeners);
    second.declare(&address).unwrap();
}

#[test]
fn an_address_of_another_machine_is_told_so() {
    let mut listeners = Listeners::new("far", Balance::Reuseport, 1);
    let error = listeners.declare(&parse("192.0.2.1:80")).unwrap_err();
    assert!(matches!(error, ListenError::Unavailable { .. }), "{error}");
    assert!(listeners.addresses().is_empty());
}

#[test]
fn the_most_workers_share_one_address() {
    let mut listeners = Listeners::new("most", Balance::Reuseport, 2);
    let address = listeners.declare(&parse(ANY_PORT)).unwrap();
    let all: Vec<_> = (0..ganger_supervisor::config::WORKERS_MAX)
        .flat_map(|worker| {
            let weight = u32::from(worker) + 1;
            [
                (slot(worker, Side::A), weight),
                (slot(worker, Side::B), weight + 7),
            ]
        })
        .collect();
    if let Err(error) = listeners.route(&weights(&all)) {
        // The only excuse is a limit of descriptors below what so many workers need.
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        assert!(files.is_some_and(|files| files < 2048), "{error}");
        return;
    }
    let connections = connect(&address, 200);
    let queued = || {
        all.iter()
            .map(|(slot, _)| listeners.queue_len(*slot))
            .sum::<u32>()
    };
    until("all are queued", || (queued() == 200).then_some(()));
    drop(connections);
}
