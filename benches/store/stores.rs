//! The stores that are compared, each filled and with four processes that can use it.

use crate::crew::{fork, Crew};
use crate::dash::{Dash, Maps};
use crate::ganger::SocketStore;
use crate::link::{self, Server, System};
use crate::lmdb::{Lmdb, TempDir};
use crate::memcached::{self, Memcached};
use crate::naive::Naive;
use crate::redis::Redis;
use crate::sides::{Contents, Filling, Ganger};
use crate::system::cpu_ns;
use crate::work::{self, Board, Client, Job, Mapped, Seen, Socket, Worker, BATCH, SEATS};
use std::any::Any;
use std::time::Duration;

/// Of ganger's regions; only what is used of it takes memory.
const REGION_BYTES: u64 = 1 << 30;

/// The sides, in the order in which they take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Region,
    Socket,
    Redis,
    RedisPipelined,
    Memcached,
    Lmdb,
    MutexTable,
    DashMap,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Region,
        Self::Socket,
        Self::Redis,
        Self::RedisPipelined,
        Self::Memcached,
        Self::Lmdb,
        Self::MutexTable,
        Self::DashMap,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Region => "ganger region",
            Self::Socket => "ganger socket",
            Self::Redis => "redis",
            Self::RedisPipelined => "redis, 16 pipelined",
            Self::Memcached => "memcached",
            Self::Lmdb => "lmdb",
            Self::MutexTable => "mutex table",
            Self::DashMap => "dashmap, threads",
        }
    }

    /// The package that is missing here, if one is.
    pub(crate) fn lacks(self) -> Option<&'static str> {
        let (is_there, package) = match self {
            Self::Redis | Self::RedisPipelined => {
                let is_there = Server::start(System::Redis).is_some();
                (is_there, System::Redis.package())
            }
            Self::Memcached => (memcached::start().is_some(), "memcached"),
            _ => (true, ""),
        };
        (!is_there).then_some(package)
    }
}

/// A filled store with its processes.
pub(crate) struct Side {
    pub(crate) kind: Kind,
    crew: Crew,
    server: Option<Server>,
    // What the store lives in.
    _home: Box<dyn Any>,
}

impl Side {
    pub(crate) fn start(kind: Kind, board: &Board, filling: &Filling) -> Self {
        match kind {
            Kind::Region => {
                let region = Ganger::filled(filling, REGION_BYTES);
                let crew = crew(board, filling, || Mapped(Ganger::attach(&region)));
                Self::new(kind, crew, None, region)
            }
            Kind::Lmdb => {
                let home = TempDir::new();
                // LMDB must not be carried through a fork: whoever uses it opens it.
                fork(|| Lmdb::fill(home.path(), filling)).wait();
                let crew = crew(board, filling, || Mapped(Lmdb::open(home.path())));
                Self::new(kind, crew, None, home)
            }
            Kind::MutexTable => {
                let memory = Naive::filled(filling);
                let crew = crew(board, filling, || Mapped(Naive::attach(&memory, filling)));
                Self::new(kind, crew, None, memory)
            }
            Kind::DashMap => Self::new(kind, threads(board, filling), None, ()),
            _ => Self::behind_a_socket(kind, board, filling),
        }
    }

    fn behind_a_socket(kind: Kind, board: &Board, filling: &Filling) -> Self {
        let server = match kind {
            Kind::Socket => Server::start(System::Ganger),
            Kind::Memcached => memcached::start(),
            _ => Server::start(System::Redis),
        };
        let server = server.unwrap();
        let connect = || -> Box<dyn link::Store> {
            match kind {
                Kind::Socket => Box::new(SocketStore::connect(&server.address)),
                Kind::Memcached => Box::new(Memcached::connect(&server.address)),
                _ => Box::new(Redis::connect(&server.address)),
            }
        };
        fork(|| fill(&mut *connect(), kind, filling)).wait();
        let crew = match kind {
            Kind::RedisPipelined => crew(board, filling, || Socket::<BATCH>(connect())),
            _ => crew(board, filling, || Socket::<1>(connect())),
        };
        Self::new(kind, crew, Some(server), ())
    }

    fn new(kind: Kind, crew: Crew, server: Option<Server>, home: impl Any) -> Self {
        Self {
            kind,
            crew: crew.unpinned(),
            server,
            _home: Box::new(home),
        }
    }

    pub(crate) fn slice(&mut self, board: &Board, seats: usize, job: Job, time: Duration) -> Seen {
        let server = self.server.as_ref().map(Server::pid);
        let server_cpu = || server.map_or(0, cpu_ns);
        work::slice(board, &mut self.crew, seats, job, time, server_cpu)
    }
}

/// Four processes, each with a client of its own.
fn crew<C: Client>(board: &Board, filling: &Filling, connect: impl Fn() -> C) -> Crew {
    Crew::of_processes(SEATS, |index, seat| {
        worker(board, filling, index, connect()).serve(seat);
    })
}

/// Four threads of one process: a `DashMap` has no other way.
fn threads(board: &Board, filling: &Filling) -> Crew {
    Crew::fork(&[SEATS], |seats| {
        let maps = &Maps::filled(filling);
        std::thread::scope(|scope| {
            for (index, seat) in seats.into_iter().enumerate() {
                scope.spawn(move || {
                    let client = Mapped(Dash::new(maps));
                    worker(board, filling, index, client).serve(seat);
                });
            }
        });
    })
}

fn worker<'b, C: Client>(
    board: &'b Board,
    filling: &Filling,
    seat: usize,
    client: C,
) -> Worker<'b, C> {
    Worker::new(board, seat, client, filling.value_len, filling.keys)
}

fn fill(store: &mut dyn link::Store, kind: Kind, filling: &Filling) {
    let keys: Vec<_> = filling.all_keys().collect();
    let at_once = ((1 << 20) / filling.value_len).clamp(1, 100);
    for keys in keys.chunks(at_once) {
        match (filling.contents, kind) {
            (Contents::Values, _) => store.set(keys, &filling.first_value()),
            // Its counters are no text.
            (Contents::Counters, Kind::Socket) => store.incr(keys),
            (Contents::Counters, _) => store.set(keys, b"0"),
        }
    }
}
