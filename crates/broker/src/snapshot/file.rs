//! Snapshot files: one that is always whole, and the one before.

use super::format::Header;
use super::read::SnapshotReader;
use super::write::SnapshotWriter;
use super::{Fault, Refused, RestoreError, SnapshotError, What};
use crate::reserved::FENCE_KEY;
use crate::snapshot::SnapshotEntry;
use ganger_region::{Cursor, Region, SetOptions, WriteError};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A snapshot of a region that is being written. Dropped before [`SnapshotFile::commit`], it leaves
/// what was there before.
#[derive(Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    temporary: PathBuf,
    writer: Option<SnapshotWriter<File>>,
    cursor: Option<Cursor>,
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// From which file.
    pub path: PathBuf,
    /// What it says of itself.
    pub header: Header,
    /// Entries that are in the region now.
    pub entries: u64,
    /// Entries whose time was over.
    pub expired: u64,
    /// Entries whose keys stayed as they were.
    pub kept: u64,
    /// A newer file that was not whole.
    pub refused: Vec<Refused>,
}

impl SnapshotFile {
    /// Begins to write, to a new file beside `path` that only this user can read.
    pub fn begin(path: &Path, header: Header) -> Result<Self, SnapshotError> {
        let temporary = with_suffix(path, ".tmp");
        let file = new_file(&temporary).and_then(|file| SnapshotWriter::begin(file, header));
        let writer = file.map_err(|error| io_error(&temporary, error))?;
        Ok(Self {
            path: path.to_owned(),
            temporary,
            writer: Some(writer),
            cursor: Some(Cursor::START),
        })
    }

    /// Adds the next entries of the region, `limit` or a few more, as they are at `now_ms` of the
    /// wall clock; `false` when all are in.
    pub fn step(
        &mut self,
        region: &Region,
        limit: usize,
        now_ms: u64,
    ) -> Result<bool, SnapshotError> {
        let (Some(cursor), Some(writer)) = (self.cursor, &mut self.writer) else {
            return Ok(false);
        };
        let page = region.scan(b"", cursor, limit)?;
        for (key, entry) in page.entries {
            let pushed = writer.push_region(key, entry, now_ms);
            pushed.map_err(|error| io_error(&self.temporary, error))?;
        }
        self.cursor = page.next;
        Ok(self.cursor.is_some())
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.writer.as_ref().map_or(0, SnapshotWriter::entries)
    }

    /// Makes it the snapshot, and the one that was it the previous one. Returns its entries.
    pub fn commit(mut self) -> Result<u64, SnapshotError> {
        let entries = self.entries();
        if let Some(writer) = self.writer.take() {
            let outcome = writer.finish().and_then(|file| file.sync_all());
            outcome
                .inspect_err(|_| drop(fs::remove_file(&self.temporary)))
                .map_err(|error| io_error(&self.temporary, error))?;
            take_place(&self.temporary, &self.path).map_err(|error| io_error(&self.path, error))?;
        }
        Ok(entries)
    }
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        if self.writer.is_some() {
            // What can't be removed is overwritten by the next.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// What becomes of keys that are in the region already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onto {
    /// They get the snapshot's values.
    All,
    /// They stay as they are.
    Missing,
}

/// Where the snapshot before the one at `path` is.
pub fn previous_path(path: &Path) -> PathBuf {
    with_suffix(path, ".1")
}

/// Puts the newest whole snapshot into the region; `None` if there is no file at all. A file is read
/// to its end before anything of it is used.
pub fn restore(
    region: &Region,
    path: &Path,
    onto: Onto,
    now_ms: u64,
    mut progress: impl FnMut(u64, Header),
) -> Result<Option<Restored>, RestoreError> {
    let mut refused = Vec::new();
    for path in [path.to_owned(), previous_path(path)] {
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                let fault = io_fault(error);
                refused.push(Refused { path, fault });
                continue;
            }
        };
        let checked = for_each(&mut file, |_, _| Ok::<(), Applying>(()));
        if let Err(Applying::Fault(fault)) = checked {
            refused.push(Refused { path, fault });
            continue;
        }
        let (mut entries, mut expired, mut kept) = (0, 0, 0);
        let applied = for_each(&mut file, |header, entry| {
            let put = put(region, &entry, onto, now_ms);
            match put.map_err(|error| Applying::Write(entry.key, error))? {
                Put::Done => entries += 1,
                Put::Expired => expired += 1,
                Put::Kept => kept += 1,
            }
            progress(entries + expired + kept, header);
            Ok(())
        });
        return match applied {
            Ok(header) => Ok(Some(Restored {
                path,
                header,
                entries,
                expired,
                kept,
                refused,
            })),
            Err(Applying::Write(key, error)) => Err(RestoreError::Write { path, key, error }),
            // It was whole a moment ago, so the disk is failing; what came in is sound.
            Err(Applying::Fault(fault)) => {
                refused.push(Refused { path, fault });
                Err(RestoreError::Refused(refused))
            }
        };
    }
    if refused.is_empty() {
        Ok(None)
    } else {
        Err(RestoreError::Refused(refused))
    }
}

