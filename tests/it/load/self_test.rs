//! The generator against servers that misbehave on purpose: each misdeed must be found, and named.

use super::{Kind, Load, Plan, Report, Shape};
use crate::harness::{wait_until, Watchdog};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// What the server does with the requests of a connection, each told with its number on it.
type Deed = fn(&mut TcpStream, &str, u32) -> Next;

#[derive(PartialEq, Eq)]
enum Next {
    Keep,
    Close,
}

/// A server that answers each connection with a deed; gone when dropped.
struct Rogue {
    address: SocketAddr,
    is_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Rogue {
    fn start(deed: Deed) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let is_ended = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let is_ended = Arc::clone(&is_ended);
            move || {
                let mut threads = Vec::new();
                for stream in listener.incoming() {
                    if is_ended.load(Ordering::Relaxed) {
                        break;
                    }
                    let stream = stream.unwrap();
                    threads.push(std::thread::spawn(move || serve(stream, deed)));
                }
                for thread in threads {
                    thread.join().unwrap();
                }
            }
        });
        Self {
            address,
            is_ended,
            thread: Some(thread),
        }
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.is_ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

fn serve(mut stream: TcpStream, deed: Deed) {
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut bytes = Vec::new();
    for number in 0.. {
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            let mut more = [0; 4096];
            match stream.read(&mut more) {
                Ok(len) if len > 0 => bytes.extend_from_slice(&more[..len]),
                _ => return,
            }
        };
        let head = String::from_utf8(bytes.drain(..end).collect()).unwrap();
        if deed(&mut stream, &head, number) == Next::Close {
            return;
        }
    }
}

fn id_of(head: &str) -> &str {
    let (_, rest) = head.split_once("id=").unwrap();
    rest.split([' ', '&']).next().unwrap()
}

fn right_answer(head: &str) -> Vec<u8> {
    let body = format!("{{\"pid\":7,\"id\":\"{}\"}}", id_of(head));
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn answer(stream: &mut TcpStream, bytes: &[u8]) -> Next {
    let _ = stream.write_all(bytes);
    Next::Keep
}

/// Closes with a reset rather than with an end.
fn reset(stream: &TcpStream) -> Next {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the pointer is to a linger of that size, and the descriptor is open.
    unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        );
    }
    Next::Close
}

/// Sends at least twenty requests and tells what became of them.
fn judge(deed: Deed, adjust: impl FnOnce(Plan) -> Plan) -> Report {
    let _watchdog = Watchdog::new("a self-test of the load generator", 120);
    let rogue = Rogue::start(deed);
    let load = Load::start(adjust(Plan::new(rogue.address, 200.0)));
    wait_until("requests to be judged", || {
        let report = load.so_far();
        report.answered + report.failed() >= 20
    });
    load.stop()
}

#[track_caller]
fn assert_all(report: &Report, kind: Kind) {
    assert_eq!(report.answered, 0, "{report}");
    assert_eq!(report.count(kind), report.sent, "{report}");
}

#[test]
fn right_answers_are_right() {
    let report = judge(
        |stream, head, _| answer(stream, &right_answer(head)),
        |plan| plan,
    );
    report.assert_perfect("fresh");
    assert_eq!(report.workers.get(&7), Some(&report.answered));
    assert_eq!(report.connections, report.sent);
    let report = judge(
        |stream, head, _| answer(stream, &right_answer(head)),
        |plan| plan.kept(4),
    );
    report.assert_perfect("kept");
    assert!(report.connections < report.sent, "{report}");
}

#[test]
fn chunks_and_bodies_to_the_end_are_read_whole() {
    let chunked: Deed = |stream, head, _| {
        let (start, rest) = ("{\"pid\":7,", format!("\"id\":\"{}\"}}", id_of(head)));
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{start}\r\n{:x}\r\n",
            start.len(),
            rest.len(),
        );
        answer(stream, format!("{rest}\r\n0\r\n\r\n").as_bytes())
    };
    judge(chunked, |plan| plan.kept(2)).assert_perfect("chunked");
    let to_the_end: Deed = |stream, head, _| {
        let _ = write!(
            stream,
            "HTTP/1.0 200 OK\r\n\r\n{{\"pid\":7,\"id\":\"{}\"}}",
            id_of(head)
        );
        Next::Close
    };
    judge(to_the_end, |plan| plan).assert_perfect("to the end");
}

#[test]
fn a_refused_connection_is_found() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let load = Load::start(Plan::new(address, 200.0));
    wait_until("refusals", || load.so_far().failed() >= 20);
    assert_all(&load.stop(), Kind::Refused);
}

