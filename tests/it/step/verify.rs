//! What has to hold in every image: for readers before anybody repaired anything, for the next
//! writer, and for the whole region after that.

use super::contents::{brief, is_same, observe, told, Contents, Expected, Seen};
use super::image::{Image, Scratch};
use ganger_region::{Access, Change, Feed, FeedItem, Options, Region, Stats};

/// Key of the write that follows each image.
const NEXT: &[u8] = b"the next write";

/// Verifies the images of one operation.
pub(crate) struct Checker {
    scratch: Scratch,
    /// The image before the operation.
    start: Vec<u8>,
    expected: Expected,
    /// Keys that were seen as they are after the operation, and how.
    committed: Contents,
    evicts: bool,
    /// Whether the change feed is on, and so must tell.
    feeds: bool,
    /// Keys of which no reader may ever see anything else than before or after; one per shard that
    /// nobody writes.
    absent: Vec<Vec<u8>>,
}

impl Checker {
    pub(crate) fn new(start: &Image, expected: Expected) -> Self {
        let scratch = Scratch::new(start.bytes());
        let reader = attach(&scratch, Access::ReadOnly).unwrap();
        let absent = start
            .shards()
            .map(|shard| key_of_shard(&reader, shard, "absent", 0))
            .collect();
        Self {
            feeds: start.feed_is_on(),
            scratch,
            start: start.bytes().to_vec(),
            expected,
            committed: Contents::new(),
            evicts: start.evicts(),
            absent,
        }
    }

    /// What readers see in an image, if it is something they may see.
    pub(crate) fn verify_reads(&mut self, image: &Image) -> Result<Contents, String> {
        self.scratch.load(image.bytes());
        let reader = attach(&self.scratch, Access::ReadOnly)?;
        let seen = observe(&reader, self.expected.before.keys())?;
        for (key, seen) in &seen {
            let is_after = self.expected.is_after(key, seen);
            if !is_after && !self.expected.is_before(key, seen) {
                return Err(self.expected.complaint(key, seen));
            }
            if let Some(committed) = self.committed.get(key) {
                if !is_same(committed, seen) {
                    let name = String::from_utf8_lossy(key);
                    return Err(format!(
                        "`{name}` was written, and then read {}",
                        brief(seen)
                    ));
                }
            }
            if is_after && self.expected.changes(key) && self.committed.get(key) != Some(seen) {
                self.committed.insert(key.clone(), seen.clone());
            }
        }
        Ok(seen)
    }

    /// Everything that has to hold in an image.
    pub(crate) fn verify(&mut self, image: &Image) -> Result<(), String> {
        let seen = self.verify_reads(image)?;
        let feed = self.feed_before(image)?;
        let writer = attach(&self.scratch, Access::ReadWrite)?;
        self.take_over(image, &writer)?;
        let repaired = observe(&writer, seen.keys())?;
        expect_repaired(&seen, &repaired)?;
        let seen = repaired;
        // Before any further repair: that would put right what was wrong without a lock held.
        audit(&writer)?;
        self.repair_again(image, &writer)?;
        expect_same(
            &observe(&writer, seen.keys())?,
            &seen,
            "after the second repair",
        )?;
        writer.set(NEXT, b"works").map_err(told("the next write"))?;
        let later = observe(&writer, seen.keys())?;
        if self.evicts {
            let gone = |key: &Vec<u8>| later[key].is_none();
            if seen
                .iter()
                .any(|(key, seen)| &later[key] != seen && !gone(key))
            {
                return Err("the next write changed another key".to_owned());
            }
        } else {
            expect_same(&later, &seen, "after the next write")?;
        }
        if let Some(feed) = feed {
            self.expect_told(feed, &seen)?;
        }
        expect_exact_counts(&writer, &later)?;
        expect_nothing_left(&writer, &later)
    }

    /// As [`Checker::verify`], for an image after the operation returned: it has to read as done.
    pub(crate) fn verify_end(&mut self, image: &Image) -> Result<(), String> {
        for (key, seen) in self.verify_reads(image)? {
            if !self.expected.is_after(&key, &seen) {
                let name = String::from_utf8_lossy(&key);
                let seen = brief(&seen);
                return Err(format!("acknowledged, but `{name}` reads {seen}"));
            }
        }
        self.verify(image)
    }

    /// A feed that was opened before the operation, on a region where the image has happened since.
    fn feed_before(&mut self, image: &Image) -> Result<Option<Feed>, String> {
        if !self.feeds {
            return Ok(None);
        }
        self.scratch.load(&self.start);
        let reader = attach(&self.scratch, Access::ReadOnly)?;
        let feed = reader.feed().map_err(told("opening the feed"));
        self.scratch.load(image.bytes());
        feed.map(Some)
    }

    /// A write in each shard, which repairs what a dead holder left locked, and only that.
    fn take_over(&self, image: &Image, writer: &Region) -> Result<(), String> {
        let held = image
            .shards()
            .filter(|&shard| image.lock(shard) != 0)
            .count() as u64;
        let repairs = writer.stats().repairs;
        for key in &self.absent {
            let deleted = writer.delete(key).map_err(told("the takeover"))?;
            if deleted {
                return Err("there is a key that nobody wrote".to_owned());
            }
        }
        let repaired = writer.stats().repairs - repairs;
        if repaired != held {
            return Err(format!(
                "{held} locks were held, {repaired} shards repaired"
            ));
        }
        if writer.stats().damaged != 0 {
            return Err("the repair met damaged slots".to_owned());
        }
        Ok(())
    }

