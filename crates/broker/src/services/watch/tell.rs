//! Telling one watcher: the state, step by step, then changes with the values there are now.

use super::log::What;
use super::table::Next;
use super::window::Window;
use super::Shared;
use crate::ids::Subscriber;
use crate::reserved;
use crate::services::region_error;
use ganger_protocol::pubsub::{GapCause, Position};
use ganger_protocol::watch::{
    ChangeKind, Select, SnapshotBegin, SnapshotEnd, Watch, WatchValue, Watching,
};
use ganger_protocol::{limits, ErrorBody, ErrorCode, Flags, Frame, Head, Op};
use ganger_region::{Change, Cursor, Entry, ReadError};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Keys of a snapshot that are found at a time, and buckets that are looked at for them.
const STEP: usize = 64;
/// Changes that are taken at a time.
const CHANGES: usize = 64;

/// How much to hand out at a time; a little more may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Frames.
    pub frames: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// How a watch stands after it was drained.
#[derive(Debug, PartialEq, Eq)]
pub enum Drained {
    /// All was told, or all that its client has room for; it will be woken.
    Idle,
    /// There is more.
    More,
    /// It can't go on, and is to be dropped.
    Ended(ErrorBody),
}

/// A watch. It ends when it is dropped.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    who: Subscriber,
    select: Select,
    values: bool,
    phase: Phase,
    window: Option<Window>,
    /// Keys of the snapshot that are still to be told.
    keys: VecDeque<Vec<u8>>,
    /// Changes that are still to be told.
    changes: VecDeque<(u64, What)>,
    /// Revisions that were told before their turn, because the value was already newer.
    ahead: HashMap<Box<[u8]>, u64>,
    told: u64,
    entries: u64,
}

#[derive(Debug)]
enum Phase {
    /// It wants to go on at a position.
    Resume(Position),
    /// What its client knows is void, and why.
    Begin(Option<GapCause>),
    Scan(Scan),
    Live,
}

/// How far a snapshot has come.
#[derive(Debug, Clone, Copy)]
struct Scan {
    /// Where more keys are to be found.
    cursor: Option<Cursor>,
    /// Entries that were told.
    entries: u64,
    /// Where the changes begin that are told behind it.
    position: u64,
}

/// Hands frames out, and counts them.
struct Out<'e> {
    each: &'e mut dyn FnMut(Frame),
    left: Budget,
    window: &'e mut Option<Window>,
    frame_bytes: usize,
}

impl Watcher {
    pub(super) fn new(shared: Arc<Shared>, who: Subscriber, watch: &Watch) -> Self {
        Self {
            who,
            select: watch.select.clone(),
            values: watch.values,
            phase: watch.resume.map_or(Phase::Begin(None), Phase::Resume),
            window: watch
                .window
                .map(|asked| Window::new(asked, shared.window_frames)),
            keys: VecDeque::new(),
            changes: VecDeque::new(),
            ahead: HashMap::new(),
            told: 0,
            entries: 0,
            shared,
        }
    }

    /// Its client has taken so many more frames. Whether it is to be drained again.
    pub fn taken(&mut self, frames: u64) -> bool {
        let Some(window) = &mut self.window else {
            return false;
        };
        let was_full = window.is_full();
        window.taken(frames);
        was_full && !window.is_full()
    }

    /// Hands out what is next.
    pub fn drain(&mut self, budget: Budget, each: &mut dyn FnMut(Frame)) -> Drained {
        let mut window = self.window.take();
        let mut out = Out {
            each,
            left: budget,
            window: &mut window,
            frame_bytes: self.shared.frame_bytes,
        };
        let drained = loop {
            if out.is_held_up() {
                break Drained::Idle;
            }
            match self.step(&mut out) {
                Ok(false) => break Drained::Idle,
                Err(error) => break Drained::Ended(error),
                // A scan may look at many keys and find none, so each step is one of few.
                Ok(true) if matches!(self.phase, Phase::Scan(_)) => break Drained::More,
                Ok(true) if out.left.frames == 0 || out.left.bytes == 0 => break Drained::More,
                Ok(true) => {}
            }
        };
        self.window = window;
        let (told, entries) = (self.told, self.entries);
        (self.told, self.entries) = (0, 0);
        if told + entries > 0 {
            self.shared.with_table(|table| {
                table.totals.told += told;
                table.totals.entries += entries;
            });
        }
        drained
    }

