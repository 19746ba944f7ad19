//! Kept connections end politely: no request that was begun is lost in a drain.

use crate::delivery::{has, run, slot, App, Worker};
use crate::ports::free_port;
use crate::support::{all, command, shell, DEADLINE};
use ganger_supervisor::config::Command;
use ganger_supervisor::deliver::{DeliverEvent, Rung};
use ganger_supervisor::spawn::Output;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread::JoinHandle;

/// A server with kept connections.
const SERVER: &str = "
    const server = require('http').createServer((q, s) => setTimeout(() => s.end('ok'), 5));
    server.keepAliveTimeout = 60000;
    server.listen(PORT, '127.0.0.1');";

/// How a client's connection ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// The last answer said so.
    Told,
    /// While nothing was asked.
    Idle,
    /// In the middle of an answer, or instead of one.
    Cut,
}

fn app(name: &str, rung: Rung) -> App {
    let mut app = App::new(name, rung, 1);
    app.has_preload = true;
    app
}

fn script(app: &App, text: &str, port: u16) -> Command {
    let path = app.home.0.join("app.js");
    fs::write(&path, text.replace("PORT", &port.to_string())).unwrap();
    command("node", &[path.to_str().unwrap()])
}

fn open(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Asks again and again on one connection until it ends.
fn busy(port: u16, served: Arc<AtomicUsize>) -> JoinHandle<Ended> {
    let mut stream = open(port);
    std::thread::spawn(move || loop {
        if stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .is_err()
        {
            return Ended::Cut;
        }
        let Some(answer) = answer(&mut stream) else {
            return Ended::Cut;
        };
        served.fetch_add(1, SeqCst);
        if answer.to_ascii_lowercase().contains("connection: close") {
            return Ended::Told;
        }
    })
}

/// One whole answer whose body is `ok`.
fn answer(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    let mut bytes = [0; 1024];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return None,
            Ok(len) => text.push_str(std::str::from_utf8(&bytes[..len]).unwrap()),
        }
        if text.contains("\r\n\r\n") && (text.ends_with("ok") || text.ends_with("0\r\n\r\n")) {
            return Some(text);
        }
    }
}

/// One request, and then nothing until the connection ends.
fn idle(port: u16) -> JoinHandle<Ended> {
    let mut stream = open(port);
    std::thread::spawn(move || {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        answer(&mut stream).unwrap();
        match stream.read(&mut [0; 8]) {
            Ok(0) => Ended::Idle,
            _ => Ended::Cut,
        }
    })
}

/// Drains a worker under 24 busy connections and 4 idle ones.
async fn drain_under_load(mut worker: Worker, port: u16) -> Worker {
    worker.listening().await;
    let served = Arc::new(AtomicUsize::new(0));
    let connections: Vec<_> = (0..24).map(|_| busy(port, Arc::clone(&served))).collect();
    let idle: Vec<_> = (0..4).map(|_| idle(port)).collect();
    while served.load(SeqCst) < 500 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let start = std::time::Instant::now();
    assert!(worker.delivery.drain());
    let ended = tokio::task::spawn_blocking(move || {
        let busy: Vec<_> = connections
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        let busy_ms = start.elapsed().as_millis();
        let idle: Vec<_> = idle
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        eprintln!(
            "busy ones ended after {busy_ms} ms, idle ones {:?}",
            start.elapsed()
        );
        (busy, idle)
    });
    let (busy, idle) = ended.await.unwrap();
    assert!(busy.iter().all(|ended| *ended == Ended::Told), "{busy:?}");
    assert!(idle.iter().all(|ended| *ended == Ended::Idle), "{idle:?}");
    worker
}

#[test]
fn busy_kept_connections_drain_through_the_channel() {
    if !has("node") {
        return;
    }
    run(async {
        let app = app("preload channel", Rung::Node);
        let port = free_port();
        let worker = app.start(&script(&app, SERVER, port), slot(0), 1);
        let mut worker = drain_under_load(worker, port).await;
        while worker.event().await != DeliverEvent::Disconnected {}
        assert_eq!(worker.child.wait().code, Some(0));
    });
}

#[test]
fn busy_kept_connections_drain_beneath_a_shell() {
    if !has("node") {
        return;
    }
    run(async {
        let app = app("preload signal", Rung::Seccomp);
        let port = free_port();
        let inner = script(&app, SERVER, port);
        let command = shell(&format!("node {}; true", inner.args[0]));
        let worker = app.start(&command, slot(0), 1);
        let worker = drain_under_load(worker, port).await;
        assert_eq!(worker.child.wait().code, Some(0));
    });
}

#[test]
fn the_options_of_the_user_and_modules_and_threads_and_children_are_as_before() {
    if !has("node") {
        return;
    }
    run(async {
        let app = app("preload modules", Rung::Node);
        let path = app.home.0.join("app.mjs");
        let text = "
            import { Worker } from 'node:worker_threads';
            import { fork, execFileSync } from 'node:child_process';
            if (process.argv[2] === 'child') {
                process.on('message', m => process.send({ said: m }));
            } else {
                const child = fork(process.argv[1], ['child']);
                const said = await new Promise(done => { child.on('message', done); child.send('hello'); });
                child.disconnect();
                const code = 'require(\"worker_threads\").parentPort.postMessage(\"thread\")';
                const thread = await new Promise(
                    done => new Worker(code, { eval: true }).on('message', done));
                const plain = execFileSync(process.execPath, ['-p', '6 * 7']).toString().trim();
                process.send({ said: said.said, thread, plain, mark: process.env.GANGER_CHANNEL ?? null,
                    message: process.listenerCount('message') });
            }";
        fs::write(&path, text).unwrap();
        let command = command("node", &[path.to_str().unwrap()]);
        let mut worker = app.start(&command, slot(0), 1);
        loop {
            match worker.event().await {
                DeliverEvent::Message(message) => {
                    let expected = serde_json::json!({"said": "hello", "thread": "thread",
                        "plain": "42", "mark": null, "message": 1});
                    assert_eq!(message, expected);
                    break;
                }
                DeliverEvent::Disconnected => panic!("it ended"),
                _ => {}
            }
        }
        assert!(worker.delivery.drain());
        while worker.event().await != DeliverEvent::Disconnected {}
        assert_eq!(worker.child.wait().code, Some(0));
    });
}

