//! Writing a snapshot, entry by entry.

use super::format::{Frame, Header, SnapshotEntry};
use crate::reserved;
use ganger_region::Entry;
use std::io::{self, Write};

/// Bytes of a block from which on it is written out. A larger value makes a larger block.
const BLOCK_LEN: usize = 64 << 10;

/// A snapshot that is being written.
#[derive(Debug)]
pub struct SnapshotWriter<W> {
    out: W,
    body: Vec<u8>,
    in_block: u64,
    blocks: u64,
    entries: u64,
}

impl<W: Write> SnapshotWriter<W> {
    /// Writes the header.
    pub fn begin(mut out: W, header: Header) -> io::Result<Self> {
        out.write_all(&header.to_bytes())?;
        Ok(Self {
            out,
            body: Vec::new(),
            in_block: 0,
            blocks: 0,
            entries: 0,
        })
    }

    /// Adds an entry of the region, as it is at `now_ms` of the wall clock, if it is one that
    /// outlives a reboot: one of a session's own does not, nor what Ganger notes for itself.
    pub fn push_region(&mut self, key: Vec<u8>, entry: Entry, now_ms: u64) -> io::Result<()> {
        if entry.is_ephemeral || !reserved::outlives_reboot(&key) {
            return Ok(());
        }
        self.push(&SnapshotEntry {
            key,
            value: entry.value,
            expires_at_ms: entry.ttl_ms.map(|ttl| now_ms.saturating_add(ttl)),
            is_counter: entry.is_counter,
        })
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: &SnapshotEntry) -> io::Result<()> {
        if entry.key.is_empty() || entry.key.len() > usize::from(u16::MAX) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        entry.put(&mut self.body);
        self.in_block += 1;
        self.entries += 1;
        if self.body.len() >= BLOCK_LEN {
            self.write_block()?;
        }
        Ok(())
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Writes the rest and the end.
    pub fn finish(mut self) -> io::Result<W> {
        self.write_block()?;
        let end = Frame {
            is_end: true,
            body_crc: 0,
            number: self.blocks,
            entries: self.entries,
            body_len: 0,
        };
        self.out.write_all(&end.to_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn write_block(&mut self) -> io::Result<()> {
        if self.body.is_empty() {
            return Ok(());
        }
        let frame = Frame {
            is_end: false,
            body_crc: crc32fast::hash(&self.body),
            number: self.blocks,
            entries: self.in_block,
            body_len: self.body.len() as u64,
        };
        self.out.write_all(&frame.to_bytes())?;
        self.out.write_all(&self.body)?;
        self.blocks += 1;
        self.in_block = 0;
        self.body.clear();
        // One huge value must not keep its memory until the end.
        self.body.shrink_to(2 * BLOCK_LEN);
        Ok(())
    }
}
