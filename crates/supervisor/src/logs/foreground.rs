//! The foreground: lines go to standard output and error as they come, by threads of their own, since
//! writing to a terminal or a pipe may take for ever. What doesn't fit a thread's queue is counted and
//! told.

use super::format::{dropped_text, Style};
use crate::report::LogLine;
use rustix::fs::fstat;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that wait to be written.
const WAITING_MAX: usize = 512 * 1024;
/// Bytes written at a time.
const BATCH: usize = 32 * 1024;
/// Pause after a failed write (a full disk, say), in which lines are dropped.
const PAUSE: Duration = Duration::from_millis(100);
/// Stack of the writing threads: they call nothing deep.
const STACK: usize = 64 * 1024;

/// Where lines are shown as they come. Clones are handles on the same.
#[derive(Clone)]
pub struct Foreground(Arc<Targets>);

struct Targets {
    out: Target,
    /// `None` where standard error is the same file, so that the order stays.
    err: Option<Target>,
}

struct Target {
    shared: Arc<Shared>,
    style: Mutex<Style>,
}

/// What a target's thread and the others see.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines lost since the last that was written.
    dropped: u64,
    is_writing: bool,
    is_closed: bool,
    /// Nobody reads it any more.
    is_dead: bool,
}

impl Foreground {
    /// This process's standard output, and standard error if that is another file. Colours as
    /// [`wants_colour`] says.
    pub fn stdio() -> std::io::Result<Self> {
        let (out, err) = (std::io::stdout(), std::io::stderr());
        let environment = |name: &str| std::env::var_os(name);
        let err_fd = if is_same_file(&out, &err) {
            None
        } else {
            Some(err.as_fd().try_clone_to_owned()?)
        };
        let has_colour = wants_colour(environment, out.is_terminal());
        Self::new(
            (out.as_fd().try_clone_to_owned()?, has_colour),
            err_fd.map(|fd| (fd, wants_colour(environment, err.is_terminal()))),
        )
    }

    /// These targets, each with whether it takes colours.
    pub fn new(out: (OwnedFd, bool), err: Option<(OwnedFd, bool)>) -> std::io::Result<Self> {
        Ok(Self(Arc::new(Targets {
            out: Target::new(out.0, out.1)?,
            err: err
                .map(|(fd, colour)| Target::new(fd, colour))
                .transpose()?,
        })))
    }

    /// Shows a worker's line.
    pub fn line(&self, line: &LogLine) {
        let target = if line.is_stderr {
            self.err()
        } else {
            &self.0.out
        };
        target.show(|style, text| style.line(line, text));
    }

    /// Shows a line of the supervisor's own, on standard error.
    pub fn note(&self, text: &str) {
        self.err().show(|style, out| style.note(text, out));
    }

    /// Waits until everything was written, so long at most. Nothing is shown after it.
    pub fn finish(&self, patience: Duration) {
        let until = Instant::now() + patience;
        for target in [Some(&self.0.out), self.0.err.as_ref()]
            .into_iter()
            .flatten()
        {
            target.finish(until);
        }
    }

    fn err(&self) -> &Target {
        self.0.err.as_ref().unwrap_or(&self.0.out)
    }
}

