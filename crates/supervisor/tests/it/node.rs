//! Node programs that nobody changed, as workers of a cluster.

use crate::delivery::{fetch, has, run, slot, App};
use crate::ports::free_port;
use crate::support::{alone, command, until, Folder};
use ganger_supervisor::config::Command;
use ganger_supervisor::deliver::{DeliverEvent, Rung};
use serde_json::{json, Value};
use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, UdpSocket};

/// A script in Node, kept in a folder of the test's.
fn script(folder: &Folder, text: &str) -> Command {
    let path = folder.0.join("app.js");
    fs::write(&path, text).unwrap();
    command("node", &[path.to_str().unwrap()])
}

/// The next message of the program's.
async fn message(worker: &mut crate::delivery::Worker) -> Value {
    loop {
        match worker.event().await {
            DeliverEvent::Message(message) => return message,
            DeliverEvent::Disconnected => panic!("it ended"),
            _ => {}
        }
    }
}

#[test]
fn a_plain_server_is_shared_by_all_workers_and_drains() {
    if !has("node") {
        return;
    }
    run(async {
        let app = App::new("node plain", Rung::Node, 2);
        let port = free_port();
        let text = format!(
            "require('http').createServer((q, s) => setTimeout(() => s.end(`${{process.pid}}`), \
             q.url === '/slow' ? 500 : 0)).listen({port});"
        );
        let command = script(&app.home, &text);
        let mut workers: Vec<_> = (0..2)
            .map(|w| app.start(&command, slot(w), 1 + u64::from(w)))
            .collect();
        for worker in &mut workers {
            assert_eq!(worker.event().await, DeliverEvent::Online);
            assert_eq!(worker.listening().await.to_string(), format!("[::]:{port}"));
        }
        let mut seen = BTreeSet::new();
        for _ in 0..40 {
            seen.insert(fetch(port, "/").await);
        }
        assert_eq!(seen.len(), 2);
        let gone = workers.remove(0);
        let all = [(slot(1), 1)].into();
        // The drain finishes what is there.
        let slow: Vec<_> = (0..6).map(|_| tokio::spawn(fetch(port, "/slow"))).collect();
        let mut queue = 1;
        while queue > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            app.listeners.lock().unwrap().route(&all).unwrap();
            queue = app.listeners.lock().unwrap().queue_len(slot(0));
        }
        assert!(gone.delivery.drain());
        for answer in slow {
            answer.await.unwrap();
        }
        let mut gone = gone;
        while gone.event().await != DeliverEvent::Disconnected {}
        assert_eq!(gone.child.wait().code, Some(0));
        for _ in 0..10 {
            assert_eq!(
                fetch(port, "/").await,
                workers[0].child.0.pid.as_raw_nonzero().to_string()
            );
        }
    });
}

#[test]
fn a_program_finds_what_a_cluster_worker_finds() {
    if !has("node") {
        return;
    }
    run(async {
        let app = App::new("node api", Rung::Node, 1);
        let text = "
            const cluster = require('cluster');
            process.on('message', m => process.send({ echo: m }));
            process.on('disconnect', () => { require('fs').writeFileSync(process.env.OUT,
                String(cluster.worker.exitedAfterDisconnect)); });
            process.send({ isWorker: cluster.isWorker, isPrimary: cluster.isPrimary,
                id: cluster.worker.id, connected: process.connected,
                environment: Object.keys(process.env).filter(n => /^NODE_(CHANNEL|UNIQUE)/.test(n)) });
            process.send('ready'); process.send('heartbeat');
            process.send({ cmd: 'NODE_SOMETHING' });";
        let mut command = script(&app.home, text);
        let out = app.home.0.join("out");
        command
            .env
            .push(("OUT".into(), out.to_str().unwrap().into()));
        let mut worker = app.start(&command, slot(0), 42);
        assert_eq!(
            message(&mut worker).await,
            json!({"isWorker": true, "isPrimary": false, "id": 42, "connected": true,
                   "environment": []})
        );
        assert_eq!(worker.event().await, DeliverEvent::Ready);
        assert_eq!(worker.event().await, DeliverEvent::Heartbeat);
        let long = "\u{e4}".repeat(100_000);
        for sent in [json!("text"), json!({"a": [1, null]}), json!(long)] {
            assert!(worker.delivery.send(&sent));
            assert_eq!(message(&mut worker).await, json!({"echo": sent}));
        }
        assert!(worker.delivery.drain());
        while worker.event().await != DeliverEvent::Disconnected {}
        assert_eq!(worker.child.wait().code, Some(0));
        assert_eq!(fs::read_to_string(out).unwrap(), "true");
    });
}

