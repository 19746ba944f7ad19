//! Processes that do the measured work: forked once, parked on a pipe, and woken for one slice of
//! time after another. So a slice costs nothing to begin, everybody's caches and mappings are warm,
//! and the sides of a comparison can take turns within a second.

use crate::shared::Mapping;
use rustix::process::{getppid, set_parent_process_death_signal, Signal};
use rustix::thread::{sched_getaffinity, sched_setaffinity, CpuSet};
use rustix::time::{clock_gettime, ClockId};
use std::io::{self, Read, Write};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Words of the control page, a cache line or more apart.
const EPOCH: usize = 0;
const GO: usize = 16;
const STOP: usize = 32;
const READY: usize = 48;
const DONE: usize = 64;
const SEATS: usize = 80;
const SEAT_WORDS: usize = 16;

/// Words of a seat: operations done, nanoseconds that passed, nanoseconds of processor time.
const OPS: usize = 0;
const ELAPSED: usize = 1;
const BUSY: usize = 2;

/// How long anything but the slice itself may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One place from which operations are run, in the process that sits on it.
pub(crate) struct Seat<'c> {
    control: &'c Mapping,
    index: usize,
    wake: io::PipeReader,
}

impl Seat<'_> {
    /// Runs `batch`, which returns how many operations it did, in every slice until the crew is
    /// dismissed.
    pub(crate) fn serve(mut self, mut batch: impl FnMut() -> u64) {
        let word = |index| self.control.word(index);
        let mut order = [0];
        while self.wake.read_exact(&mut order).is_ok() && order[0] != DISMISSED {
            if order[0] != ANYWHERE {
                pin(usize::from(order[0]));
            }
            let epoch = word(EPOCH).load(Ordering::Relaxed);
            // Pays for page faults and cold caches before the clock runs.
            batch();
            word(READY).fetch_add(1, Ordering::AcqRel);
            while word(GO).load(Ordering::Acquire) != epoch {
                std::hint::spin_loop();
            }
            let (started, busy) = (Instant::now(), processor_time());
            let mut ops = 0;
            while word(STOP).load(Ordering::Relaxed) != epoch {
                ops += batch();
            }
            let (elapsed, busy) = (started.elapsed(), processor_time() - busy);
            let seat = SEATS + self.index * SEAT_WORDS;
            word(seat + OPS).store(ops, Ordering::Relaxed);
            word(seat + ELAPSED).store(elapsed.as_nanos() as u64, Ordering::Relaxed);
            word(seat + BUSY).store(busy.as_nanos() as u64, Ordering::Relaxed);
            word(DONE).fetch_add(1, Ordering::AcqRel);
        }
    }
}

const DISMISSED: u8 = 0xff;
/// Instead of a processor's number.
const ANYWHERE: u8 = 0xfe;

static QUIET: AtomicU64 = AtomicU64::new(0);
static DISTURBED: AtomicU64 = AtomicU64::new(0);

/// How many of the measurements of one process alone were interrupted by others for more than 3 %
/// of their time, and how many there were.
pub(crate) fn disturbed() -> (u64, u64) {
    let disturbed = DISTURBED.load(Ordering::Relaxed);
    (disturbed, disturbed + QUIET.load(Ordering::Relaxed))
}

/// Nanoseconds per operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PerOp {
    /// By the clock.
    pub(crate) wall: f64,
    /// Of the processor. For who never waits for anybody the same, but for what others took away.
    pub(crate) busy: f64,
    pub(crate) ops: f64,
}

/// Some seats and the processes that sit on them.
pub(crate) struct Crew {
    control: Mapping,
    wakes: Vec<io::PipeWriter>,
    children: Vec<Child>,
    is_pinned: bool,
}

