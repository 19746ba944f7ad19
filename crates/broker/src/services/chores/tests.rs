use super::*;
use crate::reserved::FENCE_KEY;
use ganger_region::{Config, Options};
use std::sync::mpsc::Sender;

const PATIENCE: Duration = Duration::from_secs(30);

/// A folder of a test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("ganger-chores-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn plan(&self) -> SnapshotPlan {
        SnapshotPlan {
            file: Some(self.0.join("state")),
            every: None,
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn region(entries: u32) -> Region {
    let region = Region::create(&Config::new(8 << 20), Options::new()).unwrap();
    for entry in 0..entries {
        region
            .set(format!("key {entry}").as_bytes(), b"value")
            .unwrap();
    }
    region
}

fn hear() -> (Hear, Receiver<News>) {
    let (send, news): (Sender<News>, _) = mpsc::channel();
    (Box::new(move |told| drop(send.send(told))), news)
}

fn ask(chores: &Chores, chore: Chore) -> Result<AdminReply, ErrorBody> {
    let (hear, news) = hear();
    chores.request(chore, hear)?;
    loop {
        match news.recv_timeout(PATIENCE).unwrap() {
            News::Progress(_) => {}
            News::Done(reply) => return Ok(reply),
            News::Failed(error) => return Err(error),
        }
    }
}

#[test]
fn a_snapshot_is_written_and_put_into_a_new_region() {
    let folder = Folder::new("round");
    let chores = Chores::start(region(1000), folder.plan()).unwrap();
    let AdminReply::Snapshot {
        name,
        entries,
        bytes,
        ..
    } = ask(&chores, Chore::Snapshot).unwrap()
    else {
        panic!()
    };
    assert_eq!((&name[..], entries), ("state", 1000));
    let file = folder.0.join("state");
    assert_eq!(file.metadata().unwrap().len(), bytes);
    let totals = chores.totals();
    assert_eq!(
        (totals.written, totals.failed, totals.last_bytes),
        (1, 0, bytes)
    );
    assert!(totals.last_written_ms > 0);

    // A region that is new is filled, but for what was written to it before.
    let new = region(2);
    new.set(b"key 1", b"newer").unwrap();
    let mut told = Vec::new();
    let progress = |done, total| told.push((done, total));
    let said = restore_at_start(&new, &folder.plan(), progress).unwrap();
    let said = said.unwrap();
    assert!(said.starts_with("restored 998 entries from "), "{said}");
    assert!(said.ends_with(", 2 were there"), "{said}");
    assert_eq!(new.get(b"key 1").unwrap().as_deref(), Some(&b"newer"[..]));
    assert_eq!((told.len(), told.last()), (1000, Some(&(1000, 1000))));
    // From here on it is not new: what goes stays gone.
    new.delete(b"key 1").unwrap();
    assert_eq!(
        restore_at_start(&new, &folder.plan(), |_, _| {}).unwrap(),
        None
    );
    assert!(!new.exists(b"key 1").unwrap());
    let nowhere = SnapshotPlan {
        file: Some(folder.0.join("absent")),
        every: None,
    };
    assert_eq!(
        restore_at_start(&region(1), &nowhere, |_, _| {}).unwrap(),
        None
    );
}

/// A broker that was killed and comes back must not bring back what was deleted since its last
/// snapshot.
#[test]
fn a_region_that_a_snapshot_was_made_of_is_not_filled_from_it() {
    let folder = Folder::new("same");
    let region = region(10);
    let chores = Chores::start(region.clone(), folder.plan()).unwrap();
    ask(&chores, Chore::Snapshot).unwrap();
    region.delete(b"key 1").unwrap();
    assert_eq!(
        restore_at_start(&region, &folder.plan(), |_, _| {}).unwrap(),
        None
    );
    assert!(!region.exists(b"key 1").unwrap());
}

#[test]
fn a_broken_snapshot_is_refused_by_name_and_the_one_before_used() {
    let folder = Folder::new("broken");
    let region = region(10);
    let chores = Chores::start(region.clone(), folder.plan()).unwrap();
    ask(&chores, Chore::Snapshot).unwrap();
    region.set(b"key 10", b"newer").unwrap();
    ask(&chores, Chore::Snapshot).unwrap();
    let file = folder.0.join("state");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    region.clear().unwrap();
    let AdminReply::Snapshot {
        name,
        entries,
        refused,
        ..
    } = ask(&chores, Chore::Restore(None)).unwrap()
    else {
        panic!()
    };
    // One more: the mark.
    assert_eq!((&name[..], entries, region.len()), ("state.1", 10, 11));
    assert!(
        refused.len() == 1 && refused[0].contains("state: "),
        "{refused:?}"
    );
    assert_eq!(chores.totals().files_refused, 1);
    let new = Region::create(&Config::new(8 << 20), Options::new()).unwrap();
    let said = restore_at_start(&new, &folder.plan(), |_, _| {})
        .unwrap()
        .unwrap();
    assert!(
        said.contains("state.1; refused ") && said.contains("checksum"),
        "{said}"
    );
    // Both named; no other file can be.
    ask(&chores, Chore::Restore(Some("state.1".into()))).unwrap();
    for name in ["/etc/passwd", "../state", "", "state.2", "state/"] {
        let refused = ask(&chores, Chore::Restore(Some(name.into()))).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Invalid, "{name}");
    }
}

