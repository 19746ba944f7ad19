//! A worker with its delivery, as the other modules want it.

use crate::support::{Child, Folder, DEADLINE};
use ganger_supervisor::config::{Balance, Command};
use ganger_supervisor::deliver::{prepare, Context, DeliverEvent, Delivery, Rung};
use ganger_supervisor::listen::{Address, Listeners, Side, Slot};
use ganger_supervisor::spawn::{Output, SpawnSpec};
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// An app of several workers.
pub(crate) struct App {
    pub(crate) listeners: Arc<Mutex<Listeners>>,
    pub(crate) home: Folder,
    pub(crate) managed: Vec<Address>,
    pub(crate) rung: Rung,
    pub(crate) has_preload: bool,
}

/// One of its workers.
pub(crate) struct Worker {
    pub(crate) child: Child,
    pub(crate) delivery: Delivery,
    pub(crate) events: mpsc::UnboundedReceiver<DeliverEvent>,
}

/// A slot on the first side.
pub(crate) fn slot(worker: u16) -> Slot {
    Slot {
        worker,
        side: Side::A,
    }
}

/// Runs a test that waits for things.
pub(crate) fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(DEADLINE, test).await.unwrap() })
}

impl App {
    pub(crate) fn new(name: &str, rung: Rung, workers: u16) -> Self {
        let listeners = Listeners::new(name, Balance::Reuseport, workers);
        let all = (0..workers).map(|worker| (slot(worker), 1)).collect();
        let listeners = Arc::new(Mutex::new(listeners));
        listeners.lock().unwrap().route(&all).unwrap();
        Self {
            listeners,
            home: Folder::new(),
            managed: Vec::new(),
            rung,
            has_preload: false,
        }
    }

    /// Starts a worker, its output where that of the test goes.
    pub(crate) fn start(&self, command: &Command, slot: Slot, unique_id: u64) -> Worker {
        self.start_with(command, slot, unique_id, Output::Inherit)
    }

    pub(crate) fn start_with(
        &self,
        command: &Command,
        slot: Slot,
        unique_id: u64,
        output: Output,
    ) -> Worker {
        let context = Context {
            listeners: Arc::clone(&self.listeners),
            slot,
            worker: slot.worker,
            unique_id,
            has_preload: self.has_preload,
            home: self.home.0.clone(),
            managed: self.managed.clone(),
        };
        let mut prepared = prepare(self.rung, context).unwrap();
        let mut env = std::mem::take(&mut prepared.env);
        if let Some(options) = prepared.node_options(None).unwrap() {
            env.push(("NODE_OPTIONS".into(), options));
        }
        let mut child = Child::new(SpawnSpec {
            command,
            env,
            fds: std::mem::take(&mut prepared.fds),
            output,
            has_seccomp: prepared.has_seccomp,
            cgroup: None,
        });
        let (told, events) = mpsc::unbounded_channel();
        let delivery = prepared.attach(&mut child.0, told);
        Worker {
            child,
            delivery,
            events,
        }
    }
}

impl Worker {
    /// The next thing it says or does.
    pub(crate) async fn event(&mut self) -> DeliverEvent {
        self.events.recv().await.expect("the delivery goes on")
    }

    /// Where it listens, once it does.
    pub(crate) async fn listening(&mut self) -> Address {
        loop {
            match self.event().await {
                DeliverEvent::Listening(address) => return address,
                DeliverEvent::BindFailed { error, .. } => panic!("{error}"),
                DeliverEvent::Disconnected => panic!("it ended"),
                _ => {}
            }
        }
    }
}

/// The body of an answer to a request of its own connection. Not to be called where the delivery
/// must go on meanwhile: see [`fetch`].
pub(crate) fn get(port: u16, path: &str) -> String {
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // In one piece: some servers read once and close.
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{text:?}"));
    assert!(head.contains(" 200 "), "{text}");
    body.trim().to_owned()
}

/// The same, while the runtime goes on.
pub(crate) async fn fetch(port: u16, path: &'static str) -> String {
    tokio::task::spawn_blocking(move || get(port, path))
        .await
        .unwrap()
}

/// Waits until something is so, while the runtime goes on.
pub(crate) async fn eventually(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Whether a program is there; says so if not.
pub(crate) fn has(program: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    });
    if !found {
        eprintln!("skipped: there is no {program} here");
    }
    found
}
