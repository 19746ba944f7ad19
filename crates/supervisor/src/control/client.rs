//! The command line's side of the control socket: blocking, so that a verb starts and ends quickly.

use super::server::encode;
use super::{Hello, Reply, Request, PROTOCOL, REPLY_MAX};
use crate::home::CONTROL_NAME;
use crate::report::LogLine;
use ganger_client::{Home, HomeError};
use rustix::io::Errno;
use rustix::net::{sockopt, AddressFamily, SocketAddrUnix, SocketType};
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Longest wait for a supervisor to take a connection, to say hello and to answer a simple question.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a supervisor could not be asked, or did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is none.
    #[error("no supervisor is running in {}", home.display())]
    NotRunning {
        /// Where it would be.
        home: PathBuf,
    },
    /// The home directory can't be trusted.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// It is of another version.
    #[error(
        "the running supervisor (pid {pid}) is ganger {theirs}, this is {}: use the same version, \
         or restart the supervisor with this one",
        env!("CARGO_PKG_VERSION")
    )]
    Version {
        /// Its process.
        pid: i32,
        /// Its version.
        theirs: String,
    },
    /// It will not talk.
    #[error("{why}")]
    Refused {
        /// Why.
        why: String,
    },
    /// It did not do it.
    #[error("{text}")]
    Failed {
        /// Why.
        text: String,
        /// The last lines of the worker that is to blame, if one is.
        lines: Vec<LogLine>,
    },
    /// It does not answer.
    #[error("the supervisor does not answer (it may be stopped or overloaded)")]
    Silent,
    /// It ended in the middle.
    #[error("the supervisor went away before it answered")]
    Gone,
    /// Something else.
    #[error("{}: {error}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// A connection to a supervisor.
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
    server: Hello,
}

impl Client {
    /// Connects to the supervisor of this home.
    pub fn connect(home: &Home) -> Result<Self, ClientError> {
        let not_running = || ClientError::NotRunning {
            home: home.path().to_owned(),
        };
        match home.check() {
            Err(HomeError::Missing { .. }) => return Err(not_running()),
            checked => checked?,
        }
        let path = home.path().join(CONTROL_NAME);
        let stream = connect(&path).map_err(|error| match error {
            Errno::NOENT | Errno::CONNREFUSED => not_running(),
            Errno::AGAIN => ClientError::Silent,
            error => ClientError::Io {
                path: path.clone(),
                error: error.into(),
            },
        })?;
        let mut client = Self {
            stream,
            path,
            server: our_hello(),
        };
        client.greet()?;
        Ok(client)
    }

    /// What the supervisor said of itself.
    pub fn server(&self) -> &Hello {
        &self.server
    }

    /// Asks, hands each reply but the last on, and gives the text of `Done`.
    pub fn ask(
        &mut self,
        request: &Request,
        mut each: impl FnMut(Reply),
    ) -> Result<String, ClientError> {
        self.ask_while(request, |reply| {
            each(reply);
            true
        })
    }

    /// As [`Client::ask`], but ends, with an empty text, when `each` says that nothing more is
    /// wanted. Nothing can be asked on this connection then.
    pub fn ask_while(
        &mut self,
        request: &Request,
        mut each: impl FnMut(Reply) -> bool,
    ) -> Result<String, ClientError> {
        let is_quick = matches!(request, Request::Status | Request::Describe { .. });
        let patience = is_quick.then_some(PATIENCE);
        let set = self.stream.set_read_timeout(patience);
        set.map_err(|error| self.io(error))?;
        self.send(request)?;
        loop {
            match self.receive()? {
                Reply::Done { text } => return Ok(text),
                Reply::Failed { text, lines } => return Err(ClientError::Failed { text, lines }),
                reply => {
                    if !each(reply) {
                        return Ok(String::new());
                    }
                }
            }
        }
    }

    fn greet(&mut self) -> Result<(), ClientError> {
        // One that refuses does so before it hears us, and may be gone already.
        let sent = self.send(&our_hello());
        self.server = match (self.receive(), sent) {
            (Ok(hello), _) => hello,
            (Err(ClientError::Gone), Err(error)) => return Err(error),
            (Err(error), _) => return Err(error),
        };
        if self.server.protocol != PROTOCOL {
            return Err(ClientError::Version {
                pid: self.server.pid,
                theirs: self.server.ganger.clone(),
            });
        }
        match self.server.refused.take() {
            Some(why) => Err(ClientError::Refused { why }),
            None => Ok(()),
        }
    }

    fn send<T: serde::Serialize>(&mut self, message: &T) -> Result<(), ClientError> {
        let mut frame = Vec::new();
        encode(message, &mut frame);
        let sent = self.stream.write_all(&frame);
        sent.map_err(|error| self.io(error))
    }

    fn receive<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        let mut len = [0; 4];
        let read = self.stream.read_exact(&mut len);
        read.map_err(|error| self.io(error))?;
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if len > REPLY_MAX {
            let what = format!("a frame of {len} bytes");
            return Err(self.io(io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        let mut frame = vec![0; len];
        let read = self.stream.read_exact(&mut frame);
        read.map_err(|error| self.io(error))?;
        rmp_serde::from_slice(&frame)
            .map_err(|error| self.io(io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    fn io(&self, error: io::Error) -> ClientError {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
        match error.kind() {
            BrokenPipe | ConnectionReset | UnexpectedEof => ClientError::Gone,
            TimedOut | WouldBlock => ClientError::Silent,
            _ => ClientError::Io {
                path: self.path.clone(),
                error,
            },
        }
    }
}

/// With a limit: a stopped supervisor whose queue is full would not let us in for ever.
fn connect(path: &std::path::Path) -> Result<UnixStream, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    rustix::net::connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}

fn our_hello() -> Hello {
    Hello {
        ganger: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL,
        pid: rustix::process::getpid().as_raw_pid(),
        refused: None,
    }
}
