//! What a worker says to whoever supervises it, and what it is given: the protocols of systemd, so
//! that the same program runs under both.

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::sync::{Mutex, PoisonError};
use tokio::signal::unix::{signal, Signal, SignalKind};

/// Environment variable with the worker's number, from 0.
pub const WORKER_VARIABLE: &str = "GANGER_WORKER";
/// Environment variable with the socket to which a worker says that it is ready.
const NOTIFY_VARIABLE: &str = "NOTIFY_SOCKET";
/// Environment variable with how many listeners were handed over.
const LISTEN_VARIABLE: &str = "LISTEN_FDS";
/// Listeners that are looked at, at most.
const LISTENERS_MAX: usize = 1024;

/// This process, as a worker of a supervisor.
///
/// ```no_run
/// # async fn run() -> std::io::Result<()> {
/// use ganger_client::Worker;
///
/// let worker = Worker::from_env()?;
/// let listener = match worker.tcp_listener(0)? {
///     Some(inherited) => inherited,
///     None => std::net::TcpListener::bind("127.0.0.1:3000")?,
/// };
/// worker.ready()?;
/// tokio::select! {
///     () = worker.drain() => println!("asked to stop: finish what was begun"),
///     () = async { /* serve */ } => {}
/// }
/// # Ok(())
/// # }
/// ```
pub struct Worker {
    listeners: Mutex<listenfd::ListenFd>,
    terminate: tokio::sync::Mutex<Signal>,
}

impl Worker {
    /// Looks at the environment, and from here on takes SIGTERM as the wish to [`drain`](Self::drain).
    /// To be called once, at the beginning of `main`: it takes the variables that name the listeners
    /// out of the environment. Needs a tokio runtime.
    pub fn from_env() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let count = env::var(LISTEN_VARIABLE).unwrap_or_default();
        let listeners = match count.parse::<usize>() {
            Ok(count) if count > LISTENERS_MAX => {
                let what = format!("{LISTEN_VARIABLE} is {count}: {LISTENERS_MAX} are the most");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            _ => listenfd::ListenFd::from_env(),
        };
        Ok(Self {
            listeners: Mutex::new(listeners),
            terminate: tokio::sync::Mutex::new(terminate),
        })
    }

    /// The worker's number, from 0; `None` if nobody gave it one.
    ///
    /// ```
    /// println!("{:?}", ganger_client::Worker::index());
    /// ```
    pub fn index() -> Option<u32> {
        env::var(WORKER_VARIABLE).ok()?.parse().ok()
    }

    /// Says that it is ready to serve. `false` if nobody wants to know.
    pub fn ready(&self) -> io::Result<bool> {
        notify("READY=1")
    }

    /// Says that it stops, so that nothing new is sent its way. `false` if nobody wants to know.
    pub fn stopping(&self) -> io::Result<bool> {
        notify("STOPPING=1")
    }

    /// Resolves when the supervisor wants this worker to finish what it has begun and stop: at
    /// SIGTERM. The future can be dropped at any time, but then a signal that came meanwhile is only
    /// seen by the next one.
    pub async fn drain(&self) {
        self.terminate.lock().await.recv().await;
    }

    /// How many listeners were handed over.
    pub fn listeners(&self) -> usize {
        self.inherited().len()
    }

    /// The inherited TCP listener of this number; `None` if there is none, or it was taken before.
    pub fn tcp_listener(&self, index: usize) -> io::Result<Option<TcpListener>> {
        self.inherited().take_tcp_listener(index)
    }

    /// The inherited Unix stream listener of this number; `None` if there is none, or it was taken
    /// before.
    pub fn unix_listener(&self, index: usize) -> io::Result<Option<UnixListener>> {
        self.inherited().take_unix_listener(index)
    }

    fn inherited(&self) -> std::sync::MutexGuard<'_, listenfd::ListenFd> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the supervisor something; `false` if there is none that wants to know.
fn notify(state: &str) -> io::Result<bool> {
    let Some(target) = env::var_os(NOTIFY_VARIABLE).filter(|target| !target.is_empty()) else {
        return Ok(false);
    };
    send(target.as_bytes(), state)?;
    Ok(true)
}

/// `target` is a path, or the name of an abstract socket behind an `@`.
fn send(target: &[u8], state: &str) -> io::Result<()> {
    let address = match target {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    // A supervisor that does not read must not stop its workers.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut text = [0; 64];
        let len = socket.recv(&mut text).unwrap();
        String::from_utf8(text[..len].to_vec()).unwrap()
    }

    #[test]
    fn a_path_and_an_abstract_name_are_both_told() {
        let name = format!("ganger-notify-{}", std::process::id());
        let path = env::temp_dir().join(&name);
        let socket = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str().as_bytes(), "READY=1").unwrap();
        assert_eq!(received(&socket), "READY=1");
        std::fs::remove_file(&path).unwrap();
        assert!(send(path.as_os_str().as_bytes(), "READY=1").is_err());

        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        send(format!("@{name}").as_bytes(), "STOPPING=1").unwrap();
        assert_eq!(received(&socket), "STOPPING=1");
    }
}
