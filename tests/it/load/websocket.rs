//! Echoes over websockets: every message must come back once, from one process per connection.

use super::answer::Said;
use super::http::{kind_of_connect, Trouble};
use super::pace::{Shared, RACE};
use super::report::Kind;
use super::{Connections, Target};
use futures_util::{SinkExt, StreamExt};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::WebSocketStream;

/// A message that is due.
struct Due {
    id: u64,
    at: Instant,
}

/// How a connection ended, so that the next can be opened.
enum End {
    /// The load has ended.
    Done,
    /// The server closed it with a close frame, or without.
    Closed {
        is_cut: bool,
    },
    Failed,
}

/// Sends messages in turn over all connections until the load is ended.
pub(crate) async fn run(shared: Rc<Shared>, is_ended: Arc<AtomicBool>) {
    let Connections::Kept(connections) = shared.plan.connections else {
        panic!("websockets are kept connections");
    };
    let started = Instant::now();
    let mut seats = Vec::new();
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (seat, due) = mpsc::unbounded_channel();
        seats.push(seat);
        tasks.spawn_local(serve_seat(Rc::clone(&shared), due));
    }
    for id in 0_u64.. {
        let at = started + Duration::from_secs_f64(id as f64 / shared.plan.rate);
        tokio::time::sleep_until(at).await;
        if is_ended.load(Ordering::Relaxed) {
            break;
        }
        shared.note_due(at);
        let _ = seats[id as usize % connections].send(Due { id, at });
    }
    drop(seats);
    while tasks.join_next().await.is_some() {}
}

/// One client that opens a new connection whenever its own has ended.
async fn serve_seat(shared: Rc<Shared>, mut due: mpsc::UnboundedReceiver<Due>) {
    let mut waiting = None;
    loop {
        // A connection is opened when there is something to say.
        if waiting.is_none() {
            waiting = due.recv().await;
        }
        let Some(first) = waiting.take() else {
            return;
        };
        match open(&shared).await {
            Ok((socket, port)) => match serve(&shared, socket, port, first, &mut due).await {
                End::Done => return,
                End::Closed { is_cut } => {
                    let mut report = shared.report.lock().unwrap();
                    report.ended += u64::from(!is_cut);
                    report.cut += u64::from(is_cut);
                }
                End::Failed => {}
            },
            Err(trouble) => shared.tell(first.at, Err(trouble), None),
        }
    }
}

async fn open(shared: &Shared) -> Result<(WebSocketStream<TcpStream>, Option<u16>), Trouble> {
    let Target::Tcp(address) = &shared.plan.target else {
        panic!("websockets go over TCP here");
    };
    let opening = async {
        let stream = TcpStream::connect(address).await.map_err(|error| Trouble {
            kind: kind_of_connect(&error),
            detail: error.to_string(),
        })?;
        let port = stream.local_addr().ok().map(|address| address.port());
        let (socket, _) = tokio_tungstenite::client_async("ws://test/", stream)
            .await
            .map_err(|error| Trouble {
                kind: kind_of_end(&error),
                detail: error.to_string(),
            })?;
        Ok((socket, port))
    };
    let opened = tokio::time::timeout(shared.plan.give_up, opening).await;
    let opened = opened.unwrap_or_else(|_| Err(silent()))?;
    shared.report.lock().unwrap().connections += 1;
    Ok(opened)
}