    /// Does a little; `false` if there is nothing to do.
    fn step(&mut self, out: &mut Out<'_>) -> Result<bool, ErrorBody> {
        match self.phase {
            Phase::Resume(position) => self.resume(position, out),
            Phase::Begin(gap) => self.begin(gap, out),
            Phase::Scan(scan) => self.scan(scan, out),
            Phase::Live => self.tell_changes(out),
        }
    }

    fn resume(&mut self, position: Position, out: &mut Out<'_>) -> Result<bool, ErrorBody> {
        let (epoch, who) = (self.shared.epoch, self.who);
        let resumed = self.shared.with_table(|table| {
            let begun = table.begin(who)?;
            let resumed = begun.map(|_| position.epoch == epoch && table.resume(who, position.seq));
            Ok::<_, ErrorBody>(resumed)
        })?;
        match resumed {
            None => return Ok(false),
            Some(true) => {
                out.control(self.who, &Watching { position })?;
                self.phase = Phase::Live;
            }
            Some(false) if position.epoch == epoch => {
                self.phase = Phase::Begin(Some(GapCause::Expired));
            }
            Some(false) => self.phase = Phase::Begin(Some(GapCause::Restart)),
        }
        Ok(true)
    }

    fn begin(&mut self, gap: Option<GapCause>, out: &mut Out<'_>) -> Result<bool, ErrorBody> {
        let who = self.who;
        let begun = self.shared.with_table(|table| {
            let begun = table.begin(who)?;
            table.totals.snapshots += u64::from(begun.is_some());
            Ok::<_, ErrorBody>(begun)
        })?;
        let Some(position) = begun else {
            return Ok(false);
        };
        self.ahead = HashMap::new();
        self.changes = VecDeque::new();
        out.control(self.who, &SnapshotBegin { gap })?;
        self.phase = Phase::Scan(Scan {
            cursor: Some(Cursor::START),
            entries: 0,
            position,
        });
        Ok(true)
    }

    fn scan(&mut self, mut scan: Scan, out: &mut Out<'_>) -> Result<bool, ErrorBody> {
        if let Some(cursor) = scan.cursor.filter(|_| self.keys.is_empty()) {
            scan.cursor = self.find_keys(cursor)?;
        }
        while out.has_room() {
            let Some(key) = self.keys.pop_front() else {
                break;
            };
            // What goes meanwhile, or is being changed, is told of by a change.
            let entry = match self.shared.region.entry(&key) {
                Ok(Some(entry)) => entry,
                Ok(None) | Err(ReadError::Contended) => continue,
                Err(error) => return Err(region_error::read(&error)),
            };
            let head = Head::new(Op::SnapshotEntry, self.who.subscription.0).seq(scan.position - 1);
            out.entry(head, &key, &entry, self.values)?;
            scan.entries += 1;
            self.entries += 1;
        }
        self.phase = Phase::Scan(scan);
        if self.keys.is_empty() && scan.cursor.is_none() {
            let position = Position {
                epoch: self.shared.epoch,
                seq: scan.position,
            };
            let entries = scan.entries;
            out.control(self.who, &SnapshotEnd { entries, position })?;
            self.phase = Phase::Live;
        }
        Ok(true)
    }

    /// Finds some keys from a cursor on, and returns where more are.
    fn find_keys(&mut self, cursor: Cursor) -> Result<Option<Cursor>, ErrorBody> {
        match &self.select {
            Select::Key(key) => {
                self.keys.push_back(key.to_vec());
                Ok(None)
            }
            Select::Prefix(prefix) => {
                let page = self.shared.region.scan_keys(prefix, cursor, STEP, STEP);
                let page = page.map_err(|error| region_error::read(&error))?;
                let keys = page.keys.into_iter();
                self.keys
                    .extend(keys.filter(|key| !reserved::is_reserved(key)));
                Ok(page.next)
            }
            _ => Ok(None),
        }
    }