#[test]
fn all_ways_to_listen_work_as_under_a_primary_in_node() {
    if !has("node") {
        return;
    }
    run(async {
        let mut app = App::new("node listen", Rung::Node, 2);
        let [fixed, udp, exclusive] = [(); 3].map(|()| free_port());
        let inherited = "127.0.0.1:0".parse().unwrap();
        app.managed = vec![app.listeners.lock().unwrap().declare(&inherited).unwrap()];
        let path = app.home.0.join("app.sock");
        let text = format!(
            "const net = require('net'), http = require('http'), https = require('https');
            const http2 = require('http2'), dgram = require('dgram');
            const told = {{}};
            const tell = (name, server) => new Promise(done => {{
                server.on('error', e => {{ told[name] = e.code; done(); }});
                server.on('listening', () => {{ told[name] = server.address(); done(); }});
            }});
            const own = net.createServer();
            const waits = [
                tell('fixed', http.createServer().listen({fixed}, '127.0.0.1')),
                tell('any1', net.createServer().listen(0)),
                tell('any2', net.createServer().listen(0)),
                tell('six', https.createServer().listen({{ port: 0, host: '::1', ipv6Only: true }})),
                tell('two', http2.createServer().listen(0, '127.0.0.1')),
                tell('unix', http.createServer().listen({path:?})),
                tell('fd', net.createServer().listen({{ fd: 3 }})),
                tell('nofd', net.createServer().listen({{ fd: 17 }})),
                tell('udp', dgram.createSocket('udp4').bind({udp}, '127.0.0.1')),
                tell('far', net.createServer().listen(80, '192.0.2.1')),
            ];
            if (process.env.NODE_APP_INSTANCE === '0') waits.push(tell('exclusive',
                own.listen({{ port: {exclusive}, host: '127.0.0.1', exclusive: true }})));
            Promise.all(waits).then(async () => {{
                await tell('twice', net.createServer().listen({fixed}, '127.0.0.1'));
                process.send(told);
            }});"
        );
        let mut command = script(&app.home, &text);
        let mut told = Vec::new();
        let mut workers = Vec::new();
        for index in 0..2_u16 {
            command
                .env
                .push(("NODE_APP_INSTANCE".into(), index.to_string()));
            let mut worker = app.start(&command, slot(index), 1 + u64::from(index));
            told.push(message(&mut worker).await);
            workers.push(worker);
        }
        for told in &told {
            assert_eq!(told["fixed"]["port"], fixed);
            assert_ne!(told["any1"]["port"], told["any2"]["port"]);
            assert_eq!(told["unix"], path.to_str().unwrap());
            assert_eq!(told["fd"]["port"], app.managed[0].socket().unwrap().port());
            assert_eq!(told["nofd"], "EBADF");
            assert_eq!(told["udp"]["port"], udp);
            assert_eq!(told["far"], "EADDRNOTAVAIL");
            assert_eq!(told["twice"], "EADDRINUSE");
        }
        for same in ["any1", "any2", "six", "two"] {
            assert_eq!(told[0][same], told[1][same], "{same}");
        }
        assert_eq!(told[0]["exclusive"]["port"], exclusive);
        drop(workers);
    });
}

#[test]
fn a_program_that_listens_without_asking_is_seen_to() {
    if !has("node") {
        return;
    }
    run(async {
        let app = App::new("node exclusive", Rung::Node, 1);
        let port = free_port();
        let text = format!(
            "require('net').createServer().listen({{ port: {port}, host: '127.0.0.1', exclusive: true }});"
        );
        let mut worker = app.start(&script(&app.home, &text), slot(0), 1);
        assert_eq!(
            worker.listening().await.to_string(),
            format!("127.0.0.1:{port}")
        );
    });
}