/// Sends what is due and takes what comes, until one of the sides ends.
async fn serve(
    shared: &Shared,
    socket: WebSocketStream<TcpStream>,
    port: Option<u16>,
    first: Due,
    due: &mut mpsc::UnboundedReceiver<Due>,
) -> End {
    let (mut out, mut incoming) = socket.split();
    let mut open: HashMap<u64, Instant> = HashMap::new();
    let mut worker = None;
    let mut next = Some(first);
    let mut is_done = false;
    loop {
        if let Some(Due { id, at }) = next.take() {
            open.insert(id, at);
            // If it can't be sent, reading tells why.
            let _ = out.send(Message::text(id.to_string())).await;
        }
        if is_done && open.is_empty() {
            let _ = out.close().await;
            return End::Done;
        }
        let oldest = open.values().min().copied();
        let give_up = oldest.unwrap_or_else(Instant::now) + shared.plan.give_up;
        let heard = tokio::select! {
            message = due.recv(), if !is_done => {
                is_done = message.is_none();
                next = message;
                continue;
            }
            heard = incoming.next() => heard,
            () = tokio::time::sleep_until(give_up), if oldest.is_some() => {
                fail(shared, &mut open, &silent(), (port, worker));
                return End::Failed;
            }
        };
        let trouble = match heard {
            Some(Ok(Message::Text(text))) => match take(&mut open, &text) {
                Ok((at, pid)) => {
                    worker = Some(pid);
                    shared.tell(at, Ok(worker), Some((port, worker)));
                    continue;
                }
                Err(trouble) => trouble,
            },
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map_or(CloseCode::Status, |frame| frame.code);
                // A message that crossed the close frame on its way is lost by the protocol's rules.
                let is_race = oldest.is_some_and(|oldest| oldest.elapsed() < RACE);
                let trouble = Trouble {
                    kind: if is_race {
                        Kind::IdleRace
                    } else {
                        Kind::Dropped
                    },
                    detail: format!("close frame {code} before the echo"),
                };
                fail(shared, &mut open, &trouble, (port, worker));
                // The answer to the close frame goes out as the socket is flushed.
                let _ = out.flush().await;
                return End::Closed { is_cut: false };
            }
            Some(Ok(_)) => continue,
            Some(Err(error)) => Trouble {
                kind: kind_of_end(&error),
                detail: error.to_string(),
            },
            None => Trouble {
                kind: Kind::Dropped,
                detail: "end without a close frame".to_owned(),
            },
        };
        let is_cut = !matches!(trouble.kind, Kind::Wrong | Kind::Duplicate);
        if open.is_empty() && is_cut {
            return End::Closed { is_cut };
        }
        fail(shared, &mut open, &trouble, (port, worker));
        return End::Failed;
    }
}

/// Finds the message that this is the echo of.
fn take(open: &mut HashMap<u64, Instant>, text: &str) -> Result<(Instant, u32), Trouble> {
    let said: Said = serde_json::from_str(text).map_err(|error| Trouble {
        kind: Kind::Wrong,
        detail: format!("{error}: {text}"),
    })?;
    let at = said.id.parse().ok().and_then(|id| open.remove(&id));
    at.map(|at| (at, said.pid)).ok_or_else(|| Trouble {
        kind: Kind::Duplicate,
        detail: format!("echo of {}, which is not outstanding", said.id),
    })
}

/// All outstanding messages fail together; at least one, so that no trouble goes uncounted.
fn fail(
    shared: &Shared,
    open: &mut HashMap<u64, Instant>,
    trouble: &Trouble,
    known: (Option<u16>, Option<u32>),
) {
    if open.is_empty() && matches!(trouble.kind, Kind::Wrong | Kind::Duplicate) {
        shared.report.lock().unwrap().sent += 1;
        open.insert(0, Instant::now());
    }
    for (_, at) in open.drain() {
        let trouble = Trouble {
            kind: trouble.kind,
            detail: trouble.detail.clone(),
        };
        shared.tell(at, Err(trouble), Some(known));
    }
}

fn kind_of_end(error: &Error) -> Kind {
    match error {
        Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Kind::Dropped,
        Error::Io(_) => Kind::Reset,
        Error::ConnectionClosed | Error::AlreadyClosed => Kind::Dropped,
        Error::Protocol(_) => Kind::Dropped,
        _ => Kind::Wrong,
    }
}

fn silent() -> Trouble {
    Trouble {
        kind: Kind::Silent,
        detail: "no echo in all the time that one waits".to_owned(),
    }
}
