//! The control socket, with a handler that only pretends: who asks gets an answer, and who sends
//! garbage, reads slowly or goes away hurts nobody else.

use crate::support::{alone, until};
use crate::watchdog;
use ganger_client::Home;
use ganger_supervisor::control::client::{Client, ClientError};
use ganger_supervisor::control::server::{Control, Handler};
use ganger_supervisor::control::{Hello, Reply, Request, CONNECTIONS_MAX, PROTOCOL, REQUEST_MAX};
use ganger_supervisor::events::{Events, Happening};
use ganger_supervisor::home::{TakenHome, CONTROL_NAME};
use ganger_supervisor::report::{LogLine, Status};
use std::cell::Cell;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

/// A directory of its own, removed at the end.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ganger-control-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn home(&self) -> Home {
        Home::at(&self.0)
    }

    fn socket(&self) -> PathBuf {
        self.0.join(CONTROL_NAME)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Answers as told by the app's name.
struct Fake {
    events: Events,
    begun: Cell<bool>,
    seen: Arc<Seen>,
}

/// What clients, on their thread, can know of the handler.
#[derive(Default)]
struct Seen {
    /// What was begun came to its end.
    carried_through: AtomicBool,
    /// It waits until a reply is taken.
    is_held_up: AtomicBool,
    /// All lines that there are have been sent.
    are_lines_sent: AtomicBool,
}

impl Seen {
    fn wait(&self, what: &str, flag: impl Fn(&Self) -> &AtomicBool) {
        until(what, || flag(self).load(Ordering::Relaxed).then_some(()));
    }
}

impl Handler for Fake {
    async fn handle(&self, request: Request, replies: mpsc::Sender<Reply>) {
        match request {
            Request::Status => {
                let _ = replies.send(Reply::Status(status())).await;
                let _ = replies.send(Reply::done("")).await;
            }
            Request::Reload { app, .. } if app == "slow" => {
                self.begun.set(true);
                for _ in 0..20_000 {
                    let event = self
                        .events
                        .tell(Happening::new(&app, "worker-ready", "ready"));
                    let _ = replies.send(Reply::Progress(event)).await;
                }
                self.seen.carried_through.store(true, Ordering::Relaxed);
                let _ = replies.send(Reply::done("reloaded")).await;
            }
            Request::Logs { lines, follow, .. } => {
                for number in 0..lines {
                    // The server has a turn between any two: a queue that is still full then stays so.
                    tokio::task::yield_now().await;
                    if replies.capacity() == 0 {
                        self.seen.is_held_up.store(true, Ordering::Relaxed);
                    }
                    let _ = replies.send(Reply::Log(line(number))).await;
                }
                self.seen.are_lines_sent.store(true, Ordering::Relaxed);
                if follow {
                    replies.closed().await;
                    return;
                }
                let _ = replies.send(Reply::done("")).await;
            }
            Request::Stop { .. } => {}
            _ => {
                let _ = replies
                    .send(Reply::Failed {
                        text: "no such app".into(),
                        lines: vec![line(7)],
                    })
                    .await;
            }
        }
    }
}

fn status() -> Status {
    Status {
        pid: 42,
        version: "1".into(),
        home: "/h".into(),
        started_ms: 5,
        broker: None,
        apps: Vec::new(),
    }
}

fn line(number: u32) -> LogLine {
    LogLine {
        at_ms: 1,
        app: "web".into(),
        worker: 0,
        pid: 1,
        is_stderr: false,
        dropped: 0,
        text: format!("{number} {}", "x".repeat(500)).into_bytes(),
    }
}

/// Serves while `clients` runs on a thread of its own.
fn with_server<T: Send + 'static>(
    temp: &Temp,
    clients: impl FnOnce(&Seen) -> T + Send + 'static,
) -> (T, Arc<Seen>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let fake = Rc::new(Fake {
        events: Events::new(),
        begun: Cell::new(false),
        seen: Arc::default(),
    });
    let seen = Arc::clone(&fake.seen);
    let handler = Rc::clone(&fake);
    let local = LocalSet::new();
    let mut taken = TakenHome::take(temp.home()).unwrap();
    let listener = taken.bind(CONTROL_NAME).unwrap();
    let control = runtime.block_on(async { Control::new(listener).unwrap() });
    let (done, is_done) = oneshot::channel::<()>();
    let clients = std::thread::spawn(move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| clients(&seen)));
        drop(done);
        result
    });
    local.block_on(&runtime, async move {
        let shutdown = async move {
            let _ = is_done.await;
        };
        control.run(handler, shutdown).await;
        // What is carried through without its client gets the turns it needs.
        if fake.begun.get() {
            while !fake.seen.carried_through.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
            }
        }
        let result = clients.join().unwrap();
        match result {
            Ok(result) => (result, Arc::clone(&fake.seen)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn is_served(home: &Home) -> bool {
    let mut found = None;
    let mut client = Client::connect(home).unwrap();
    client
        .ask(&Request::Status, |reply| found = Some(reply))
        .unwrap();
    found == Some(Reply::Status(status()))
}

fn reload(app: &str) -> Request {
    Request::Reload {
        app: app.into(),
        width: None,
        canary_percent: None,
        canary_ms: None,
        env: None,
    }
}

#[test]
fn questions_are_answered_one_after_another_on_one_connection() {
    let _watchdog = watchdog();
    let temp = Temp::new();
    let home = temp.home();
    let socket = temp.socket();
    let ((), _) = with_server(&temp, move |_| {
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut client = Client::connect(&home).unwrap();
        for _ in 0..3 {
            let mut replies = Vec::new();
            let text = client.ask(&Request::Status, |reply| replies.push(reply));
            assert_eq!(text.unwrap(), "");
            assert_eq!(replies, [Reply::Status(status())]);
        }
        let failed = client.ask(&Request::Rollback { app: "web".into() }, |_| {});
        let Err(ClientError::Failed { text, lines }) = failed else {
            panic!("{failed:?}");
        };
        assert_eq!((text.as_str(), lines), ("no such app", vec![line(7)]));
        let silent = client.ask(&Request::Stop { app: "web".into() }, |_| {});
        let text = silent.unwrap_err().to_string();
        assert!(text.contains("without an answer"), "{text}");
    });
}

#[test]
fn without_a_supervisor_the_error_says_where_it_would_be() {
    let temp = Temp::new();
    let error = Client::connect(&temp.home()).err().unwrap();
    assert!(matches!(error, ClientError::NotRunning { .. }));
    temp.home().create().unwrap();
    let error = Client::connect(&temp.home()).err().unwrap();
    assert!(matches!(error, ClientError::NotRunning { .. }));
    // A socket that nobody holds any more.
    let _alone = alone();
    drop(std::os::unix::net::UnixListener::bind(temp.socket()).unwrap());
    let error = Client::connect(&temp.home()).err().unwrap();
    assert!(matches!(error, ClientError::NotRunning { .. }));
    assert!(error.to_string().contains(temp.0.to_str().unwrap()));
}

#[test]
fn garbage_and_oversized_frames_end_their_own_connection_alone() {
    let _watchdog = watchdog();
    let temp = Temp::new();
    let (home, socket) = (temp.home(), temp.socket());
    let ((), _) = with_server(&temp, move |_| {
        let beyond = u32::try_from(REQUEST_MAX + 1).unwrap().to_be_bytes();
        let wrong: [&[u8]; 6] = [
            b"GET / HTTP/1.1\r\n\r\n",
            &[0xff; 64],
            &[0, 0, 0, 0],
            &[0, 0, 0, 1, 0xc1],
            &beyond,
            &[0, 0, 0, 5, 0xdf, 0xff, 0xff, 0xff, 0xff],
        ];
        for bytes in wrong {
            let mut stream = UnixStream::connect(&socket).unwrap();
            let _ = stream.write_all(bytes);
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert!(rest.is_empty(), "not even a hello");
        }
        // After a good hello the reason is told.
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(&frame(&hello(PROTOCOL))).unwrap();
        stream.write_all(&[0, 0, 0, 2, 0x92, 0xc1]).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        let text = String::from_utf8_lossy(&rest);
        assert!(text.contains("does not understand"), "{text}");
        assert!(is_served(&home));
    });
}

#[test]
fn another_version_is_refused_by_name_on_both_sides() {
    let _watchdog = watchdog();
    let temp = Temp::new();
    let socket = temp.socket();
    let ((), _) = with_server(&temp, move |_| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(&frame(&hello(PROTOCOL + 1))).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        let theirs: Hello = rmp_serde::from_slice(&rest[4..]).unwrap();
        assert_eq!(theirs.protocol, PROTOCOL);
        assert!(theirs.refused.unwrap().contains("command line is 9.9.9"));
    });
    let listener = std::os::unix::net::UnixListener::bind(temp.socket()).unwrap();
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&frame(&hello(PROTOCOL + 1))).unwrap();
    });
    let error = Client::connect(&temp.home()).err().unwrap().to_string();
    assert!(error.contains("is ganger 9.9.9, this is"), "{error}");
    other.join().unwrap();
}

