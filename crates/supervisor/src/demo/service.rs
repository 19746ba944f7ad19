//! The service's answers.

use super::limit::Verdict;
use super::page::PAGE;
use super::state::State;
use bytes::Bytes;
use ganger_client::{Client, Event, KvError};
use http_body_util::channel::Channel;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, COOKIE, RETRY_AFTER, SET_COOKIE};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;
use tokio::sync::watch;

/// Every hit is published on it, as JSON.
pub(super) const SUBJECT: &str = "demo.hits";
const COOKIE_NAME: &str = "ganger_demo";
/// Frames that wait for one slow browser.
const FEED_FRAMES: usize = 16;

type Body = BoxBody<Bytes, Infallible>;

/// One worker's half of the service.
pub(super) struct Service {
    pub(super) state: State,
    /// Empty until the broker has answered for the first time.
    pub(super) client: OnceLock<Client>,
    /// Turns true when the worker is to finish.
    pub(super) is_draining: watch::Receiver<bool>,
    /// Requests so far.
    pub(super) asked: AtomicU64,
}

impl Service {
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let cookie = request
            .headers()
            .get(COOKIE)
            .and_then(|value| session_in(value.as_bytes()));
        let is_new = cookie.is_none();
        let session = cookie.unwrap_or_else(new_session);
        let mut response = match (request.method(), request.uri().path()) {
            (&Method::GET, "/") => html(PAGE),
            (&Method::GET | &Method::POST, "/hit") => self.hit(&session),
            (&Method::GET | &Method::POST, "/limited") => self.limited(&session),
            (&Method::GET, "/totals") => json_or_error(self.state.totals()),
            (&Method::GET, "/events") => self.events().await,
            (_, "/" | "/hit" | "/limited" | "/totals" | "/events") => {
                text(StatusCode::METHOD_NOT_ALLOWED, "only GET is known here\n")
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "there is /, /hit, /limited, /totals and /events\n",
            ),
        };
        if is_new {
            let cookie = format!("{COOKIE_NAME}={session}; Path=/; HttpOnly; SameSite=Lax");
            if let Ok(cookie) = cookie.parse() {
                response.headers_mut().insert(SET_COOKIE, cookie);
            }
        }
        if *self.is_draining.borrow() {
            response.headers_mut().insert(CONNECTION, CLOSE);
        }
        response
    }

    fn hit(&self, session: &str) -> Response<Body> {
        let hit = match self.state.hit(session) {
            Ok(hit) => hit,
            Err(error) => return failed(&error),
        };
        if let (Some(client), Ok(told)) = (self.client.get(), serde_json::to_vec(&hit)) {
            // A broker that is away costs the page a line, not the visitor an answer.
            let _ = client.try_publish(SUBJECT, told);
        }
        json(StatusCode::OK, &hit)
    }

    fn limited(&self, session: &str) -> Response<Body> {
        match self.state.ask(session) {
            Ok(Verdict::Passed) => self.hit(session),
            Ok(Verdict::Retry(wait)) => {
                let seconds = wait.as_millis().div_ceil(1000);
                let mut response = text(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too many requests: ten at once, then two per second, whichever worker answers\n",
                );
                let headers = response.headers_mut();
                headers.insert(RETRY_AFTER, seconds.to_string().parse().unwrap_or(SECOND));
                response
            }
            Err(error) => failed(&error),
        }
    }

    /// Server-sent events: every hit of every worker, as the broker tells it.
    async fn events(&self) -> Response<Body> {
        let Some(client) = self.client.get() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "the broker is not there\n");
        };
        let mut hits = match client.subscribe(SUBJECT).await {
            Ok(hits) => hits,
            Err(error) => {
                return text(StatusCode::SERVICE_UNAVAILABLE, &format!("{error}\n"));
            }
        };
        let (mut browser, body) = Channel::<Bytes, Infallible>::new(FEED_FRAMES);
        let mut is_draining = self.is_draining.clone();
        tokio::spawn(async move {
            // The browser asks again soon, and gets another worker.
            let mut next = Some("retry: 300\n\n".to_owned());
            while let Some(event) = next.take() {
                // Ends when the browser has gone.
                if browser.send_data(event.into()).await.is_err() {
                    return;
                }
                next = tokio::select! {
                    event = hits.next() => event.map(|event| told(&event)),
                    _ = is_draining.wait_for(|is| *is) => None,
                };
            }
        });
        let mut response = Response::new(body.boxed());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, EVENT_STREAM);
        headers.insert(CACHE_CONTROL, NO_STORE);
        response
    }
}

const CLOSE: hyper::header::HeaderValue = hyper::header::HeaderValue::from_static("close");
const SECOND: hyper::header::HeaderValue = hyper::header::HeaderValue::from_static("1");
const EVENT_STREAM: hyper::header::HeaderValue =
    hyper::header::HeaderValue::from_static("text/event-stream");
const NO_STORE: hyper::header::HeaderValue = hyper::header::HeaderValue::from_static("no-store");
const JSON: hyper::header::HeaderValue =
    hyper::header::HeaderValue::from_static("application/json");
const HTML: hyper::header::HeaderValue =
    hyper::header::HeaderValue::from_static("text/html; charset=utf-8");
const TEXT: hyper::header::HeaderValue =
    hyper::header::HeaderValue::from_static("text/plain; charset=utf-8");

fn told(event: &Event) -> String {
    match event {
        Event::Message(message) => {
            format!("data: {}\n\n", String::from_utf8_lossy(message.payload()))
        }
        // Gaps and the like: the page's numbers come from the region, so it misses nothing.
        _ => ": gap\n\n".to_owned(),
    }
}

/// The session in a `Cookie` header, if it is one that this service could have given.
fn session_in(header: &[u8]) -> Option<String> {
    let header = std::str::from_utf8(header).ok()?;
    let mut cookies = header
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, session) = cookies.find(|(name, _)| *name == COOKIE_NAME)?;
    let is_ours = session.len() == 32 && session.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_ours.then(|| session.to_owned())
}

fn new_session() -> String {
    let mut random = [0_u8; 16];
    // With no randomness there is one session for all: it is only a demo's.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn json_or_error(value: Result<impl Serialize, KvError>) -> Response<Body> {
    match value {
        Ok(value) => json(StatusCode::OK, &value),
        Err(error) => failed(&error),
    }
}

fn failed(error: &KvError) -> Response<Body> {
    text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n"))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let text =
        serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
    whole(status, JSON, text + "\n")
}

fn html(page: &'static str) -> Response<Body> {
    whole(StatusCode::OK, HTML, page)
}

fn text(status: StatusCode, text: &str) -> Response<Body> {
    whole(status, TEXT, text.to_owned())
}

fn whole(
    status: StatusCode,
    kind: hyper::header::HeaderValue,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, NO_STORE);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_session_of_our_making_is_taken_from_a_cookie() {
        let session = new_session();
        assert_ne!(session, new_session());
        let header = format!("a=b; {COOKIE_NAME}={session}; c");
        assert_eq!(session_in(header.as_bytes()), Some(session));
        for wrong in [
            "",
            "ganger_demo=",
            "ganger_demo=../../x",
            "other=1",
            "ganger_demo",
        ] {
            assert_eq!(session_in(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(session_in(&[0xff, b'=']), None);
    }
}
