//! One worker of the demo: `ganger demo-worker`, started by the supervisor.

use super::service::Service;
use super::state::State;
use ganger_client::{Client, Kv, Worker};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Environment variable with the worker's generation.
const GENERATION_VARIABLE: &str = "GANGER_GENERATION";
/// After a failed accept, as when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between two attempts to find the broker.
const BROKER_PAUSE: Duration = Duration::from_millis(200);
/// Of a worker that is to finish: for so long no request has come, looked at so often.
const QUIET: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(25);
/// A request's head must have come in so long.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// Why a demo's worker can't run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// It was started by hand.
    #[error("a demo's worker is started by `ganger demo`, which gives it its listener")]
    NoListener,
    /// The region.
    #[error(transparent)]
    Kv(#[from] ganger_client::KvError),
    /// The system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serves until SIGTERM, then until everything that was begun is answered.
pub fn run() -> Result<(), DemoError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve())
}

async fn serve() -> Result<(), DemoError> {
    let worker = Worker::from_env()?;
    let listener = worker.tcp_listener(0)?.ok_or(DemoError::NoListener)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let (drain, is_draining) = watch::channel(false);
    let service = Arc::new(Service {
        state: State {
            kv: Kv::from_env()?,
            worker: Worker::index().unwrap_or_default(),
            generation: std::env::var(GENERATION_VARIABLE).unwrap_or_default(),
        },
        client: OnceLock::new(),
        is_draining,
        asked: AtomicU64::new(0),
    });
    tokio::spawn(meet_broker(Arc::clone(&service)));
    worker.ready()?;
    let connections = GracefulShutdown::new();
    tokio::select! {
        () = accept(&listener, &service, &connections) => {}
        () = worker.drain() => {}
    }
    drop(listener);
    drain.send_replace(true);
    until_quiet(&service, &connections).await;
    connections.shutdown().await;
    Ok(())
}

async fn accept(listener: &TcpListener, service: &Arc<Service>, open: &GracefulShutdown) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let service = Arc::clone(service);
        let answer = service_fn(move |request| {
            let service = Arc::clone(&service);
            async move { Ok::<_, Infallible>(service.answer(request).await) }
        });
        let connection = open.watch(http.serve_connection(TokioIo::new(stream), answer));
        tokio::spawn(async move {
            // A connection that breaks is the visitor's affair.
            let _ = connection.await;
        });
    }
}

/// Waits until no connection is left, or none that was used lately. From the drain on each answer ends its
/// connection; one that idles would be closed at once by `shutdown`, perhaps with the next request already
/// on its way.
async fn until_quiet(service: &Service, open: &GracefulShutdown) {
    let (mut asked, mut since) = (0, Instant::now());
    while open.count() > 0 && since.elapsed() < QUIET {
        let now = service.asked.load(Ordering::Relaxed);
        if now != asked {
            (asked, since) = (now, Instant::now());
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Connects to the broker, now or when it is there; from then on the client looks after itself.
async fn meet_broker(service: Arc<Service>) {
    let client = loop {
        match Client::connect().await {
            Ok(client) => break client,
            Err(_) => tokio::time::sleep(BROKER_PAUSE).await,
        }
    };
    let _ = service.client.set(client);
}