#[test]
fn a_port_that_is_taken_is_an_error_in_the_program_and_tells_who_has_it() {
    if !has("node") {
        return;
    }
    run(async {
        let app = App::new("node busy", Rung::Node, 1);
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let text = format!(
            "require('net').createServer().on('error', e => process.send(e.code))\
             .listen({port}, '127.0.0.1');"
        );
        let mut worker = app.start(&script(&app.home, &text), slot(0), 1);
        assert_eq!(worker.event().await, DeliverEvent::Online);
        let event = worker.event().await;
        let own = std::process::id().to_string();
        assert!(
            matches!(&event, DeliverEvent::BindFailed { error, .. } if error.contains(&own)),
            "{event:?}"
        );
        assert_eq!(message(&mut worker).await, "EADDRINUSE");
    });
}

#[test]
fn a_server_that_closes_and_listens_again_gets_its_listener_again() {
    if !has("node") {
        return;
    }
    run(async {
        let app = App::new("node again", Rung::Node, 1);
        let port = free_port();
        let text = format!(
            "const s = require('http').createServer((q, r) => r.end('ok'));
            let n = 0;
            const again = () => s.listen({port}, '127.0.0.1', () => {{
                if (++n < 5) s.close(again); else process.send(n); }});
            again();"
        );
        let mut worker = app.start(&script(&app.home, &text), slot(0), 1);
        assert_eq!(message(&mut worker).await, 5);
        assert_eq!(fetch(port, "/").await, "ok");
    });
}

#[test]
fn handles_sent_by_the_program_do_not_stall_its_channel() {
    if !has("node") {
        return;
    }
    run(async {
        let app = App::new("node handles", Rung::Node, 1);
        let text = "
            const dgram = require('dgram'), net = require('net');
            const socket = dgram.createSocket('udp4');
            socket.bind({ port: 0, address: '127.0.0.1', exclusive: true }, () => {
                for (let n = 0; n < 5; n++) process.send({ n }, socket);
                process.send('last');
            });";
        let mut worker = app.start(&script(&app.home, text), slot(0), 1);
        for n in 0..5 {
            assert_eq!(message(&mut worker).await, json!({"n": n}));
        }
        assert_eq!(message(&mut worker).await, "last");
    });
}

#[test]
fn datagrams_reach_all_workers() {
    if !has("node") {
        return;
    }
    run(async {
        // The port is bound twice.
        let _alone = alone();
        let app = App::new("node dgram", Rung::Node, 2);
        let port = free_port();
        let text = format!(
            "const s = require('dgram').createSocket('udp4');
            s.on('message', (m, from) => s.send(String(process.pid), from.port, from.address));
            s.bind({port}, '127.0.0.1');"
        );
        let command = script(&app.home, &text);
        let mut workers: Vec<_> = (0..2)
            .map(|w| app.start(&command, slot(w), 1 + u64::from(w)))
            .collect();
        for worker in &mut workers {
            assert_eq!(
                worker.listening().await.to_string(),
                format!("udp:127.0.0.1:{port}")
            );
        }
        let seen = tokio::task::spawn_blocking(move || {
            let mut seen = BTreeSet::new();
            until("both have answered", || {
                let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
                peer.set_read_timeout(Some(crate::support::DEADLINE))
                    .unwrap();
                peer.send_to(b"x", ("127.0.0.1", port)).unwrap();
                let mut bytes = [0; 16];
                let len = peer.recv(&mut bytes).unwrap();
                seen.insert(bytes[..len].to_vec());
                (seen.len() == 2).then_some(seen.len())
            })
        });
        assert_eq!(seen.await.unwrap(), 2);
    });
}

#[test]
fn a_program_that_floods_its_channel_or_sends_garbage_harms_nobody() {
    if !has("node") {
        return;
    }
    run(async {
        let app = App::new("node flood", Rung::Node, 1);
        let text = "
            const fd = 3, fs = require('fs');
            const all = text => { for (let at = 0; at < text.length;) {
                try { at += fs.writeSync(fd, text.slice(at, at + 65536)); }
                catch (e) { if (e.code !== 'EAGAIN') throw e; } } };
            all('no json\\n{\"cmd\":\"NODE_CLUSTER\"}\\n');
            all('{\"cmd\":\"NODE_CLUSTER\",\"act\":\"queryServer\"}\\n');
            all('x'.repeat(3e6) + '\\n');
            all('null\\n[]\\n{\"cmd\":7}\\n');
            process.send('done');";
        let mut worker = app.start(&script(&app.home, text), slot(0), 1);
        while message(&mut worker).await != "done" {}
    });
}