#[test]
fn what_can_not_be_written_is_told_and_the_snapshot_before_stays() {
    let folder = Folder::new("failing");
    let chores = Chores::start(region(10), folder.plan()).unwrap();
    ask(&chores, Chore::Snapshot).unwrap();
    let before = std::fs::read(folder.0.join("state")).unwrap();
    // A folder that is not empty stands where the new file is to be made.
    std::fs::create_dir_all(folder.0.join("state.tmp/full")).unwrap();
    let error = ask(&chores, Chore::Snapshot).unwrap_err();
    assert_eq!(error.code, ErrorCode::SnapshotFailed);
    assert!(error.message.contains("state.tmp"), "{error}");
    assert_eq!(std::fs::read(folder.0.join("state")).unwrap(), before);
    let totals = chores.totals();
    assert_eq!((totals.written, totals.failed), (1, 1));
    assert_eq!(totals.last_error, Some(error.message));
    let none = Chores::start(region(1), SnapshotPlan::default()).unwrap();
    for chore in [Chore::Snapshot, Chore::Restore(None)] {
        assert_eq!(ask(&none, chore).unwrap_err().code, ErrorCode::Unavailable);
    }
    assert_eq!(none.stop(true), Ok(()));
}

#[test]
fn snapshots_come_by_themselves_and_at_the_stop() {
    let folder = Folder::new("every");
    let plan = SnapshotPlan {
        every: Some(Duration::from_millis(5)),
        ..folder.plan()
    };
    let region = region(5);
    let chores = Chores::start(region.clone(), plan).unwrap();
    let started = Instant::now();
    while chores.totals().written < 3 {
        assert!(started.elapsed() < PATIENCE);
        thread::yield_now();
    }
    // Others are served in between.
    ask(&chores, Chore::Audit).unwrap();
    drop(chores);
    let chores = Chores::start(region.clone(), folder.plan()).unwrap();
    region.set(b"last", b"words").unwrap();
    chores.stop(true).unwrap();
    let new = Region::create(&Config::new(8 << 20), Options::new()).unwrap();
    restore_at_start(&new, &folder.plan(), |_, _| {}).unwrap();
    assert_eq!(new.get(b"last").unwrap().as_deref(), Some(&b"words"[..]));
}

#[test]
fn one_chore_more_than_may_wait_is_refused_and_counted() {
    let chores = Chores::start(region(1), SnapshotPlan::default()).unwrap();
    let (hold, held) = mpsc::channel::<()>();
    let (begun, begins) = mpsc::channel();
    let wait = Box::new(move |_| {
        begun.send(()).unwrap();
        held.recv().unwrap_or_default();
    });
    chores.request(Chore::Audit, wait).unwrap();
    begins.recv_timeout(PATIENCE).unwrap();
    let mut heard = Vec::new();
    for _ in 0..WAITING_MAX {
        let (hear, news) = hear();
        chores.request(Chore::Audit, hear).unwrap();
        heard.push(news);
    }
    let refused = chores.request(Chore::Audit, hear().0).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert_eq!(refused.limit, Some(WAITING_MAX as u64));
    drop(hold);
    for news in heard {
        let audit = news.recv_timeout(PATIENCE).unwrap();
        let clean = AdminReply::Audit {
            entries: 1,
            problems: vec![],
        };
        assert_eq!(audit, News::Done(clean));
    }
    assert_eq!(chores.totals().refused, 1);
}

#[test]
fn an_old_snapshot_does_not_take_the_counter_of_tokens_back() {
    let folder = Folder::new("fence");
    let region = region(1);
    let chores = Chores::start(region.clone(), folder.plan()).unwrap();
    region.incr(FENCE_KEY, 100).unwrap();
    ask(&chores, Chore::Snapshot).unwrap();
    region.incr(FENCE_KEY, 5).unwrap();
    ask(&chores, Chore::Restore(None)).unwrap();
    assert_eq!(region.incr(FENCE_KEY, 1).unwrap(), 106);
    let new = Region::create(&Config::new(8 << 20), Options::new()).unwrap();
    restore_at_start(&new, &folder.plan(), |_, _| {}).unwrap();
    assert_eq!(new.incr(FENCE_KEY, 1).unwrap(), 101);
}
