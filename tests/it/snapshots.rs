//! State that outlives the broker, and the machine: named and inherited regions, snapshots.

use crate::brokers::{run, Broker};
use crate::harness::wait_until;
use crate::watches::Named;
use ganger_client::{Config, Kv};
use std::fs;
use std::os::fd::AsRawFd;
use std::time::Duration;

#[test]
fn a_restarted_broker_finds_all_state_of_a_named_region() {
    run(async {
        let name = format!("ganger-it-state-{}", std::process::id());
        let _named = Named(name.clone());
        let mut broker = Broker::with(&["--region", &name]);
        let kv = broker.connect().await.remote_kv();
        kv.set("k", "v").await.unwrap();
        kv.incr("n", 7).await.unwrap();
        broker.kill();
        broker.restart();
        let client = broker.connect().await;
        assert_eq!(client.remote_kv().incr("n", 1).await.unwrap(), 8);
        assert_eq!(client.kv().unwrap().get("k").unwrap().unwrap(), b"v");
    });
}

/// As a supervisor does it: the region is in a descriptor that the broker inherits.
#[test]
fn a_region_that_is_handed_in_is_used_and_outlives_the_broker() {
    run(async {
        let kv = Kv::create(Config::new(8 << 20)).unwrap();
        kv.set("k", "v").unwrap();
        let mut broker = Broker::idle(&[]);
        for round in 0..3 {
            let mut command = broker.command();
            let fd = kv.region().fd().unwrap();
            // An inherited descriptor is one that stays open over exec: the shell opens it.
            let script = format!(
                "exec \"$0\" \"$@\" 7<>/proc/{}/fd/{}",
                std::process::id(),
                fd.as_raw_fd()
            );
            let program = command.get_program().to_owned();
            let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            command = std::process::Command::new("sh");
            command.arg("-c").arg(script).arg(program).args(arguments);
            command.env("GANGER_REGION_FD", "7");
            command.stdout(std::process::Stdio::null());
            command.stderr(fs::File::create(broker.home.join("log")).unwrap());
            broker.run(command);
            let client = broker.connect().await;
            let remote = client.remote_kv();
            assert_eq!(remote.get("k").await.unwrap().unwrap(), b"v");
            assert_eq!(remote.incr("n", 1).await.unwrap(), round + 1);
            assert_eq!(client.kv().unwrap().incr("n", 0).unwrap(), round + 1);
            broker.kill();
        }
        assert_eq!(kv.incr("n", 0).unwrap(), 3);
    });
}

#[test]
fn a_new_region_is_filled_from_the_snapshot_and_a_broken_one_is_refused_by_name() {
    run(async {
        let mut broker = Broker::start();
        let client = broker.connect().await;
        let kv = client.remote_kv();
        for number in 0..2000 {
            kv.set(format!("{number}"), "first").await.unwrap();
        }
        let written = client.snapshot(|_| {}).await.unwrap();
        assert_eq!(
            (&written.name[..], written.entries),
            ("region.snapshot", 2000)
        );
        kv.set("0", "second").await.unwrap();
        client.snapshot(|_| {}).await.unwrap();
        drop((client, kv));
        broker.kill();
        // Its region is gone with it.
        broker.restart();
        let client = broker.connect().await;
        let kv = client.remote_kv();
        assert_eq!(kv.get("0").await.unwrap().unwrap(), b"second");
        assert!(
            broker.log().contains("restored 2000 entries from "),
            "{}",
            broker.log()
        );
        // On request, over what is there.
        kv.set("0", "third").await.unwrap();
        let read = client.restore(None, |_| {}).await.unwrap();
        assert_eq!((&read.name[..], read.entries), ("region.snapshot", 2000));
        assert_eq!(kv.get("0").await.unwrap().unwrap(), b"second");
        broker.kill();
        let file = broker.home.join("region.snapshot");
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, &bytes).unwrap();
        broker.restart();
        let kv = broker.connect().await.remote_kv();
        assert_eq!(kv.get("0").await.unwrap().unwrap(), b"first");
        let log = broker.log();
        assert!(
            log.contains("region.snapshot.1; refused ") && log.contains("checksum"),
            "{log}"
        );
        broker.kill();
        // With none that is whole, it does not begin empty by itself.
        fs::remove_file(broker.home.join("region.snapshot.1")).unwrap();
        broker.restart();
        assert!(!broker.wait().success());
        let log = broker.log();
        assert!(
            log.contains("region.snapshot: ") && log.contains("--no-restore"),
            "{log}"
        );
    });
}

#[test]
fn snapshots_come_by_themselves_and_at_the_stop_and_new_memory_may_begin_empty() {
    run(async {
        let mut broker = Broker::with(&["--snapshot-every", "20ms"]);
        let client = broker.connect().await;
        client.remote_kv().set("k", "v").await.unwrap();
        let file = broker.home.join("region.snapshot");
        wait_until("the first snapshot", || file.exists());
        client.remote_kv().set("last", "words").await.unwrap();
        assert!(broker.stop().success());
        assert!(!broker.socket().exists());
        broker.restart();
        let kv = broker.connect().await.remote_kv();
        assert_eq!(kv.get("last").await.unwrap().unwrap(), b"words");
        drop(kv);
        broker.kill();
        let mut empty = broker.command();
        empty.arg("--no-restore");
        broker.run(empty);
        assert_eq!(
            broker.connect().await.remote_kv().get("k").await.unwrap(),
            None
        );
    });
}

#[test]
fn a_large_snapshot_says_how_far_it_is() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let kv = client.kv().unwrap();
        let value = vec![b'v'; 16 << 10];
        for number in 0..2000 {
            kv.set(format!("{number}"), &value).unwrap();
        }
        let (send, mut told) = tokio::sync::mpsc::unbounded_channel();
        let progress = move |far: ganger_client::protocol::admin::AdminProgress| {
            let _ = send.send(far);
        };
        // It takes longer than the time between two words on any disk, or is there before.
        let written = client.snapshot(progress).await.unwrap();
        assert_eq!(written.entries, 2000);
        assert!(written.bytes > 2000 << 14);
        while let Ok(far) = told.try_recv() {
            assert!(far.done <= far.total && far.total >= 2000, "{far:?}");
        }
        let audit = tokio::time::timeout(Duration::from_secs(60), client.audit());
        let audit = audit.await.unwrap().unwrap();
        assert!(audit.problems.is_empty() && audit.entries >= 2000);
    });
}
