//! Who watches what, and which changes each is still to be told of.

use super::log::{Log, What};
use super::WatchTotals;
use crate::ids::{ConnectionId, Subscriber};
use ganger_protocol::watch::Select;
use ganger_protocol::ErrorBody;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Whether changes are being followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Following {
    /// Nobody watches.
    No,
    /// A thread is about to.
    Soon,
    /// Every change from the log's next number on will be in it.
    Yes,
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) log: Log,
    pub(super) following: Following,
    pub(super) stops: bool,
    pub(super) totals: WatchTotals,
    backlog_max: usize,
    queues: HashMap<Subscriber, Queue>,
    connections: HashMap<ConnectionId, usize>,
    keys: HashMap<Box<[u8]>, Vec<Subscriber>>,
    prefixes: HashMap<Box<[u8]>, Vec<Subscriber>>,
    /// Lengths of the prefixes, and how many have them.
    lens: BTreeMap<usize, usize>,
    wake: Vec<Subscriber>,
}

/// What a watch is still to be told.
#[derive(Debug)]
pub(super) struct Queue {
    select: Select,
    /// Where a watched key lives.
    shard: Option<u64>,
    /// Numbers in the log.
    seqs: VecDeque<u64>,
    /// Whether changes were lost that it should have been told of.
    is_lost: bool,
    /// Why it can't go on.
    failed: Option<ErrorBody>,
    /// Whether it waits to be woken.
    is_idle: bool,
}

/// What comes next for a watch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing; it will be woken.
    Nothing,
    /// These changes.
    Changes(Vec<(u64, What)>),
    /// Changes were lost.
    Lost,
    /// It ends.
    Failed(ErrorBody),
}

impl Table {
    pub(super) fn new(log: Log, backlog_max: usize) -> Self {
        Self {
            log,
            following: Following::No,
            stops: false,
            totals: WatchTotals::default(),
            backlog_max,
            queues: HashMap::new(),
            connections: HashMap::new(),
            keys: HashMap::new(),
            prefixes: HashMap::new(),
            lens: BTreeMap::new(),
            wake: Vec::new(),
        }
    }

    pub(super) fn contains(&self, who: Subscriber) -> bool {
        self.queues.contains_key(&who)
    }

    pub(super) fn len(&self) -> usize {
        self.queues.len()
    }

    /// Watches of a connection.
    pub(super) fn of_connection(&self, connection: ConnectionId) -> usize {
        self.connections.get(&connection).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, who: Subscriber, select: Select, shard: Option<u64>) {
        match &select {
            Select::Prefix(prefix) => {
                *self.lens.entry(prefix.len()).or_default() += 1;
                let list = self.prefixes.entry(prefix[..].into()).or_default();
                list.push(who);
            }
            Select::Key(key) => self.keys.entry(key[..].into()).or_default().push(who),
            // Kinds of a later protocol are refused before they come here.
            _ => return,
        }
        *self.connections.entry(who.connection).or_default() += 1;
        let queue = Queue {
            select,
            shard,
            seqs: VecDeque::new(),
            is_lost: false,
            failed: None,
            is_idle: false,
        };
        self.queues.insert(who, queue);
    }

    pub(super) fn remove(&mut self, who: Subscriber) {
        let Some(queue) = self.queues.remove(&who) else {
            return;
        };
        match &queue.select {
            Select::Prefix(prefix) => {
                leave(&mut self.prefixes, prefix, who);
                take_one(&mut self.lens, prefix.len());
            }
            Select::Key(key) => leave(&mut self.keys, key, who),
            _ => {}
        }
        if let Some(count) = self.connections.get_mut(&who.connection) {
            *count -= 1;
            if *count == 0 {
                self.connections.remove(&who.connection);
            }
        }
    }

    /// Adds a change to the log, and to the queues of those who watch the key.
    pub(super) fn push(&mut self, what: What) {
        self.totals.changes += 1;
        let mut concerned = Vec::new();
        match &what {
            What::Change { key, .. } => {
                concerned.extend(self.keys.get(key).into_iter().flatten());
                for len in self.lens.keys().take_while(|len| **len <= key.len()) {
                    concerned.extend(self.prefixes.get(&key[..*len]).into_iter().flatten());
                }
            }
            What::Gap { shard } => {
                self.totals.gaps += 1;
                let here = |queue: &Queue| queue.shard.is_none_or(|at| at == *shard);
                for (who, queue) in self.queues.iter_mut().filter(|(_, queue)| here(queue)) {
                    queue.lose();
                    queue.wake(*who, &mut self.wake);
                }
            }
        }
        let seq = self.log.push(what);
        for who in concerned {
            let Some(queue) = self.queues.get_mut(&who) else {
                continue;
            };
            if !queue.is_lost && queue.seqs.len() >= self.backlog_max {
                self.totals.slow += 1;
                queue.lose();
            } else if !queue.is_lost {
                queue.seqs.push_back(seq);
            }
            queue.wake(who, &mut self.wake);
        }
    }