impl Target {
    fn new(fd: OwnedFd, has_colour: bool) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("foreground".into())
            .stack_size(STACK)
            .spawn(move || write_all(&fd, &theirs))?;
        Ok(Self {
            shared,
            style: Mutex::new(Style {
                has_colour,
                ..Style::default()
            }),
        })
    }

    fn show(&self, format: impl FnOnce(&mut Style, &mut Vec<u8>)) {
        let mut text = Vec::new();
        format(&mut lock(&self.style), &mut text);
        let mut state = lock(&self.shared.state);
        if state.is_closed || state.is_dead {
            return;
        }
        state.bytes += text.len();
        state.waiting.push_back(text);
        while state.bytes > WAITING_MAX && state.waiting.len() > 1 {
            if let Some(oldest) = state.waiting.pop_front() {
                state.bytes -= oldest.len();
                state.dropped += 1;
            }
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    fn finish(&self, until: Instant) {
        let mut state = lock(&self.shared.state);
        state.is_closed = true;
        self.shared.changed.notify_all();
        while !state.is_dead && (state.is_writing || !state.waiting.is_empty()) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        lock(&self.shared.state).is_closed = true;
        self.shared.changed.notify_all();
    }
}

/// Whether there are to be colours: `NO_COLOR` and `CLICOLOR_FORCE` decide, else whether it is a
/// terminal that can show them.
pub fn wants_colour(environment: impl Fn(&str) -> Option<OsString>, is_terminal: bool) -> bool {
    let is_set = |name: &str| environment(name).is_some_and(|value| !value.is_empty());
    if is_set("NO_COLOR") {
        return false;
    }
    if environment("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0") {
        return true;
    }
    is_terminal && environment("TERM").is_none_or(|term| term != "dumb")
}

/// A target's thread.
fn write_all(fd: &OwnedFd, shared: &Shared) {
    let mut is_torn = false;
    while let Some((batch, lines)) = next_batch(shared, is_torn) {
        let written = write(fd, &batch);
        let mut state = lock(&shared.state);
        state.is_writing = false;
        is_torn = match written {
            Ok(()) => false,
            Err((Errno::PIPE, _)) => {
                state.is_dead = true;
                state.waiting = VecDeque::new();
                shared.changed.notify_all();
                return;
            }
            Err((_, at)) => {
                state.dropped += lines;
                at > 0 && batch[at - 1] != b'\n'
            }
        };
        shared.changed.notify_all();
        drop(state);
        if written.is_err() {
            std::thread::sleep(PAUSE);
        }
    }
}

/// What is to be written next, and how many lines that is; `None` at the end.
fn next_batch(shared: &Shared, is_torn: bool) -> Option<(Vec<u8>, u64)> {
    let mut state = lock(&shared.state);
    while state.waiting.is_empty() {
        if state.is_closed {
            return None;
        }
        let woken = shared.changed.wait(state);
        state = woken.unwrap_or_else(PoisonError::into_inner);
    }
    let mut batch = Vec::new();
    if is_torn {
        batch.push(b'\n');
    }
    let mut lines = std::mem::take(&mut state.dropped);
    if lines > 0 {
        batch.extend_from_slice(dropped_text(lines).as_bytes());
        batch.push(b'\n');
    }
    while let Some(line) = state.waiting.front() {
        if !batch.is_empty() && batch.len() + line.len() > BATCH {
            break;
        }
        batch.extend_from_slice(line);
        state.bytes -= line.len();
        state.waiting.pop_front();
        lines += 1;
    }
    state.is_writing = true;
    Some((batch, lines))
}

/// Writes all of it, or says why not and how far it got.
fn write(fd: &OwnedFd, batch: &[u8]) -> Result<(), (Errno, usize)> {
    let mut at = 0;
    while at < batch.len() {
        match rustix::io::write(fd, &batch[at..]) {
            Ok(len) => at += len,
            Err(Errno::INTR) => {}
            // Somebody made it non-blocking; it is theirs too, so it stays that.
            Err(Errno::AGAIN) => wait_writable(fd),
            Err(error) => return Err((error, at)),
        }
    }
    Ok(())
}

fn wait_writable(fd: &OwnedFd) {
    use rustix::event::{poll, PollFd, PollFlags};
    let _ = poll(&mut [PollFd::new(fd, PollFlags::OUT)], None);
}

fn is_same_file(one: impl AsFd, other: impl AsFd) -> bool {
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(set: &[(&str, &str)], is_terminal: bool) -> bool {
        let variable = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        wants_colour(variable, is_terminal)
    }

    #[test]
    fn colours_are_for_terminals_unless_somebody_says_otherwise() {
        assert!(wants(&[("TERM", "xterm")], true));
        assert!(!wants(&[], false));
        assert!(!wants(&[("TERM", "dumb")], true));
        assert!(!wants(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], true));
        assert!(
            wants(&[("NO_COLOR", "")], true),
            "an empty one says nothing"
        );
        assert!(wants(&[("CLICOLOR_FORCE", "1")], false));
        assert!(!wants(&[("CLICOLOR_FORCE", "0")], false));
    }
}