#[test]
fn a_reset_and_an_end_without_an_answer_are_found() {
    assert_all(
        &judge(|stream, _, _| reset(stream), |plan| plan),
        Kind::Reset,
    );
    assert_all(&judge(|_, _, _| Next::Close, |plan| plan), Kind::Dropped);
}

#[test]
fn a_cut_answer_is_found() {
    let in_the_body: Deed = |stream, head, _| {
        let right = right_answer(head);
        answer(stream, &right[..right.len() - 3]);
        Next::Close
    };
    assert_all(&judge(in_the_body, |plan| plan), Kind::Truncated);
    let in_the_head: Deed = |stream, _, _| {
        answer(stream, b"HTTP/1.1 200 OK\r\ncontent-le");
        Next::Close
    };
    assert_all(&judge(in_the_head, |plan| plan), Kind::Truncated);
    let by_a_reset: Deed = |stream, _, _| {
        answer(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{");
        // So that the bytes are read before the reset discards them.
        std::thread::sleep(Duration::from_millis(20));
        reset(stream)
    };
    assert_all(&judge(by_a_reset, |plan| plan), Kind::Truncated);
    let between_chunks: Deed = |stream, _, _| {
        answer(
            stream,
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
        );
        Next::Close
    };
    assert_all(&judge(between_chunks, |plan| plan), Kind::Truncated);
}

#[test]
fn a_wrong_answer_is_found() {
    let of_another: Deed = |stream, head, _| {
        let head = head.replace("id=", "id=1");
        answer(stream, &right_answer(&head))
    };
    assert_all(&judge(of_another, |plan| plan), Kind::Wrong);
    let unavailable: Deed =
        |stream, _, _| answer(stream, b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno");
    assert_all(&judge(unavailable, |plan| plan), Kind::Wrong);
    assert_all(
        &judge(
            |stream, _, _| answer(stream, b"SSH-2.0\r\n\r\n"),
            |plan| plan,
        ),
        Kind::Wrong,
    );
    let one_byte_off: Deed = |stream, head, _| {
        let mut body: Vec<u8> = id_of(head).bytes().cycle().take(1000).collect();
        body[777] ^= 1;
        answer(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
        answer(stream, &body)
    };
    let download = |plan: Plan| plan.shape(Shape::Download(1000));
    assert_all(&judge(one_byte_off, download), Kind::Wrong);
    // An upload of which the server says that nothing came.
    let upload = |plan: Plan| plan.shape(Shape::Upload(10));
    let deaf: Deed = |stream, head, _| {
        answer(stream, &right_answer(head));
        Next::Close
    };
    assert_all(&judge(deaf, upload), Kind::Wrong);
}

#[test]
fn two_answers_to_one_request_are_found() {
    let twice: Deed = |stream, head, _| {
        let mut both = right_answer(head);
        both.extend(right_answer(head));
        answer(stream, &both)
    };
    assert_all(&judge(twice, |plan| plan), Kind::Duplicate);
    // The second comes when the first was taken for the whole.
    let later: Deed = |stream, head, _| {
        answer(stream, &right_answer(head));
        std::thread::sleep(Duration::from_millis(10));
        answer(stream, &right_answer(head))
    };
    let report = judge(later, |mut plan| {
        plan.rate = 20.0;
        plan.kept(1)
    });
    assert!(report.count(Kind::Duplicate) > 0, "{report}");
}

#[test]
fn silence_and_lateness_are_found() {
    let silent: Deed = |stream, _, _| {
        let mut byte = [0];
        let _ = stream.read(&mut byte);
        Next::Close
    };
    let report = judge(silent, |mut plan| {
        plan.give_up = Duration::from_millis(100);
        plan
    });
    assert_all(&report, Kind::Silent);
    let late: Deed = |stream, head, _| {
        std::thread::sleep(Duration::from_millis(100));
        answer(stream, &right_answer(head))
    };
    let report = judge(late, |mut plan| {
        plan.late = Duration::from_millis(50);
        plan
    });
    assert_all(&report, Kind::Late);
}

/// A server that stalls gets the requests all the same: that is what an open loop is.
#[test]
fn requests_are_due_by_the_clock_and_not_by_the_answers() {
    let rogue = Rogue::start(|stream, head, _| {
        std::thread::sleep(Duration::from_millis(300));
        answer(stream, &right_answer(head))
    });
    let load = Load::start(Plan::new(rogue.address, 200.0).kept(1));
    wait_until("sixty requests under way", || {
        let report = load.so_far();
        report.sent - report.answered >= 60
    });
    let report = load.stop();
    report.assert_perfect("slow");
    assert!(report.connections >= 60, "{report}");
}

#[test]
fn a_kept_connection_that_is_closed_when_idle_is_no_failure() {
    let polite: Deed = |stream, head, number| {
        let mut right = right_answer(head);
        if number == 1 {
            right.splice(15..15, *b"\r\nconnection: close");
        }
        answer(stream, &right);
        if number == 1 {
            Next::Close
        } else {
            Next::Keep
        }
    };
    let report = judge(polite, |plan| plan.kept(2));
    report.assert_perfect("told");
    assert!(report.ended > 0, "{report}");
    let untold: Deed = |stream, head, _| {
        answer(stream, &right_answer(head));
        Next::Close
    };
    let report = judge(untold, |mut plan| {
        plan.rate = 50.0;
        plan.kept(2)
    });
    report.assert_perfect_but_races("untold");
    assert!(report.ended > 0, "{report}");
}

#[test]
fn a_request_on_a_kept_connection_that_is_closed_at_once_is_a_class_of_its_own() {
    let at_once: Deed = |stream, head, number| match number {
        0 => answer(stream, &right_answer(head)),
        _ => Next::Close,
    };
    let report = judge(at_once, |plan| plan.kept(2));
    assert!(report.count(Kind::IdleRaceUnproven) > 0, "{report}");
    report.assert_perfect_but_races("closed at once");
    // Closed after a while, it is no race: the server had the request, and time to answer it.
    let after_a_while: Deed = |stream, head, number| match number {
        0 => answer(stream, &right_answer(head)),
        _ => {
            std::thread::sleep(Duration::from_millis(120));
            Next::Close
        }
    };
    let report = judge(after_a_while, |plan| plan.kept(2));
    assert!(report.count(Kind::Reset) > 0, "{report}");
    assert_eq!(report.count(Kind::IdleRaceUnproven), 0, "{report}");
}

mod websockets {
    use super::*;
    use tokio_tungstenite::tungstenite::{accept, Message, WebSocket};

    type Deed = fn(&mut WebSocket<TcpStream>, &str) -> Next;

    fn judge(deed: Deed, give_up: Duration) -> Report {
        let _watchdog = Watchdog::new("a self-test of the load generator", 120);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut plan = Plan::new(listener.local_addr().unwrap(), 200.0).kept(2);
        plan.give_up = give_up;
        // The thread ends with its listener, which nobody connects to any more: it is left.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::spawn(move || {
                    let mut socket = accept(stream.unwrap()).unwrap();
                    while let Ok(Message::Text(text)) = socket.read() {
                        if deed(&mut socket, &text) == Next::Close {
                            return;
                        }
                    }
                });
            }
        });
        let load = Load::start(plan.shape(Shape::Echo));
        wait_until("echoes to be judged", || {
            let report = load.so_far();
            report.answered + report.failed() >= 20
        });
        load.stop()
    }

    fn echo(socket: &mut WebSocket<TcpStream>, id: &str) -> Next {
        let text = format!("{{\"pid\":7,\"id\":\"{id}\"}}");
        let _ = socket.send(Message::text(text));
        Next::Keep
    }

    const LONG: Duration = Duration::from_secs(25);

    #[test]
    fn echoes_are_judged() {
        judge(echo, LONG).assert_perfect("echoes");
        let report = judge(|socket, _| echo(socket, "77777777"), LONG);
        assert_eq!(
            (report.answered, report.count(Kind::Duplicate) > 0),
            (0, true),
            "{report}"
        );
        let twice: Deed = |socket, id| {
            echo(socket, id);
            echo(socket, id)
        };
        let report = judge(twice, LONG);
        assert!(report.count(Kind::Duplicate) > 0, "{report}");
        let report = judge(|_, _| Next::Keep, Duration::from_millis(100));
        assert_eq!(report.count(Kind::Silent), report.sent, "{report}");
        let report = judge(|_, _| Next::Close, LONG);
        assert_eq!(report.failed(), report.sent, "{report}");
        let not_json: Deed = |socket, _| {
            let _ = socket.send(Message::text("what"));
            Next::Keep
        };
        let report = judge(not_json, LONG);
        assert_eq!(
            (report.answered, report.count(Kind::Wrong) > 0),
            (0, true),
            "{report}"
        );
    }
}
