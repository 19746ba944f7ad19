//! What the broker says of itself, taps, its limits, and its stop.

use crate::brokers::{run, Broker};
use crate::harness::{status_number, wait_until};
use ganger_client::blocking;
use ganger_client::protocol::ErrorCode;
use ganger_client::{Error, Event, Policy, Reconnect, SubscribeOptions, WatchEvent};
use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

#[test]
fn listings_show_topics_with_lag_and_drops_clients_and_leases() {
    run(async {
        let broker = Broker::start();
        let (named, other) = (broker.client().name("reader"), broker.connect().await);
        let reader = named.connect().await.unwrap();
        let _messages = reader.subscribe("a.*").await.unwrap();
        let _member = reader.queue_subscribe("a.b", "g").await.unwrap();
        let _responder = reader.respond("q").await.unwrap();
        let _watch = reader.watch("k").await.unwrap();
        let _lease = reader.lock("l").await.unwrap();
        for _ in 0..10 {
            other.publish("a.b", "12345").await.unwrap();
        }
        other.flush().await.unwrap();
        let topics = other.topics("").await.unwrap();
        let names: Vec<_> = topics.iter().map(|topic| &topic.pattern[..]).collect();
        assert_eq!(names, ["a.*", "a.b", "q"]);
        assert_eq!((topics[0].published, topics[0].last_seq), (10, 10));
        let [one] = &topics[0].subscribers[..] else {
            panic!("{topics:?}")
        };
        assert_eq!((&one.client[..], one.pid), ("reader", std::process::id()));
        assert_eq!(one.lag + one.delivered + one.dropped, 10);
        assert_eq!(topics[1].subscribers[0].group.as_deref(), Some("g"));
        assert!(topics[2].subscribers[0].responds);
        let clients = other.clients().await.unwrap();
        let reader = clients
            .iter()
            .find(|client| client.name == "reader")
            .unwrap();
        assert_eq!(
            (
                reader.subscriptions,
                reader.watches,
                reader.leases,
                reader.region
            ),
            (3, 1, 1, true)
        );
        assert!(reader.bytes_in > 0 && reader.bytes_out > 50 && reader.frames_out > 10);
        let leases = other.leases("").await.unwrap();
        assert_eq!((&leases[0].name[..], leases[0].permits), ("l", 1));
        assert_eq!(leases[0].holders[0].client, "reader");
        let stats = other.stats().await.unwrap();
        assert_eq!(stats.pid, broker.pid());
        assert_eq!(stats.counters["ganger_broker_published_total"], 10);
        assert_eq!(stats.counters["ganger_broker_connections"], 2);
        assert!(other.disconnect(reader.connection).await.unwrap());
        assert!(!other.disconnect(999).await.unwrap());
    });
}

#[test]
fn metrics_are_prometheus_text_of_all_parts() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let text = client.metrics().await.unwrap();
        let mut seen = HashSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, number) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with("ganger_broker_"), "{line}");
            assert!(seen.insert(series), "{series} stands twice");
            number.parse::<u64>().unwrap();
        }
        for name in [
            "connections",
            "published_total",
            "requests_total",
            "watches",
            "leases",
            "taps",
            "snapshots_written_total",
            "region_entries",
            "kv_operations_total",
            "gaps_total",
        ] {
            assert!(
                seen.contains(&format!("ganger_broker_{name}")[..]),
                "{name}"
            );
        }
    });
}

#[test]
fn a_tap_sees_all_and_takes_nothing_from_anybody() {
    run(async {
        let broker = Broker::start();
        let (client, looker) = (broker.connect().await, broker.connect().await);
        let mut tap = looker.tap("a.>").await.unwrap();
        let mut member = client.queue_subscribe("a.jobs", "g").await.unwrap();
        let large = vec![b'x'; 100_000];
        client.publish("a.jobs", &large).await.unwrap();
        client.publish("b.jobs", "not tapped").await.unwrap();
        let nobody = client.request("a.ask", "?").await;
        assert!(matches!(nobody, Err(Error::NoResponders)));
        assert_eq!(member.next_message().await.unwrap().payload(), large);
        assert_eq!(tap.next_message().await.unwrap().payload(), large);
        assert_eq!(tap.next_message().await.unwrap().subject(), "a.ask");
        let topics = client.topics("").await.unwrap();
        assert_eq!(topics.len(), 1, "a tap is no subscriber");
    });
}

#[test]
fn the_same_without_tokio() {
    let broker = Broker::start();
    let client = blocking::Client::connect_with(&broker.client()).unwrap();
    let mut messages = client.subscribe("a").unwrap();
    let options = SubscribeOptions::new().policy(Policy::Disconnect);
    drop(client.subscribe_with("b", options).unwrap());
    client.publish("a", "1").unwrap();
    assert!(matches!(messages.next(), Some(Event::Message(one)) if one.payload() == b"1"));
    client.remote_kv().set("k", "v").unwrap();
    let mut watch = client.watch("k").unwrap();
    assert!(matches!(
        watch.next(),
        Some(WatchEvent::Begin { gap: None })
    ));
    assert!(matches!(watch.next(), Some(WatchEvent::Entry(entry)) if entry.value() == b"v"));
    let lock = client.lock("l").unwrap();
    assert!(client.try_lock("l").unwrap().is_none());
    lock.release().unwrap();
    assert_eq!(client.stats().unwrap().pid, broker.pid());
    assert!(client.snapshot(|_| {}).unwrap().entries > 0);
    assert!(client.audit().unwrap().problems.is_empty());
    client.close().unwrap();
}

