//! The protocol of `sd_notify`, both ways: what workers say (a socket for each process, so that it
//! is known who speaks, through whatever wrappers), and what this supervisor says to its own
//! parent.

use ganger_client::Home;
use rustix::io::Errno;
use rustix::net::{
    recvmsg, sockopt, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// The environment variable that names the socket.
pub const NOTIFY_VARIABLE: &str = "NOTIFY_SOCKET";

/// Longest message that is looked at; the protocol's are far shorter.
const MESSAGE_MAX: usize = 4096;
/// Between two attempts to tell a parent something that has not read what it was told before.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// First letter of a socket's name. Names stay shorter than `broker.sock`, so that they fit
/// wherever that does.
const PREFIX: &str = "n";

/// What a worker said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// `READY=1`.
    Ready,
    /// `STOPPING=1`.
    Stopping,
    /// `WATCHDOG=1`.
    Watchdog,
    /// `WATCHDOG=trigger`: it says itself that it hangs.
    Hung,
    /// `STATUS=...`.
    Status(String),
}

/// The socket of one process. Its file goes when it is dropped.
#[derive(Debug)]
pub struct NotifySocket {
    path: PathBuf,
    socket: AsyncFd<UnixDatagram>,
}

impl NotifySocket {
    /// Makes one in the home directory.
    pub fn bind(home: &Home, instance: u64) -> io::Result<Self> {
        let path = home.path().join(format!("{PREFIX}{instance:x}"));
        let socket = UnixDatagram::bind(&path)?;
        let prepared = socket
            .set_nonblocking(true)
            .and_then(|()| Ok(sockopt::set_socket_passcred(&socket, true)?))
            .and_then(|()| crate::spawn::watch(socket, tokio::io::Interest::READABLE));
        match prepared {
            Ok(socket) => Ok(Self { path, socket }),
            Err(error) => {
                let _ = std::fs::remove_file(path);
                Err(error)
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the next message: the words in it that are known. Those of other users are
    /// dropped.
    pub async fn next(&self) -> io::Result<Vec<Word>> {
        loop {
            let mut guard = self.socket.readable().await?;
            match guard.try_io(|socket| receive(socket.get_ref())) {
                Ok(Ok(Some(message))) => return Ok(parse(&message)),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes what a killed supervisor left. Only for who holds the home's lock.
pub fn remove_stale(home: &Path) {
    for entry in std::fs::read_dir(home).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if number.is_some_and(|number| u64::from_str_radix(number, 16).is_ok()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Tells this process's own parent, if it wants to know, however late it reads what it was told before.
/// What is told first arrives first.
pub async fn tell_parent(state: &str) {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = TURN.lock().await;
    let is_full = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
    while send_to_parent(state).is_err_and(is_full) {
        tokio::time::sleep(FULL_PAUSE).await;
    }
}

fn send_to_parent(state: &str) -> io::Result<()> {
    let Some(target) = std::env::var_os(NOTIFY_VARIABLE).filter(|target| !target.is_empty()) else {
        return Ok(());
    };
    let bytes = target.into_vec();
    let address = match bytes.as_slice() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(path)))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// Tells this process's own parent now and then that it lives, if that is wanted of it.
pub(crate) async fn feed_watchdog() {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let Some(micros) = number("WATCHDOG_USEC").filter(|micros| is_meant && *micros > 0) else {
        return;
    };
    let pause = Duration::from_micros(micros / 2);
    loop {
        // A parent whose socket is full of them has no need of another.
        let _ = send_to_parent("WATCHDOG=1");
        tokio::time::sleep(pause).await;
    }
}

/// One message; `None` if it was nobody's of ours.
fn receive(socket: &UnixDatagram) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = [0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = match recvmsg(socket, &mut parts, &mut ancillary, flags) {
        Ok(received) => received,
        Err(Errno::INTR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let user = rustix::process::geteuid();
    let is_ours = ancillary.drain().any(|message| match message {
        RecvAncillaryMessage::ScmCredentials(sender) => sender.uid == user || sender.uid.is_root(),
        _ => false,
    });
    // What is longer than any message of the protocol is none.
    let is_whole = !received.flags.contains(ReturnFlags::TRUNC);
    Ok((is_ours && is_whole).then(|| bytes[..received.bytes].to_vec()))
}

fn parse(message: &[u8]) -> Vec<Word> {
    let lines = message.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| match line {
            b"READY=1" => Some(Word::Ready),
            b"STOPPING=1" => Some(Word::Stopping),
            b"WATCHDOG=1" => Some(Word::Watchdog),
            b"WATCHDOG=trigger" => Some(Word::Hung),
            line => {
                let status = line.strip_prefix(b"STATUS=")?;
                Some(Word::Status(String::from_utf8_lossy(status).into_owned()))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(name: &str) -> Home {
        let path = std::env::temp_dir().join(format!("ganger-{name}-{}", std::process::id()));
        let home = Home::at(path);
        home.create().unwrap();
        home
    }

    #[test]
    fn known_words_are_found_among_others() {
        let words = parse(b"MAINPID=7\nREADY=1\nSTATUS=well \xff\nWATCHDOG=1\nREADY=10\n");
        let status = Word::Status("well \u{fffd}".into());
        assert_eq!(words, [Word::Ready, status, Word::Watchdog]);
    }

    #[tokio::test]
    async fn a_word_arrives_and_the_file_goes_with_the_socket() {
        let home = home("notify");
        let socket = NotifySocket::bind(&home, 0xab).unwrap();
        let path = socket.path().to_owned();
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(&[b'x'; MESSAGE_MAX + 1], &path).unwrap();
        sender.send_to(b"READY=1", &path).unwrap();
        assert_eq!(socket.next().await.unwrap(), [Word::Ready]);
        drop(socket);
        assert!(!path.exists());
        std::fs::remove_dir(home.path()).unwrap();
    }

    #[test]
    fn stale_sockets_are_removed_and_nothing_else() {
        let home = home("stale");
        for name in ["n1f", "notes", "broker.sock"] {
            std::fs::write(home.path().join(name), "").unwrap();
        }
        remove_stale(home.path());
        assert!(!home.path().join("n1f").exists());
        assert!(home.path().join("notes").exists());
        assert!(home.path().join("broker.sock").exists());
        std::fs::remove_dir_all(home.path()).unwrap();
    }
}