    /// Lets every watch be drained.
    pub(super) fn wake_all(&mut self) {
        for (who, queue) in &mut self.queues {
            queue.wake(*who, &mut self.wake);
        }
    }

    /// Lets every watch end, because changes can't be followed.
    pub(super) fn fail_all(&mut self, error: &ErrorBody) {
        for queue in self.queues.values_mut() {
            queue.failed = Some(error.clone());
        }
        self.wake_all();
    }

    pub(super) fn take_wakes(&mut self) -> Vec<Subscriber> {
        std::mem::take(&mut self.wake)
    }

    /// Notes that a watch begins anew, with every change from the number on that is returned; `None`
    /// while nobody follows the changes yet.
    pub(super) fn begin(&mut self, who: Subscriber) -> Result<Option<u64>, ErrorBody> {
        let Some(queue) = self.queues.get_mut(&who) else {
            return Ok(None);
        };
        if let Some(error) = queue.failed.take() {
            return Err(error);
        }
        if self.following != Following::Yes {
            queue.is_idle = true;
            return Ok(None);
        }
        queue.seqs.clear();
        queue.is_lost = false;
        Ok(Some(self.log.next()))
    }

    /// Lets a watch that has begun go on at a position instead; `false` if what happened since is
    /// not known.
    pub(super) fn resume(&mut self, who: Subscriber, seq: u64) -> bool {
        let Some(queue) = self.queues.get_mut(&who) else {
            return false;
        };
        let Some(records) = self.log.since(seq) else {
            return false;
        };
        let mut seqs = VecDeque::new();
        for (seq, what) in records {
            match what {
                What::Gap { shard } if queue.shard.is_none_or(|at| at == *shard) => return false,
                What::Change { key, .. } if selects(&queue.select, key) => seqs.push_back(seq),
                _ => {}
            }
        }
        if seqs.len() > self.backlog_max {
            return false;
        }
        queue.seqs = seqs;
        self.totals.resumed += 1;
        true
    }

    /// Takes up to `limit` changes that a watch is to be told of.
    pub(super) fn next(&mut self, who: Subscriber, limit: usize) -> Next {
        let Some(queue) = self.queues.get_mut(&who) else {
            return Next::Nothing;
        };
        if let Some(error) = queue.failed.take() {
            return Next::Failed(error);
        }
        if queue.is_lost {
            return Next::Lost;
        }
        let mut changes = Vec::new();
        while changes.len() < limit {
            let Some(seq) = queue.seqs.pop_front() else {
                break;
            };
            match self.log.get(seq) {
                Some(what) => changes.push((seq, what.clone())),
                None => {
                    self.totals.slow += 1;
                    queue.lose();
                    return Next::Lost;
                }
            }
        }
        if changes.is_empty() {
            queue.is_idle = true;
            return Next::Nothing;
        }
        Next::Changes(changes)
    }
}

impl Queue {
    fn lose(&mut self) {
        self.is_lost = true;
        self.seqs = VecDeque::new();
    }

    fn wake(&mut self, who: Subscriber, wake: &mut Vec<Subscriber>) {
        if std::mem::take(&mut self.is_idle) {
            wake.push(who);
        }
    }
}

/// Whether a key is among those that are watched.
pub(super) fn selects(select: &Select, key: &[u8]) -> bool {
    match select {
        Select::Key(one) => one == key,
        Select::Prefix(prefix) => key.starts_with(prefix),
        _ => false,
    }
}

fn leave(lists: &mut HashMap<Box<[u8]>, Vec<Subscriber>>, name: &[u8], who: Subscriber) {
    if let Some(list) = lists.get_mut(name) {
        list.retain(|other| *other != who);
        if list.is_empty() {
            lists.remove(name);
        }
    }
}

