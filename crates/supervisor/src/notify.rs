//! What is said by the protocol of systemd's `sd_notify`: by workers to us, and by us to whoever
//! started us.

use ganger_client::Home;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;

/// Environment variable with the socket's path.
pub const NOTIFY_VARIABLE: &str = "NOTIFY_SOCKET";
/// Bytes of a datagram that are looked at; systemd sends no more either.
const DATAGRAM_MAX: usize = 4096;
/// Longest status text that is kept.
const STATUS_MAX: usize = 256;

/// Something that a worker said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// It serves.
    Ready,
    /// It begins to stop.
    Stopping,
    /// It lives.
    Watchdog,
    /// What it is doing, in its own words.
    Status(String),
}

/// Reads a datagram: lines of `NAME=VALUE`. What is not known is not meant for us.
pub fn parse(datagram: &[u8]) -> Vec<Notice> {
    let lines = datagram.split(|byte| *byte == b'\n');
    let notices = lines.filter_map(|line| match line {
        b"READY=1" => Some(Notice::Ready),
        b"STOPPING=1" => Some(Notice::Stopping),
        b"WATCHDOG=1" => Some(Notice::Watchdog),
        _ => {
            let status = line.strip_prefix(b"STATUS=")?;
            let status = &status[..status.len().min(STATUS_MAX)];
            Some(Notice::Status(String::from_utf8_lossy(status).into_owned()))
        }
    });
    notices.collect()
}

/// The socket on which one worker process speaks; its path is gone when it is dropped.
#[derive(Debug)]
pub struct NotifySocket {
    socket: tokio::net::UnixDatagram,
    path: PathBuf,
}

impl NotifySocket {
    /// A socket in the home directory for the worker process of this mark. Needs a tokio runtime.
    ///
    /// It has a path, not an abstract name: the home lets nobody else in, so whoever writes to it
    /// is this worker, or something that it started.
    pub fn bind(home: &Home, mark: &str) -> io::Result<Self> {
        let path = home.path().join(format!("n-{mark}"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = tokio::net::UnixDatagram::bind(&path)?;
        Ok(Self { socket, path })
    }

    /// The variable that tells the worker.
    pub fn env(&self) -> (OsString, OsString) {
        (NOTIFY_VARIABLE.into(), self.path.clone().into())
    }

    /// Waits for the next datagram. Can be dropped at any time.
    pub async fn recv(&self) -> io::Result<Vec<Notice>> {
        let mut datagram = [0; DATAGRAM_MAX];
        let len = self.socket.recv(&mut datagram).await?;
        Ok(parse(&datagram[..len]))
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// Tells whoever started us, if they want to know.
pub fn tell_parent(state: &str) -> io::Result<()> {
    match env::var_os(NOTIFY_VARIABLE).filter(|path| !path.is_empty()) {
        Some(target) => send(target.as_bytes(), state),
        None => Ok(()),
    }
}

/// `target` is a path, or the name of an abstract socket behind an `@`.
fn send(target: &[u8], state: &str) -> io::Result<()> {
    let address = match target {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    // A parent that does not read must not stop the supervisor.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_lines_are_read_and_others_passed_over() {
        let datagram = b"READY=1\nMAINPID=7\nSTATUS=warming up\n\nWATCHDOG=1\nREADY=10";
        let status = Notice::Status("warming up".into());
        assert_eq!(parse(datagram), [Notice::Ready, status, Notice::Watchdog]);
        assert_eq!(parse(b""), []);
        assert_eq!(parse(&[0xff; 64]), []);
        let long = [b"STATUS=".as_slice(), &[b'x'; STATUS_MAX + 1]].concat();
        assert_eq!(parse(&long), [Notice::Status("x".repeat(STATUS_MAX))]);
    }

    #[tokio::test]
    async fn what_a_worker_says_arrives_and_the_path_goes() {
        let path = env::temp_dir().join(format!("ganger-notify-home-{}", std::process::id()));
        let home = Home::at(&path);
        home.create().unwrap();
        // What an earlier supervisor left.
        fs::write(path.join("n-a.1"), "").unwrap();
        let socket = NotifySocket::bind(&home, "a.1").unwrap();
        let (name, target) = socket.env();
        assert_eq!(name, NOTIFY_VARIABLE);
        send(target.as_bytes(), "READY=1").unwrap();
        let patience = std::time::Duration::from_secs(30);
        let heard = tokio::time::timeout(patience, socket.recv()).await;
        assert_eq!(heard.unwrap().unwrap(), [Notice::Ready]);
        drop(socket);
        assert!(send(target.as_bytes(), "READY=1").is_err());
        fs::remove_dir(path).unwrap();
    }
}