    fn tell_changes(&mut self, out: &mut Out<'_>) -> Result<bool, ErrorBody> {
        if self.changes.is_empty() {
            let who = self.who;
            let limit = out.left.frames.clamp(1, CHANGES);
            match self.shared.with_table(|table| table.next(who, limit)) {
                Next::Nothing => return Ok(false),
                Next::Failed(error) => return Err(error),
                Next::Lost => {
                    self.phase = Phase::Begin(Some(GapCause::Slow));
                    return Ok(true);
                }
                Next::Changes(changes) => self.changes.extend(changes),
            }
        }
        while out.has_room() {
            let Some((seq, what)) = self.changes.pop_front() else {
                break;
            };
            // A gap of the feed is no change: it came as a loss.
            if let What::Change {
                change,
                key,
                revision,
            } = what
            {
                self.tell(seq, change, key, revision, out)?;
            }
        }
        Ok(true)
    }

    /// Tells how a key is now, if that was not told already. A key that was removed and made again
    /// since is told as set; one that was set and removed since is told when its removal's turn
    /// comes.
    fn tell(
        &mut self,
        seq: u64,
        change: Change,
        key: Box<[u8]>,
        revision: u64,
        out: &mut Out<'_>,
    ) -> Result<(), ErrorBody> {
        if let Some(told) = self.ahead.get(&key).copied() {
            if revision == told {
                self.ahead.remove(&key);
            }
            if revision <= told {
                return Ok(());
            }
            self.ahead.remove(&key);
        }
        let head = Head::new(Op::Change, self.who.subscription.0).seq(seq);
        let entry = match self.shared.region.entry(&key) {
            Ok(entry) => entry,
            // It is being changed, so another change of it follows.
            Err(ReadError::Contended) => return Ok(()),
            Err(error) => return Err(region_error::read(&error)),
        };
        match (entry, kind(change)) {
            (Some(entry), _) => {
                let head = head.flags(ChangeKind::Set.to_flags());
                out.entry(head, &key, &entry, self.values)?;
                if entry.revision > revision {
                    self.ahead.insert(key, entry.revision);
                }
            }
            (None, ChangeKind::Set) => return Ok(()),
            (None, kind) => {
                let value = WatchValue {
                    key: &key,
                    revision,
                    value: b"",
                };
                out.value(head.flags(kind.to_flags()), value)?;
            }
        }
        self.told += 1;
        Ok(())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let who = self.who;
        self.shared.with_table(|table| table.remove(who));
    }
}

impl Out<'_> {
    /// Whether the client has to take something first.
    fn is_held_up(&self) -> bool {
        self.window.as_ref().is_some_and(Window::is_full)
    }

    fn has_room(&self) -> bool {
        self.left.frames > 0 && self.left.bytes > 0 && !self.is_held_up()
    }

    fn control<B: ganger_protocol::Body>(
        &mut self,
        who: Subscriber,
        body: &B,
    ) -> Result<(), ErrorBody> {
        let frame = Frame::control(who.subscription.0, body);
        let frame =
            frame.map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))?;
        self.frame(frame);
        Ok(())
    }

    fn entry(
        &mut self,
        head: Head,
        key: &[u8],
        entry: &Entry,
        values: bool,
    ) -> Result<(), ErrorBody> {
        let value = WatchValue {
            key,
            revision: entry.revision,
            value: if values { &entry.value } else { b"" },
        };
        let head = if entry.is_counter {
            head.flags(head.flags.with(Flags::COUNTER))
        } else {
            head
        };
        self.value(head, value)
    }

    fn value(&mut self, head: Head, value: WatchValue<'_>) -> Result<(), ErrorBody> {
        let len = limits::HEADER_LEN + value.key.len() + 8 + value.value.len();
        let tail = (len <= self.frame_bytes).then(|| value.to_tail().ok());
        let Some(tail) = tail.flatten() else {
            let limit = self.frame_bytes;
            let error = ErrorBody::from(ErrorCode::AnswerTooLong);
            return Err(error.limit(limit).actual(len));
        };
        self.frame(Frame::new(head, tail));
        Ok(())
    }

    fn frame(&mut self, frame: Frame) {
        let len = limits::HEAD_LEN + frame.tail.len();
        self.left.frames = self.left.frames.saturating_sub(1);
        self.left.bytes = self.left.bytes.saturating_sub(len);
        if let Some(window) = self.window {
            window.sent(len);
        }
        (self.each)(frame);
    }
}

fn kind(change: Change) -> ChangeKind {
    match change {
        Change::Delete => ChangeKind::Delete,
        Change::Expire => ChangeKind::Expire,
        Change::Evict => ChangeKind::Evict,
        _ => ChangeKind::Set,
    }
}
