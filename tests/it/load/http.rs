//! One request on one connection, HTTP/1.0 or 1.1.

use super::answer;
use super::line::Line;
use super::report::Kind;
use super::Shape;
use std::io;

/// Why a request failed.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) kind: Kind,
    pub(crate) detail: String,
}

/// A right answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) worker: Option<u32>,
    /// Whether the connection can be used again.
    pub(crate) is_kept: bool,
}

/// How long a body is.
#[derive(Debug, Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
    ToTheEnd,
}

struct Head {
    status: u16,
    framing: Framing,
    is_kept: bool,
    /// The process that a header `x-pid` names.
    worker: Option<u32>,
}

const HEAD_MAX: usize = 64 * 1024;

/// Sends a request and judges the answer.
pub(crate) async fn exchange(
    line: &mut Line,
    shape: Shape,
    id: u64,
    is_kept: bool,
) -> Result<Answer, Trouble> {
    line.uses += 1;
    let request = answer::request(shape, id, is_kept);
    // A server may answer, and close, before it has read a whole request: so a failed write is only
    // remembered.
    let unwritten = send(line, &request).await.err();
    let head = loop {
        if let Some(head) = parse_head(&mut line.buffer)? {
            break head;
        }
        match line.read().await {
            Ok(0) => return Err(ended(line, unwritten)),
            Ok(_) => {}
            Err(error) => return Err(ended(line, Some(error))),
        }
    };
    line.worker = head.worker.or(line.worker);
    let body = body(line, head.framing).await?;
    let worker = answer::judge(shape, id, head.status, head.worker, &body);
    let worker = worker.map_err(|detail| Trouble {
        kind: Kind::Wrong,
        detail,
    })?;
    if !line.buffer.is_empty() {
        let detail = format!("{} bytes behind the answer", line.buffer.len());
        let kind = Kind::Duplicate;
        return Err(Trouble { kind, detail });
    }
    line.worker = worker.or(line.worker);
    Ok(Answer {
        worker,
        is_kept: is_kept && head.is_kept && unwritten.is_none(),
    })
}

/// What kind of failure an error of the system is, before anything was sent.
pub(crate) fn kind_of_connect(error: &io::Error) -> Kind {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ENOENT) => Kind::Refused,
        Some(libc::ECONNRESET | libc::ECONNABORTED) => Kind::Reset,
        Some(libc::EADDRNOTAVAIL | libc::EMFILE | libc::ENFILE) => Kind::Own,
        _ => Kind::Silent,
    }
}

async fn send(line: &mut Line, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = line.write(bytes).await?;
        bytes = &bytes[written..];
    }
    Ok(())
}

async fn body(line: &mut Line, framing: Framing) -> Result<Vec<u8>, Trouble> {
    let mut chunks = Vec::new();
    loop {
        match framing {
            Framing::Length(len) if line.buffer.len() >= len => {
                return Ok(line.buffer.drain(..len).collect());
            }
            Framing::Chunked => {
                if take_chunks(&mut line.buffer, &mut chunks)? {
                    return Ok(chunks);
                }
            }
            Framing::Length(_) | Framing::ToTheEnd => {}
        }
        let have = line.buffer.len() + chunks.len();
        match (line.read().await, framing) {
            (Ok(0), Framing::ToTheEnd) => return Ok(std::mem::take(&mut line.buffer)),
            (Ok(0), _) => return Err(truncated(&format!("end after {have} bytes: {framing:?}"))),
            (Err(error), _) => return Err(truncated(&format!("{error} after {have} bytes"))),
            (Ok(_), _) => {}
        }
    }
}

/// Moves whole chunks over; true behind the last.
fn take_chunks(buffer: &mut Vec<u8>, body: &mut Vec<u8>) -> Result<bool, Trouble> {
    loop {
        let (head, len) = match httparse::parse_chunk_size(buffer) {
            Ok(httparse::Status::Complete((head, len))) => (head, len as usize),
            Ok(httparse::Status::Partial) => return Ok(false),
            Err(_) => return Err(wrong("a chunk's size is none")),
        };
        if buffer.len() < head + len + 2 {
            return Ok(false);
        }
        body.extend_from_slice(&buffer[head..head + len]);
        if &buffer[head + len..head + len + 2] != b"\r\n" {
            return Err(wrong("a chunk is longer than it says"));
        }
        buffer.drain(..head + len + 2);
        if len == 0 {
            return Ok(true);
        }
    }
}

/// Takes a head off the buffer, when it is there.
fn parse_head(buffer: &mut Vec<u8>) -> Result<Option<Head>, Trouble> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let len = match response.parse(buffer) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if buffer.len() < HEAD_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(wrong("a head without end")),
        Err(error) => return Err(wrong(&format!("no HTTP: {error}"))),
    };
    let status = response.code.unwrap_or_default();
    let is_new = response.version == Some(1);
    let header = |name: &str| {
        let found = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).to_ascii_lowercase())
    };
    let length = header("content-length").and_then(|text| text.parse().ok());
    let framing = match (header("transfer-encoding"), length) {
        (Some(_), _) => Framing::Chunked,
        (None, Some(length)) => Framing::Length(length),
        (None, None) => Framing::ToTheEnd,
    };
    let connection = header("connection").unwrap_or_default();
    let head = Head {
        status,
        framing,
        is_kept: if is_new {
            connection != "close"
        } else {
            connection == "keep-alive"
        },
        worker: header("x-pid").and_then(|text| text.parse().ok()),
    };
    buffer.drain(..len);
    Ok(Some(head))
}

/// A connection that ended before there was a head.
fn ended(line: &Line, error: Option<io::Error>) -> Trouble {
    let detail = match &error {
        Some(error) => format!("{error}, {} bytes of a head", line.buffer.len()),
        None => format!("end, {} bytes of a head", line.buffer.len()),
    };
    let is_reset = error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
    let kind = match (line.buffer.is_empty(), line.uses, line.is_taken_in()) {
        (false, ..) => Kind::Truncated,
        (true, 0..=1, _) if is_reset => Kind::Reset,
        (true, 0..=1, _) => Kind::Dropped,
        (true, _, false) => Kind::IdleRace,
        // What was read leaves an end behind, what was not a reset.
        (true, _, true) if is_reset => Kind::IdleRaceUnread,
        (true, _, true) => Kind::IdleRaceUnproven,
    };
    Trouble { kind, detail }
}

fn truncated(detail: &str) -> Trouble {
    Trouble {
        kind: Kind::Truncated,
        detail: detail.to_owned(),
    }
}

fn wrong(detail: &str) -> Trouble {
    Trouble {
        kind: Kind::Wrong,
        detail: detail.to_owned(),
    }
}