    /// A second repair finds nothing to do: word for word the same, but for what counts the
    /// repairs.
    fn repair_again(&self, image: &Image, writer: &Region) -> Result<(), String> {
        // Shards that no dead writer held were not repaired yet, and have another order of their
        // free blocks.
        self.scratch.abandon_locks(image);
        // The audit locks each shard and, unlike a write, changes nothing on its own.
        audit(writer)?;
        let once = Image::take(&self.scratch.mapping);
        self.scratch.abandon_locks(image);
        audit(writer)?;
        match once.unlike_after_repair(self.scratch.mapping.bytes()) {
            unlike if unlike.is_empty() => Ok(()),
            unlike => Err(format!("a second repair changes the words at {unlike:?}")),
        }
    }

    /// Who follows the feed learns of each change: by its record, or by a gap.
    fn expect_told(&self, mut feed: Feed, seen: &Contents) -> Result<(), String> {
        let mut news = Vec::new();
        while feed.poll(|item| news.push(item)) > 0 {}
        let knows = |wanted: &[u8]| {
            let is_set = seen.get(wanted).is_none_or(Option::is_some);
            news.iter().any(|item| match item {
                FeedItem::Gap { .. } => true,
                FeedItem::Change { key, change, .. } => {
                    key == wanted && is_set == (*change == Change::Set)
                }
                _ => false,
            })
        };
        let written = |key: &&Vec<u8>| self.committed.contains_key(*key);
        for key in seen.keys().filter(written).map(Vec::as_slice).chain([NEXT]) {
            if !knows(key) {
                let name = String::from_utf8_lossy(key);
                return Err(format!("nobody told of `{name}`, only {news:?}"));
            }
        }
        for item in &news {
            if let FeedItem::Change { key, .. } = item {
                if !seen.contains_key(key) && key != NEXT {
                    return Err(format!(
                        "the feed tells of a key that nobody wrote: {item:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// A name for a key of this shard that begins with `stem`, the `number`th of its kind.
pub(crate) fn key_of_shard(region: &Region, shard: u64, stem: &str, number: usize) -> Vec<u8> {
    let names = (0..).map(|attempt| format!("{stem}-{number}-{attempt}").into_bytes());
    let mut names = names.filter(|name| region.shard_of_key(name) == shard);
    names.next().unwrap()
}

pub(crate) fn attach(scratch: &Scratch, access: Access) -> Result<Region, String> {
    let fd = scratch.fd().try_clone_to_owned().unwrap();
    Region::from_fd(fd, Options::new().access(access)).map_err(told("attaching"))
}

pub(crate) fn audit(region: &Region) -> Result<ganger_region::Audit, String> {
    let audit = region.check().map_err(told("the audit"))?;
    if audit.is_clean() {
        Ok(audit)
    } else {
        Err(format!("the audit found {:#?}", audit.problems))
    }
}

/// What counts say is what there is; and what belonged to the dead goes.
fn expect_exact_counts(writer: &Region, seen: &Contents) -> Result<(), String> {
    writer.reap().map_err(told("reaping"))?;
    writer.sweep().map_err(told("sweeping"))?;
    let now = observe(writer, seen.keys())?;
    for (key, seen) in seen {
        let expected = seen.as_ref().filter(|seen| !seen.is_ephemeral);
        if now[key].as_ref() != expected {
            let name = String::from_utf8_lossy(key);
            return Err(format!("`{name}` reads {} after reaping", brief(&now[key])));
        }
    }
    let next = (NEXT.len() + b"works".len()) as u64;
    let (mut entries, mut bytes) = (1, next);
    for (key, seen) in &now {
        let Some(seen) = seen else { continue };
        entries += 1;
        bytes += (key.len() + seen.len()) as u64;
    }
    let audit = audit(writer)?;
    let Stats {
        entries: counted,
        bytes: counted_bytes,
        pages_used,
        pages_free,
        sessions_attached,
        ..
    } = writer.stats();
    let told = (counted, counted_bytes, pages_used, pages_free);
    let exact = (entries, bytes, audit.pages_used, audit.pages_free);
    if told != exact {
        return Err(format!(
            "entries, bytes, pages used and free: {told:?}, not {exact:?}"
        ));
    }
    if sessions_attached != 1 {
        return Err(format!(
            "{sessions_attached} sessions are taken by one handle"
        ));
    }
    Ok(())
}

/// Without entries there is no page in use, whatever died before.
fn expect_nothing_left(writer: &Region, seen: &Contents) -> Result<(), String> {
    for key in seen.keys().map(Vec::as_slice).chain([NEXT]) {
        writer.delete(key).map_err(told("deleting"))?;
    }
    let stats = writer.stats();
    if (stats.entries, stats.bytes, stats.pages_used) != (0, 0, 0) {
        return Err(format!("an empty region has {stats:?}"));
    }
    audit(writer).map(|_| ())
}

fn expect_same(seen: &Contents, expected: &Contents, when: &str) -> Result<(), String> {
    for (key, expected) in expected {
        if &seen[key] != expected {
            return Err(format!(
                "`{}` reads {} {when}, not {}",
                String::from_utf8_lossy(key),
                brief(&seen[key]),
                brief(expected)
            ));
        }
    }
    Ok(())
}

/// A repair changes nothing, but for a counter in whose write its holder died: that gets a revision
/// which nobody has seen.
fn expect_repaired(seen: &Contents, repaired: &Contents) -> Result<(), String> {
    let revision = |seen: &Option<Seen>| seen.as_ref().map(Seen::revision);
    for (key, repaired) in repaired {
        let seen = &seen[key];
        if !is_same(seen, repaired) || revision(seen) > revision(repaired) {
            return Err(format!(
                "`{}` reads {} after the repair, not {}",
                String::from_utf8_lossy(key),
                brief(repaired),
                brief(seen)
            ));
        }
    }
    Ok(())
}