impl Crew {
    /// One process for each number in `seats`, with so many seats. Each calls `work`, which must
    /// let every seat serve.
    pub(crate) fn fork(seats: &[usize], work: impl Fn(Vec<Seat<'_>>)) -> Self {
        let total: usize = seats.iter().sum();
        let mut crew = Self {
            control: Mapping::new((SEATS + total * SEAT_WORDS) * 8),
            wakes: Vec::new(),
            children: Vec::new(),
            is_pinned: true,
        };
        for &count in seats {
            let first = crew.wakes.len();
            let mut readers = Vec::new();
            for _ in 0..count {
                let (reader, writer) = io::pipe().unwrap();
                readers.push(reader);
                crew.wakes.push(writer);
            }
            let control = &crew.control;
            let seats = readers.into_iter().enumerate().map(|(place, wake)| Seat {
                control,
                index: first + place,
                wake,
            });
            let child = fork(|| work(seats.collect()));
            crew.children.push(child);
        }
        crew
    }

    /// One process per seat; each calls `work` with the seat's number.
    pub(crate) fn of_processes(count: usize, work: impl Fn(usize, Seat<'_>)) -> Self {
        Self::fork(&vec![1; count], |seats| {
            for seat in seats {
                work(seat.index, seat);
            }
        })
    }

    /// Lets the system choose the processors, as it does for ordinary programs.
    pub(crate) fn unpinned(mut self) -> Self {
        self.is_pinned = false;
        self
    }

    /// Lets these seats work at the same time and returns what an operation took each of them.
    pub(crate) fn slice(&mut self, seats: &[usize], length: Duration) -> Vec<PerOp> {
        let epoch = self.control.word(EPOCH).load(Ordering::Relaxed) + 1;
        self.control.word(EPOCH).store(epoch, Ordering::Relaxed);
        self.control.word(READY).store(0, Ordering::Relaxed);
        self.control.word(DONE).store(0, Ordering::Relaxed);
        for (processor, &seat) in seats.iter().enumerate() {
            let order = if self.is_pinned {
                processor as u8
            } else {
                ANYWHERE
            };
            self.wakes[seat].write_all(&[order]).unwrap();
        }
        self.wait_for(READY, seats.len());
        self.control.word(GO).store(epoch, Ordering::Release);
        std::thread::sleep(length);
        self.control.word(STOP).store(epoch, Ordering::Release);
        self.wait_for(DONE, seats.len());
        let result = |seat: usize, word: usize| {
            let word = self.control.word(SEATS + seat * SEAT_WORDS + word);
            word.load(Ordering::Relaxed) as f64
        };
        // Two may wait for each other; one alone has no reason not to have the processor all the
        // time.
        if let [seat] = seats {
            let quiet = result(*seat, BUSY) >= 0.97 * result(*seat, ELAPSED);
            let counter = if quiet { &QUIET } else { &DISTURBED };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let per_op = |&seat: &usize| PerOp {
            wall: result(seat, ELAPSED) / result(seat, OPS),
            busy: result(seat, BUSY) / result(seat, OPS),
            ops: result(seat, OPS),
        };
        seats.iter().map(per_op).collect()
    }

    fn wait_for(&mut self, word: usize, count: usize) {
        let started = Instant::now();
        while self.control.word(word).load(Ordering::Acquire) < count as u64 {
            assert!(started.elapsed() < PATIENCE, "a worker does not answer");
            for child in &mut self.children {
                assert!(child.is_running(), "a worker died");
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // A slice may be under way if this is a panic.
        let epoch = self.control.word(EPOCH).load(Ordering::Relaxed);
        self.control.word(GO).store(epoch, Ordering::Release);
        self.control.word(STOP).store(epoch, Ordering::Release);
        for wake in &mut self.wakes {
            let _ = wake.write_all(&[DISMISSED]);
        }
        let started = Instant::now();
        for child in &mut self.children {
            while child.is_running() && started.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }
}

/// A forked process. Dropping it kills it, if it still runs.
pub(crate) struct Child {
    pid: libc::pid_t,
    ended: bool,
}

impl Child {
    pub(crate) fn kill(&mut self) {
        // SAFETY: a system call on a child that was not waited for, so the number is still its own.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Waits until it is gone.
    pub(crate) fn wait(&mut self) {
        if !self.ended {
            // SAFETY: waits for our own child; no status is asked for.
            unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
            self.ended = true;
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        if !self.ended {
            // SAFETY: looks at our own child; no status is asked for.
            let ended = unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG) };
            self.ended = ended != 0;
        }
        !self.ended
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
            self.wait();
        }
    }
}

/// Runs `work` in a child of this single-threaded process.
pub(crate) fn fork(work: impl FnOnce()) -> Child {
    // SAFETY: this process has one thread, so the child may do whatever it could.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", io::Error::last_os_error());
    if pid > 0 {
        return Child { pid, ended: false };
    }
    // Whoever ends this benchmark ends its children.
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let failed = catch_unwind(AssertUnwindSafe(work)).is_err();
    // SAFETY: ends the process at once: what the parent owns must not be dropped here as well.
    unsafe { libc::_exit(i32::from(failed)) }
}

/// What the calling thread used of its processor so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Keeps the calling thread on the processor of this number, among those the benchmark may use.
/// The benchmark itself is the parent and never pinned. Not being able to is no reason to stop.
pub(crate) fn pin(number: usize) {
    let Ok(allowed) = sched_getaffinity(getppid()) else {
        return;
    };
    let allowed = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    let processors: Vec<usize> = allowed.collect();
    if let Some(&processor) = processors.get(number % processors.len().max(1)) {
        let mut wanted = CpuSet::new();
        wanted.set(processor);
        let _ = sched_setaffinity(None, &wanted);
    }
}
