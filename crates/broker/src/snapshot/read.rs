//! Reading a snapshot, block by block, trusting nothing in it.

use super::format::{Frame, Header, SnapshotEntry, FRAME_LEN, HEADER_LEN};
use super::{Fault, What};
use std::io::{self, Read};

/// A snapshot that is being read.
#[derive(Debug)]
pub struct SnapshotReader<R> {
    input: R,
    len: u64,
    at: u64,
    header: Header,
    blocks: u64,
    entries: u64,
}

impl<R: Read> SnapshotReader<R> {
    /// Reads the header of a snapshot that has `len` bytes.
    pub fn begin(mut input: R, len: u64) -> Result<Self, Fault> {
        let mut bytes = [0; HEADER_LEN];
        fill(&mut input, &mut bytes, "the header").map_err(|what| Fault { at: 0, what })?;
        Ok(Self {
            input,
            len,
            at: HEADER_LEN as u64,
            header: Header::from_bytes(&bytes)?,
            blocks: 0,
            entries: 0,
        })
    }

    /// What it says of itself.
    pub fn header(&self) -> Header {
        self.header
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The entries of the next block; `None` behind the end, when everything was whole.
    pub fn next_block(&mut self) -> Result<Option<Vec<SnapshotEntry>>, Fault> {
        let at = self.at;
        self.read_block().map_err(|what| Fault { at, what })
    }

    fn read_block(&mut self) -> Result<Option<Vec<SnapshotEntry>>, What> {
        let nonsense = |reason| Err(What::Nonsense { reason });
        let mut bytes = [0; FRAME_LEN];
        fill(&mut self.input, &mut bytes, "a block's head")?;
        let frame = Frame::from_bytes(&bytes)?;
        self.at += FRAME_LEN as u64;
        if frame.number != self.blocks {
            return nonsense("a block is missing or stands twice");
        }
        if frame.is_end {
            if frame.entries != self.entries || frame.body_len != 0 {
                return nonsense("the end counts other entries than there are");
            }
            return match self.input.read(&mut [0]) {
                Ok(0) => Ok(None),
                Ok(_) => nonsense("something follows the end"),
                Err(error) => Err(What::Io(error)),
            };
        }
        // Before memory is asked for it.
        if frame.body_len > self.len.saturating_sub(self.at) {
            return Err(What::Ends { part: "a block" });
        }
        let Ok(body_len) = usize::try_from(frame.body_len) else {
            return nonsense("a block does not fit this machine's memory");
        };
        let mut body = vec![0; body_len];
        fill(&mut self.input, &mut body, "a block")?;
        if crc32fast::hash(&body) != frame.body_crc {
            return Err(What::Checksum { part: "a block" });
        }
        self.at += frame.body_len;
        self.blocks += 1;
        self.entries = self.entries.saturating_add(frame.entries);
        entries(&body, frame.entries).map(Some)
    }
}

fn entries(mut body: &[u8], count: u64) -> Result<Vec<SnapshotEntry>, What> {
    let mut entries = Vec::new();
    while !body.is_empty() {
        let Some((entry, rest)) = SnapshotEntry::take(body) else {
            return Err(What::Nonsense {
                reason: "an entry makes no sense",
            });
        };
        entries.push(entry);
        body = rest;
    }
    if entries.len() as u64 != count {
        return Err(What::Nonsense {
            reason: "a block has another number of entries than it says",
        });
    }
    Ok(entries)
}

fn fill(input: &mut impl Read, bytes: &mut [u8], part: &'static str) -> Result<(), What> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => What::Ends { part },
        _ => What::Io(error),
    })
}