#[test]
fn one_connection_beyond_the_limit_is_told_so() {
    let _watchdog = watchdog();
    let temp = Temp::new();
    let home = temp.home();
    let ((), _) = with_server(&temp, move |_| {
        let mut all: Vec<Client> = (0..CONNECTIONS_MAX)
            .map(|_| Client::connect(&home).unwrap())
            .collect();
        let error = Client::connect(&home).err().unwrap();
        assert!(
            error.to_string().contains("too many connections"),
            "{error}"
        );
        all.pop();
        let mut client = Client::connect(&home);
        while client.is_err() {
            client = Client::connect(&home);
        }
    });
}

#[test]
fn what_was_begun_is_carried_through_without_its_client() {
    let _watchdog = watchdog();
    let temp = Temp::new();
    let socket = temp.socket();
    let ((), seen) = with_server(&temp, move |_| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(&frame(&hello(PROTOCOL))).unwrap();
        stream.write_all(&frame(&reload("slow"))).unwrap();
        // It reads its hello and the first of the progress, and is gone.
        stream.read_exact(&mut [0; 200]).unwrap();
    });
    assert!(seen.carried_through.load(Ordering::Relaxed));
}

#[test]
fn a_client_that_does_not_read_does_not_hold_up_what_it_asked_for() {
    let _watchdog = watchdog();
    let temp = Temp::new();
    let home = temp.home();
    let ((), _) = with_server(&temp, move |seen| {
        let mut client = Client::connect(&home).unwrap();
        let mut numbers = Vec::new();
        let done = client.ask(&reload("slow"), |reply| {
            if let Reply::Progress(event) = reply {
                if numbers.is_empty() {
                    // Meanwhile all of it happens, and more than waits for us.
                    seen.wait("all has happened", |seen| &seen.carried_through);
                }
                numbers.push(event.number);
            }
        });
        assert_eq!(done.unwrap(), "reloaded");
        assert_eq!(numbers.last(), Some(&20_000), "the newest were kept");
        assert!(numbers.is_sorted());
    });
}

