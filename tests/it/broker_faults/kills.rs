//! The broker is killed and stopped, again and again, under a load that goes on.

use super::history::{payload, History};
use super::keeper::Keeper;
use super::{kills, moment, run, soon};
use crate::harness::Watchdog;
use ganger_client::{Client, Event, Subscription};
use rustix::process::Signal;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Messages that each subscriber gets between two kills at least.
const BETWEEN: u64 = 20;

/// A broker dies a hundred times, and is stopped now and then, while its socket and the shared memory
/// are held by another process, as a supervisor does. Publishers publish, subscribers read, a writer
/// counts in the shared memory, strangers connect.
#[test]
fn the_broker_is_killed_a_hundred_times_and_nobody_is_refused_or_deceived() {
    let _watchdog = Watchdog::new("broker_faults::kills", 600);
    let mut keeper = Keeper::holding(&[]);
    let stop = Arc::new(AtomicBool::new(false));
    let counter = Counter::start(&keeper, &stop);
    let strangers = Strangers::start(keeper.socket(), &stop);
    let mut back = run(async {
        for publisher in 0..2 {
            tokio::spawn(publish(keeper.connect().await, publisher));
        }
        let mut readers = Vec::new();
        for pattern in ["n.0", "n.1", "n.*", "n.>"] {
            let client = keeper.connect().await;
            let subscription = client.subscribe(pattern).await.unwrap();
            readers.push(Reader::start(subscription));
        }
        let mut back = Vec::new();
        for round in 0..kills(100) {
            all_advance(&readers, BETWEEN).await;
            if round % 4 == 0 {
                keeper.signal(Signal::STOP);
                counter.goes_on().await;
                keeper.signal(Signal::CONT);
                all_advance(&readers, BETWEEN).await;
            }
            keeper.kill();
            let killed = Instant::now();
            counter.goes_on().await;
            let seen: Vec<u64> = readers.iter().map(Reader::restarts).collect();
            keeper.start();
            for (reader, seen) in readers.iter().zip(seen) {
                // What it missed is told, and then messages come.
                soon("the subscriber to be back", reader.is_told(seen)).await;
            }
            all_advance(&readers, 1).await;
            back.push(killed.elapsed());
        }
        back
    });
    stop.store(true, Ordering::Relaxed);
    assert_eq!(counter.stop(), keeper.kv().incr("counter", 0).unwrap());
    assert!(strangers.stop() > 0);
    back.sort_unstable();
    println!(
        "from kill to message: median {:?}, longest {:?}",
        back[back.len() / 2],
        back[back.len() - 1]
    );
}

/// Waits until all have got so many messages more.
async fn all_advance(readers: &[Reader], messages: u64) {
    for reader in readers {
        let wanted = reader.seen.messages.load(Ordering::Relaxed) + messages;
        soon("messages", async {
            while reader.check().messages.load(Ordering::Relaxed) < wanted {
                moment().await;
            }
        })
        .await;
    }
}

async fn publish(client: Client, publisher: u64) {
    let subject = format!("n.{publisher}");
    for number in 0.. {
        // Without a connection it waits for one, or its buffer is full: then it is told.
        if client
            .publish(&subject, payload(publisher, number))
            .await
            .is_err()
        {
            moment().await;
        }
        if number % 8 == 0 {
            moment().await;
        }
    }
}

/// What a subscriber saw, from outside.
#[derive(Default)]
struct Seen {
    messages: AtomicU64,
    restarts: AtomicU64,
}

struct Reader {
    seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

impl Reader {
    fn start(mut subscription: Subscription) -> Self {
        let seen = Arc::new(Seen::default());
        let told = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut history = History::default();
            while let Some(event) = subscription.next().await {
                history.take(&event).unwrap();
                if let Event::Gap(_) = event {
                    assert_eq!(history.lost, 0, "nobody here is too slow: {event:?}");
                }
                told.messages.store(history.messages, Ordering::Relaxed);
                told.restarts.store(history.restarts, Ordering::Relaxed);
            }
            panic!("over: {:?}", subscription.error());
        });
        Self { seen, task }
    }

    fn restarts(&self) -> u64 {
        self.seen.restarts.load(Ordering::Relaxed)
    }

    async fn is_told(&self, before: u64) {
        while self.check().restarts.load(Ordering::Relaxed) == before {
            moment().await;
        }
    }

    fn check(&self) -> &Seen {
        assert!(!self.task.is_finished(), "a subscriber was deceived");
        &self.seen
    }
}

/// Counts in the shared memory, without the broker.
struct Counter {
    counted: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<i64>,
}

impl Counter {
    fn start(keeper: &Keeper, stop: &Arc<AtomicBool>) -> Self {
        let counted = Arc::new(AtomicU64::new(0));
        let (kv, stop, told) = (keeper.kv().clone(), Arc::clone(stop), Arc::clone(&counted));
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                count = kv.incr("counter", 1).unwrap();
                assert_eq!(
                    kv.get("counter").unwrap(),
                    Some(count.to_le_bytes().to_vec())
                );
                told.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            }
            count
        });
        Self { counted, thread }
    }

    /// Waits until it has counted on, whatever the broker is like.
    async fn goes_on(&self) {
        let before = self.counted.load(Ordering::Relaxed);
        soon("the counter", async {
            while self.counted.load(Ordering::Relaxed) < before + 10 {
                moment().await;
            }
        })
        .await;
    }

    fn stop(self) -> i64 {
        self.thread.join().unwrap()
    }
}

/// Connect all the time, and leave again. As long as somebody holds the socket, nobody is refused.
struct Strangers(std::thread::JoinHandle<u64>);

impl Strangers {
    fn start(socket: PathBuf, stop: &Arc<AtomicBool>) -> Self {
        let stop = Arc::clone(stop);
        Self(std::thread::spawn(move || {
            let mut connects = 0;
            while !stop.load(Ordering::Relaxed) {
                match UnixStream::connect(&socket) {
                    Ok(_) => connects += 1,
                    // The kernel's queue is full: that is no refusal.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => panic!("refused: {error}"),
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            connects
        }))
    }

    fn stop(self) -> u64 {
        self.0.join().unwrap()
    }
}