enum Applying {
    Fault(Fault),
    Write(Vec<u8>, WriteError),
}

/// Calls `each` with every entry of a file, from its beginning.
fn for_each(
    file: &mut File,
    mut each: impl FnMut(Header, SnapshotEntry) -> Result<(), Applying>,
) -> Result<Header, Applying> {
    let fault = |error| Applying::Fault(io_fault(error));
    file.rewind().map_err(fault)?;
    let len = file.metadata().map_err(fault)?.len();
    let mut reader = SnapshotReader::begin(BufReader::new(file), len).map_err(Applying::Fault)?;
    while let Some(block) = reader.next_block().map_err(Applying::Fault)? {
        for entry in block {
            each(reader.header(), entry)?;
        }
    }
    Ok(reader.header())
}

enum Put {
    Done,
    Expired,
    Kept,
}

fn put(region: &Region, entry: &SnapshotEntry, onto: Onto, now_ms: u64) -> Result<Put, WriteError> {
    let ttl_ms = match entry.expires_at_ms {
        Some(at) if at <= now_ms => return Ok(Put::Expired),
        Some(at) => Some(at - now_ms),
        None => None,
    };
    match <[u8; 8]>::try_from(&entry.value[..]) {
        Ok(bytes) if entry.is_counter => {
            let value = i64::from_le_bytes(bytes);
            if entry.key == FENCE_KEY {
                return raise(region, value);
            }
            match onto {
                // A counter begins at 0 when it is not there.
                Onto::All => drop(region.delete(&entry.key)?),
                Onto::Missing if region.exists(&entry.key).unwrap_or(false) => {
                    return Ok(Put::Kept)
                }
                Onto::Missing => {}
            }
            region.incr_with(&entry.key, value, ttl_ms)?;
            Ok(Put::Done)
        }
        _ => {
            let mut options = SetOptions::new();
            if let Some(ttl_ms) = ttl_ms {
                options = options.ttl_ms(ttl_ms);
            }
            if onto == Onto::Missing {
                options = options.if_absent();
            }
            let written = region.set_with(&entry.key, &entry.value, options)?;
            Ok(written.map_or(Put::Kept, |_| Put::Done))
        }
    }
}

/// The counter of fencing tokens never goes back: no token may be given out twice.
fn raise(region: &Region, value: i64) -> Result<Put, WriteError> {
    let now = region.incr(FENCE_KEY, 0)?;
    if now >= value {
        return Ok(Put::Kept);
    }
    region.incr(FENCE_KEY, value.saturating_sub(now))?;
    Ok(Put::Done)
}

fn new_file(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // New, so that no link that somebody put there is followed.
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// Two renames, each all or nothing. Between them there is only the previous one, which `restore`
/// finds.
fn take_place(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::rename(path, previous_path(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(temporary, path)?;
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn io_error(path: &Path, error: io::Error) -> SnapshotError {
    SnapshotError::Io {
        path: path.to_owned(),
        error,
    }
}

fn io_fault(error: io::Error) -> Fault {
    Fault {
        at: 0,
        what: What::Io(error),
    }
}