#[test]
fn lines_that_are_kept_all_arrive_however_slowly_they_are_read() {
    let _watchdog = watchdog();
    let temp = Temp::new();
    let home = temp.home();
    let ((), _) = with_server(&temp, move |seen| {
        let mut client = Client::connect(&home).unwrap();
        let request = Request::Logs {
            app: None,
            worker: None,
            lines: 10_000,
            follow: false,
        };
        let mut next = 0;
        let done = client.ask(&request, |reply| {
            if next == 0 {
                seen.wait("the rest waits for us", |seen| &seen.is_held_up);
            }
            assert_eq!(reply, Reply::Log(line(next)));
            next += 1;
        });
        done.unwrap();
        assert_eq!(next, 10_000);
    });
}

#[test]
fn who_follows_too_slowly_is_told_how_many_lines_were_dropped() {
    let _watchdog = watchdog();
    let temp = Temp::new();
    let (home, socket) = (temp.home(), temp.socket());
    let ((), _) = with_server(&temp, move |seen| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(&frame(&hello(PROTOCOL))).unwrap();
        let count = 20_000;
        let request = Request::Logs {
            app: None,
            worker: None,
            lines: count,
            follow: true,
        };
        stream.write_all(&frame(&request)).unwrap();
        let _: Hello = receive(&mut stream);
        // All of it passes by meanwhile, and others are served.
        seen.wait("all lines are sent", |seen| &seen.are_lines_sent);
        assert!(is_served(&home));
        let (mut told, mut dropped) = (0, 0);
        while told + dropped < u64::from(count) {
            let Reply::Log(line) = receive(&mut stream) else {
                panic!("a line");
            };
            dropped += line.dropped;
            told += 1;
        }
        assert_eq!(told + dropped, u64::from(count));
        assert!(dropped > 0);
    });
}

fn hello(protocol: u16) -> Hello {
    Hello {
        ganger: "9.9.9".into(),
        protocol,
        pid: 1,
        refused: None,
    }
}

fn frame<T: serde::Serialize>(message: &T) -> Vec<u8> {
    let body = rmp_serde::to_vec_named(message).unwrap();
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

fn receive<T: serde::de::DeserializeOwned>(stream: &mut UnixStream) -> T {
    let mut len = [0; 4];
    stream.read_exact(&mut len).unwrap();
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(len)).unwrap()];
    stream.read_exact(&mut body).unwrap();
    rmp_serde::from_slice(&body).unwrap()
}