fn take_one(counts: &mut BTreeMap<usize, usize>, len: usize) {
    if let Some(count) = counts.get_mut(&len) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use ganger_region::Change;

    fn who(number: u32) -> Subscriber {
        Subscriber::new(1, number)
    }

    fn prefix(text: &'static str) -> Select {
        Select::Prefix(Bytes::from_static(text.as_bytes()))
    }

    fn change(key: &str) -> What {
        What::Change {
            change: Change::Set,
            key: key.as_bytes().into(),
            revision: 2,
        }
    }

    fn table(records: usize, backlog: usize) -> Table {
        let mut table = Table::new(Log::new(records, usize::MAX), backlog);
        table.following = Following::Yes;
        table
    }

    fn seqs(next: Next) -> Vec<u64> {
        match next {
            Next::Changes(changes) => changes.into_iter().map(|(seq, _)| seq).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_is_told_of_what_it_watches_and_woken_once() {
        let mut table = table(100, 100);
        table.add(who(1), prefix(""), None);
        table.add(who(2), prefix("a/"), None);
        table.add(who(3), Select::Key(Bytes::from_static(b"a/b")), Some(7));
        for number in 1..=3 {
            assert_eq!(table.begin(who(number)), Ok(Some(1)));
            assert_eq!(table.next(who(number), 10), Next::Nothing);
        }
        for key in ["a/b", "b", "a/c", "a", "a/b/c"] {
            table.push(change(key));
        }
        let mut woken = table.take_wakes();
        woken.sort();
        assert_eq!(woken, [who(1), who(2), who(3)]);
        assert_eq!(seqs(table.next(who(1), 3)), [1, 2, 3]);
        assert_eq!(seqs(table.next(who(1), 3)), [4, 5]);
        assert_eq!(seqs(table.next(who(2), 10)), [1, 3, 5]);
        assert_eq!(seqs(table.next(who(3), 10)), [1]);
        assert_eq!(table.next(who(3), 10), Next::Nothing);
        table.push(change("z"));
        assert_eq!(table.take_wakes(), []);
        table.remove(who(2));
        table.push(change("a/b"));
        assert_eq!(table.take_wakes(), [who(3)]);
        assert_eq!((table.len(), table.of_connection(ConnectionId(1))), (2, 2));
        table.remove(who(1));
        table.remove(who(3));
        assert_eq!((table.len(), table.of_connection(ConnectionId(1))), (0, 0));
        assert!(table.lens.is_empty() && table.prefixes.is_empty() && table.keys.is_empty());
    }

    #[test]
    fn one_change_more_than_a_watcher_may_wait_for_is_a_loss() {
        let mut table = table(100, 3);
        table.add(who(1), prefix(""), None);
        table.begin(who(1)).unwrap();
        for _ in 0..3 {
            table.push(change("k"));
        }
        assert_eq!(seqs(table.next(who(1), 1)), [1]);
        table.push(change("k"));
        assert_eq!(table.totals.slow, 0);
        table.push(change("k"));
        assert_eq!((table.next(who(1), 1), table.totals.slow), (Next::Lost, 1));
        table.push(change("k"));
        assert_eq!(table.next(who(1), 1), Next::Lost);
        // It begins anew, and nothing from before it comes.
        assert_eq!(table.begin(who(1)), Ok(Some(7)));
        table.push(change("k"));
        assert_eq!(seqs(table.next(who(1), 9)), [7]);
        assert_eq!(table.totals.slow, 1);
    }

    #[test]
    fn a_change_that_left_the_log_is_a_loss_too() {
        let mut table = table(2, 100);
        table.add(who(1), prefix("a"), None);
        table.begin(who(1)).unwrap();
        table.push(change("a"));
        table.push(change("b"));
        table.push(change("b"));
        assert_eq!(table.next(who(1), 1), Next::Lost);
        assert_eq!(table.totals.slow, 1);
    }

    #[test]
    fn a_gap_concerns_those_who_watch_its_shard() {
        let mut table = table(100, 100);
        table.add(who(1), prefix("a"), None);
        table.add(who(2), Select::Key(Bytes::from_static(b"k")), Some(2));
        table.add(who(3), Select::Key(Bytes::from_static(b"l")), Some(3));
        for number in 1..=3 {
            table.begin(who(number)).unwrap();
            table.next(who(number), 1);
        }
        table.push(What::Gap { shard: 3 });
        assert_eq!(table.next(who(1), 1), Next::Lost);
        assert_eq!(table.next(who(2), 1), Next::Nothing);
        assert_eq!(table.next(who(3), 1), Next::Lost);
        // The same for those who come back.
        assert!(!table.resume(who(1), 1) && table.resume(who(2), 1) && !table.resume(who(3), 1));
        assert!(table.resume(who(1), 2));
        assert_eq!(table.totals.gaps, 1);
    }

    #[test]
    fn one_who_comes_back_is_told_what_it_missed() {
        let mut table = table(4, 3);
        for key in ["a", "b", "a", "a"] {
            table.push(change(key));
        }
        table.add(who(1), Select::Key(Bytes::from_static(b"a")), Some(1));
        assert!(!table.resume(who(1), 6) && !table.resume(who(1), 0));
        assert!(table.resume(who(1), 1));
        assert_eq!(seqs(table.next(who(1), 9)), [1, 3, 4]);
        table.push(change("a"));
        assert!(!table.resume(who(1), 1), "number 1 is not kept any more");
        table.push(change("a"));
        assert!(
            !table.resume(who(1), 3),
            "4 changes are more than it may wait for"
        );
        assert!(table.resume(who(1), 4));
    }

    #[test]
    fn nobody_begins_before_changes_are_followed() {
        let mut table = Table::new(Log::new(2, usize::MAX), 2);
        table.add(who(1), prefix("a"), None);
        assert_eq!(table.begin(who(1)), Ok(None));
        table.following = Following::Yes;
        table.wake_all();
        assert_eq!(table.take_wakes(), [who(1)]);
        assert_eq!(table.begin(who(1)), Ok(Some(1)));
        let error = ErrorBody::from(ganger_protocol::ErrorCode::ReadOnly);
        table.fail_all(&error);
        assert_eq!(table.next(who(1), 1), Next::Failed(error));
    }
}
