//! An ordinary axum server: it knows nothing of Ganger, and needs not to.
//!
//! `cargo build --release --example axum_app`, then `ganger run -n 2 -- target/release/examples/axum_app`.
//! `HOST` and `PORT` say where it listens; `/hello?id=5` answers with the process that served it.

use axum::extract::Query;
use axum::http::HeaderName;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{signal, SignalKind};

#[derive(Deserialize)]
struct Asked {
    id: String,
    #[serde(default)]
    ms: u64,
}

#[derive(Serialize)]
struct Said {
    pid: u32,
    id: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let host = std::env::var("HOST").unwrap_or_else(|_| "127.0.0.1".to_owned());
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let app = Router::new()
        .route("/hello", get(hello))
        .route("/slow", get(hello));
    let listener = TcpListener::bind(format!("{host}:{port}")).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await
}

async fn hello(Query(asked): Query<Asked>) -> impl IntoResponse {
    tokio::time::sleep(Duration::from_millis(asked.ms)).await;
    let pid = std::process::id();
    let said = Said { pid, id: asked.id };
    (
        [(HeaderName::from_static("x-pid"), pid.to_string())],
        Json(said),
    )
}
