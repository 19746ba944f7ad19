//! Asking a worker whether it still serves, as a client would.
//!
//! A connection to an app's address goes to any worker. To reach one worker's own queue a probe
//! connects from a source address that the balancing program knows (see [`crate::listen`]); where
//! that can't be, the answer is only of the app as a whole, and the caller has to know.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;

/// Bytes in which a status line must have come.
const STATUS_LINE_MAX: usize = 256;

/// Whom a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A TCP address.
    Tcp {
        /// Where it listens.
        address: SocketAddr,
        /// Where the connection must come from, if that matters.
        source: Option<IpAddr>,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// No answer in time.
    #[error("no answer in {ms} ms")]
    Timeout {
        /// How long it waited.
        ms: u128,
    },
    /// The connection.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What came was no HTTP.
    #[error("the answer is no HTTP: {begin:?}")]
    NotHttp {
        /// What it begins with.
        begin: String,
    },
    /// The status says that it is not well.
    #[error("it answered {status}")]
    Status {
        /// The status.
        status: u16,
    },
}

/// Whether a connection is accepted. One that waits in the queue of a hanging worker is not: so the
/// worker must close it, or say something, after it saw the end of what we send.
pub async fn tcp(target: &Target, patience: Duration) -> Result<(), ProbeError> {
    within(patience, async {
        let mut stream = connect(target).await?;
        stream.shutdown().await?;
        let mut byte = [0];
        // Anything, the end and a reset included, comes from a process that accepted.
        match stream.read(&mut byte).await {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error.into()),
            _ => Ok(()),
        }
    })
    .await
}

/// Whether a path is answered with a status that is at most `status_max`.
pub async fn http(
    target: &Target,
    path: &str,
    status_max: u16,
    patience: Duration,
) -> Result<(), ProbeError> {
    within(patience, async {
        let mut stream = connect(target).await?;
        let host = match target {
            Target::Tcp { address, .. } => address.to_string(),
            Target::Unix(_) => "localhost".to_owned(),
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ganger-probe\r\nAccept: */*\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        match status(&mut stream).await? {
            status if status <= status_max => Ok(()),
            status => Err(ProbeError::Status { status }),
        }
    })
    .await
}

async fn within<T>(
    patience: Duration,
    probe: impl Future<Output = Result<T, ProbeError>>,
) -> Result<T, ProbeError> {
    let ms = patience.as_millis();
    timeout(patience, probe)
        .await
        .unwrap_or(Err(ProbeError::Timeout { ms }))
}

/// Both kinds of stream as one.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

async fn connect(target: &Target) -> io::Result<Box<dyn Stream>> {
    match target {
        Target::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Target::Tcp { address, source } => {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            if let Some(source) = source {
                socket.bind((*source, 0).into())?;
            }
            Ok(Box::new(socket.connect(*address).await?))
        }
    }
}

/// Reads a status line: `HTTP/1.1 200 OK`.
async fn status(stream: &mut (impl AsyncRead + Unpin)) -> Result<u16, ProbeError> {
    let mut line = Vec::new();
    while !line.contains(&b'\n') && line.len() < STATUS_LINE_MAX {
        if stream.read_buf(&mut line).await? == 0 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&line);
    let mut words = text.split_ascii_whitespace();
    let status = match words.next() {
        Some(version) if version.starts_with("HTTP/1.") => words.next(),
        _ => None,
    };
    let status = status.and_then(|status| status.parse().ok());
    status.ok_or_else(|| ProbeError::NotHttp {
        begin: text.chars().take(40).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};

    const PATIENCE: Duration = Duration::from_secs(30);
    /// For what is meant to have no answer.
    const BRIEF: Duration = Duration::from_millis(50);

    /// A listener that answers one connection with these bytes, and says what it was asked by whom.
    fn server(answer: &'static [u8]) -> (Target, std::thread::JoinHandle<(String, IpAddr)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::Tcp {
            address: listener.local_addr().unwrap(),
            source: Some(Ipv4Addr::new(127, 71, 0, 9).into()),
        };
        let serve = std::thread::spawn(move || {
            let (mut stream, peer) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut part = [0; 1024];
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read(&mut part).unwrap() {
                    0 => break,
                    len => request.extend_from_slice(&part[..len]),
                }
            }
            let _ = stream.write_all(answer);
            (String::from_utf8(request).unwrap(), peer.ip())
        });
        (target, serve)
    }

    #[tokio::test]
    async fn a_good_status_is_good_and_the_request_is_whole_and_from_the_source() {
        let (target, serve) = server(b"HTTP/1.1 204 No Content\r\n\r\n");
        http(&target, "/health?x=1", 399, PATIENCE).await.unwrap();
        let (request, peer) = serve.join().unwrap();
        assert!(request.starts_with("GET /health?x=1 HTTP/1.1\r\nHost: 127.0.0.1:"));
        assert_eq!(peer, IpAddr::from([127, 71, 0, 9]));
    }

    #[tokio::test]
    async fn a_bad_status_garbage_and_silence_are_told_apart() {
        let (target, _serve) = server(b"HTTP/1.0 503 Busy\r\n\r\n");
        let error = http(&target, "/", 399, PATIENCE).await.unwrap_err();
        assert!(matches!(error, ProbeError::Status { status: 503 }));
        for garbage in [&b"SSH-2.0-x\r\n"[..], b"", b"HTTP/1.1\r\n", &[0xff; 1000]] {
            let (target, _serve) = server(garbage);
            let error = http(&target, "/", 399, PATIENCE).await.unwrap_err();
            let is_other = matches!(error, ProbeError::NotHttp { .. } | ProbeError::Io(_));
            assert!(is_other, "{error}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_nobody_accepts_is_no_life() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::Tcp {
            address: listener.local_addr().unwrap(),
            source: None,
        };
        let error = tcp(&target, BRIEF).await.unwrap_err();
        assert!(matches!(error, ProbeError::Timeout { ms: 50 }), "{error}");
        let error = http(&target, "/", 399, BRIEF).await.unwrap_err();
        assert!(matches!(error, ProbeError::Timeout { .. }), "{error}");
        let (target, _serve) = server(b"");
        tcp(&target, PATIENCE).await.unwrap();
    }
}
