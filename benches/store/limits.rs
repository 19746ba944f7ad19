//! What no store on this machine can beat: 64 bytes to another process and back, through a Unix
//! socket, a futex, and memory that both look at all the time.

use crate::compare::tell_all;
use crate::crew::{fork, pin, Crew};
use crate::report::Report;
use crate::shared::Mapping;
use crate::sides::Operation;
use crate::system::cpu_ns;
use crate::work::{self, Board, Job, Seen, Task};
use crate::workload::Pattern;
use crate::Effort;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::Instant;

const LEN: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Socket,
    Futex,
    Spin,
}

/// Where the two processes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Anywhere,
    OneProcessor,
    TwoProcessors,
}

pub(crate) fn run(report: &mut Report, effort: &Effort) {
    if !effort.wants("limits") {
        return;
    }
    clock(report);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let ways = [
        (Way::Socket, "bare Unix socket"),
        (Way::Futex, "bare futex"),
        (Way::Spin, "spinning"),
    ];
    for (place, text) in [
        (Place::Anywhere, "where the system puts them"),
        (Place::OneProcessor, "both on one processor"),
        (Place::TwoProcessors, "each on its own processor"),
    ] {
        if place == Place::TwoProcessors && processors < 2 {
            continue;
        }
        // Who spins keeps the other off the processor that they share.
        let ways = ways.iter().filter(|(way, _)| {
            *way != Way::Spin || (processors > 1 && place != Place::OneProcessor)
        });
        let (ways, names): (Vec<Way>, Vec<&str>) = ways.copied().unzip();
        let rounds = measure(effort, &ways, place);
        tell_all(
            report,
            &format!("64 B there and back, {text}"),
            &names,
            &rounds,
        );
    }
}

fn measure(effort: &Effort, ways: &[Way], place: Place) -> Vec<Vec<Seen>> {
    let board = &Board::new();
    let job = Job {
        task: Task::One(Operation::Get),
        pattern: Pattern::Hot,
        interval: None,
    };
    let mut rounds = vec![Vec::new(); ways.len()];
    for round in 0..=effort.rounds {
        for (way, rounds) in ways.iter().zip(&mut rounds) {
            let pair = Pair::new();
            let mut echo = fork(|| {
                match place {
                    Place::Anywhere => {}
                    Place::OneProcessor => pin(0),
                    Place::TwoProcessors => pin(1),
                }
                pair.echo(*way);
            });
            let crew = Crew::of_processes(1, |_, seat| {
                seat.serve(|| {
                    let started = Instant::now();
                    pair.ask(*way);
                    board.count(0, started.elapsed());
                    1
                });
            });
            let mut crew = match place {
                Place::Anywhere => crew.unpinned(),
                _ => crew,
            };
            let echo_cpu = || cpu_ns(echo.pid());
            let seen = work::slice(board, &mut crew, 1, job, effort.slice, echo_cpu);
            // The first round is the warm-up.
            if round > 0 {
                rounds.push(seen);
            }
            drop(crew);
            echo.kill();
        }
    }
    rounds
}

/// Words of the memory, a cache line or more apart, and where 64 bytes of each side lie.
const ASKED: usize = 0;
const ANSWERED: usize = 16;
const QUESTION: usize = 32;
const ANSWER: usize = 64;

/// What two processes can talk through.
struct Pair {
    asker: UnixStream,
    answerer: UnixStream,
    memory: Mapping,
}

impl Pair {
    fn new() -> Self {
        let (asker, answerer) = UnixStream::pair().unwrap();
        Self {
            asker,
            answerer,
            memory: Mapping::new(4096),
        }
    }

    fn ask(&self, way: Way) {
        if way == Way::Socket {
            let mut bytes = [0x5a; LEN];
            (&self.asker).write_all(&bytes).unwrap();
            (&self.asker).read_exact(&mut bytes).unwrap();
            return;
        }
        let turn = self.memory.word(ASKED).load(Ordering::Relaxed) + 1;
        self.write(QUESTION, turn);
        self.signal(way, ASKED, turn);
        self.wait(way, ANSWERED, turn - 1);
        self.read(ANSWER);
    }

    /// Answers until it is killed.
    fn echo(&self, way: Way) {
        if way == Way::Socket {
            let mut bytes = [0; LEN];
            while (&self.answerer).read_exact(&mut bytes).is_ok() {
                (&self.answerer).write_all(&bytes).unwrap();
            }
            return;
        }
        for turn in 1.. {
            self.wait(way, ASKED, turn - 1);
            self.read(QUESTION);
            self.write(ANSWER, turn);
            self.signal(way, ANSWERED, turn);
        }
    }

    fn write(&self, first: usize, value: u64) {
        for word in first..first + LEN / 8 {
            self.memory.word(word).store(value, Ordering::Relaxed);
        }
    }

    fn read(&self, first: usize) {
        for word in first..first + LEN / 8 {
            std::hint::black_box(self.memory.word(word).load(Ordering::Relaxed));
        }
    }

    /// Publishes what was written (pairs with the load of `wait`), and wakes a sleeper.
    fn signal(&self, way: Way, word: usize, value: u64) {
        self.memory.word(word).store(value, Ordering::Release);
        if way == Way::Futex {
            futex(&self.memory, word, libc::FUTEX_WAKE, 1);
        }
    }

    /// Waits until a word is no longer `old`.
    fn wait(&self, way: Way, word: usize, old: u64) {
        while self.memory.word(word).load(Ordering::Acquire) == old {
            match way {
                Way::Futex => futex(&self.memory, word, libc::FUTEX_WAIT, old as u32),
                _ => std::hint::spin_loop(),
            }
        }
    }
}

/// The system call, on the low half of a word.
fn futex(memory: &Mapping, word: usize, operation: i32, value: u32) {
    let address = memory.at(word * 8);
    let no_timeout = std::ptr::null::<libc::timespec>();
    // SAFETY: the address is of mapped memory, aligned, and the kernel only reads it.
    unsafe { libc::syscall(libc::SYS_futex, address, operation, value, no_timeout) };
}

/// What is in every time: two looks at the clock.
fn clock(report: &mut Report) {
    let mut looks: Vec<f64> = (0..1001)
        .map(|_| Instant::now().elapsed().as_nanos() as f64)
        .collect();
    looks.sort_by(f64::total_cmp);
    report.note(format!(
        "times of single operations contain two looks at the clock: {} ns",
        looks[500]
    ));
}