/// Without descriptors left, accepting rests, and those who are there are served as before.
#[test]
fn without_descriptors_those_who_are_there_are_served_and_others_wait() {
    run(async {
        let mut broker = Broker::idle(&[]);
        let plain = broker.command();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -n 24; exec \"$0\" \"$@\""]);
        command.arg(plain.get_program()).args(plain.get_args());
        command.stdout(std::process::Stdio::null());
        command.stderr(fs::File::create(broker.home.join("log")).unwrap());
        broker.run(command);
        let client = broker.connect().await;
        let mut held: Vec<_> = (0..40)
            .map(|_| UnixStream::connect(broker.socket()).unwrap())
            .collect();
        let log = broker.home.join("log");
        wait_until("accepting to rest", || {
            fs::read_to_string(&log)
                .unwrap()
                .contains("accepting rests")
        });
        for number in 0..100 {
            assert_eq!(client.remote_kv().incr("n", 1).await.unwrap(), number + 1);
        }
        // It rests, it does not spin.
        let failures =
            client.stats().await.unwrap().counters["ganger_broker_accept_failures_total"];
        assert!(failures > 0);
        held.clear();
        broker
            .connect()
            .await
            .remote_kv()
            .incr("n", 1)
            .await
            .unwrap();
    });
}

#[test]
fn one_connection_more_than_allowed_is_told_so() {
    run(async {
        let broker = Broker::with(&["--max-connections", "3"]);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(broker.connect().await);
        }
        let once = broker
            .client()
            .patience(Duration::ZERO)
            .reconnect(Reconnect::never());
        let refused = once.connect().await.map(drop).unwrap_err();
        let refusal = refused.refusal().unwrap_or_else(|| panic!("{refused:?}"));
        assert_eq!(refusal.code, ErrorCode::TooManyConnections);
        held[0].close().await.unwrap();
        broker.connect().await;
    });
}

#[test]
fn a_second_broker_in_a_home_is_refused_and_the_first_stops_in_good_order() {
    run(async {
        let mut broker = Broker::start();
        let client = broker
            .client()
            .reconnect(Reconnect::never())
            .connect()
            .await
            .unwrap();
        let second = broker.command().output().unwrap();
        assert!(!second.status.success());
        let log = broker.log();
        assert!(log.contains("a broker is running in "), "{log}");
        let mut messages = client.subscribe("a").await.unwrap();
        client.publish("a", "last").await.unwrap();
        client.flush().await.unwrap();
        assert!(broker.stop().success());
        assert_eq!(messages.next_message().await.unwrap().payload(), b"last");
        assert!(messages.next().await.is_none());
        assert!(!broker.socket().exists());
    });
}

/// Resident memory with 100 idle clients, and processor time of a second without work: both are
/// printed; the first has a bound that leaves no doubt, the second is exact to a clock tick.
#[test]
fn an_idle_broker_with_a_hundred_clients_costs_nothing() {
    run(async {
        let broker = Broker::start();
        let mut clients = Vec::new();
        for _ in 0..100 {
            let client = broker.client().without_region().connect().await.unwrap();
            clients.push((client.subscribe("a").await.unwrap(), client));
        }
        let ticks = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", broker.pid())).unwrap();
            let behind = stat.rsplit_once(')').unwrap().1;
            let fields: Vec<&str> = behind.split_whitespace().collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        let before = ticks();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let spent = ticks() - before;
        let number = |field| status_number(broker.pid(), field).unwrap();
        let (resident, shared) = (number("VmRSS:"), number("RssShmem:"));
        println!("{spent} ticks in a second; {resident} KiB resident, {shared} of them the region");
        assert!(spent <= 1, "{spent} ticks");
        // Without optimisation the program's own code is larger than all it keeps.
        let limit = if cfg!(debug_assertions) { 32 } else { 8 };
        assert!(resident - shared < limit << 10, "{resident} KiB");
    });
}

/// Nobody looks whether something has changed while nothing does.
#[test]
fn an_idle_broker_with_a_watcher_sleeps() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let kv = client.kv().unwrap();
        kv.set("k", "v").unwrap();
        kv.set_for("later", "v", Duration::from_secs(3600)).unwrap();
        let mut watch = client.watch_prefix("").await.unwrap();
        while !matches!(watch.next().await, Some(WatchEvent::End { .. })) {}
        // What the start takes is over when nothing switches any more for a while.
        let mut before = switches(broker.pid());
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let now = switches(broker.pid());
            if now - before < 10 {
                // And it is told at once all the same.
                kv.set("k", "w").unwrap();
                assert!(matches!(watch.next().await, Some(WatchEvent::Change(..))));
                return;
            }
            before = now;
        }
        panic!("the broker does not come to rest");
    });
}

/// How often the threads of a process went to sleep by themselves.
fn switches(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: std::io::Result<fs::DirEntry>| {
        // One may end meanwhile.
        let thread = format!("{pid}/task/{}", task.ok()?.file_name().to_str()?);
        status_number(thread, "voluntary_ctxt_switches:")
    };
    tasks.filter_map(of_task).sum()
}

/// A peer that sends garbage is told what is wrong with it, and nobody else notices.
#[test]
fn garbage_ends_its_own_connection_with_a_reason() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0; 64]] {
            let mut stream = UnixStream::connect(broker.socket()).unwrap();
            std::io::Write::write_all(&mut stream, garbage).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(30)))
                .unwrap();
            let mut told = Vec::new();
            stream.read_to_end(&mut told).unwrap();
            assert!(told.windows(9).any(|word| word == b"bad_frame"), "{told:?}");
        }
        client.remote_kv().set("k", "v").await.unwrap();
    });
}