#[test]
fn streams_of_http2_end_after_a_goaway() {
    if !has("node") || !has("openssl") {
        return;
    }
    run(async {
        let app = app("preload http2", Rung::Node);
        let (port, secure_port) = (free_port(), free_port());
        let folder = app.home.0.to_str().unwrap();
        let make = shell(&format!(
            "openssl req -x509 -newkey rsa:2048 -nodes -keyout {folder}/key -out {folder}/cert \
             -days 2 -subj /CN=localhost 2>/dev/null"
        ));
        assert_eq!(
            crate::support::Child::new(crate::support::spec(&make))
                .wait()
                .code,
            Some(0)
        );
        let text = format!(
            "const http2 = require('http2'), fs = require('fs');
            const answer = (q, s) => setTimeout(() => s.end('ok'), 5);
            http2.createServer(answer).listen(PORT, '127.0.0.1');
            http2.createSecureServer({{ key: fs.readFileSync('{folder}/key'),
                cert: fs.readFileSync('{folder}/cert'), allowHTTP1: true }}, answer)
                .listen({secure_port}, '127.0.0.1');"
        );
        let client = app.home.0.join("client.js");
        let text_of_client = format!(
            "const http2 = require('http2');
            const busy = (url) => new Promise(done => {{
                const session = http2.connect(url, {{ rejectUnauthorized: false }});
                let isTold = false, failed = 0, served = 0;
                session.on('goaway', () => {{ isTold = true; }});
                session.on('error', () => failed++);
                session.on('close', () => done({{ isTold, failed, served }}));
                const ask = () => {{
                    if (isTold || session.closed) return;
                    const stream = session.request({{ ':path': '/' }});
                    stream.on('error', () => failed++);
                    stream.on('end', () => {{ if (++served === 50) process.stdout.write('up\\n'); ask(); }});
                    stream.resume();
                }};
                ask();
            }});
            const idle = (url) => new Promise(done => {{
                const session = http2.connect(url, {{ rejectUnauthorized: false }});
                let isTold = false;
                session.on('goaway', () => {{ isTold = true; }});
                session.on('close', () => done({{ isTold }}));
                session.request({{ ':path': '/' }}).resume();
            }});
            const urls = ['http://127.0.0.1:{port}', 'https://127.0.0.1:{secure_port}'];
            Promise.all([...urls.map(busy), ...urls.map(idle)])
                .then(all => console.log(JSON.stringify(all)));"
        );
        fs::write(&client, text_of_client).unwrap();
        let mut worker = app.start(&script(&app, &text, port), slot(0), 1);
        worker.listening().await;
        worker.listening().await;
        let asking = command("node", &[client.to_str().unwrap()]);
        let mut spec = crate::support::spec(&asking);
        spec.output = Output::Pipes;
        let mut child = crate::support::Child::new(spec);
        let mut stdout = fs::File::from(child.0.stdout.take().unwrap());
        let mut up = [0; 6];
        let (stdout, _) = tokio::task::spawn_blocking(move || {
            stdout.read_exact(&mut up).unwrap();
            (stdout, up)
        })
        .await
        .unwrap();
        assert!(worker.delivery.drain());
        let text = tokio::task::spawn_blocking(move || all(stdout.into()))
            .await
            .unwrap();
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        for at in 0..4 {
            assert_eq!(told[at]["isTold"], true, "{told}");
            assert!(told[at]["failed"].as_u64().unwrap_or(0) == 0, "{told}");
        }
        while worker.event().await != DeliverEvent::Disconnected {}
        assert_eq!(worker.child.wait().code, Some(0));
    });
}

#[test]
fn websockets_are_left_alone_or_closed_after_a_grace_time() {
    if !has("node") {
        return;
    }
    run(async {
        let app = app("preload websocket", Rung::Node);
        let port = free_port();
        let text = "
            const server = require('http').createServer((q, s) => s.end('ok'));
            server.on('upgrade', (q, socket) => socket.write('HTTP/1.1 101 Switching Protocols\\r\\n' +
                'Upgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n'));
            server.listen(PORT, '127.0.0.1');";
        let mut command = script(&app, text, port);
        command
            .env
            .push(("GANGER_WEBSOCKET_GRACE_MS".into(), "300".into()));
        let mut worker = app.start(&command, slot(0), 1);
        worker.listening().await;
        let mut stream = open(port);
        stream
            .write_all(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            )
            .unwrap();
        let reading = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            bytes
        });
        // The upgrade must be through before the drain begins.
        assert_eq!(crate::delivery::fetch(port, "/").await, "ok");
        assert!(worker.delivery.drain());
        let bytes = reading.await.unwrap();
        assert!(bytes.starts_with(b"HTTP/1.1 101"));
        assert!(bytes.ends_with(&[0x88, 0x02, 0x03, 0xf4]), "{bytes:?}");
        while worker.event().await != DeliverEvent::Disconnected {}
    });
}
