//! Lines and events for a client: those that are kept, then those that come.

use super::Reply;
use crate::events::Events;
use crate::logs::{Filter, Logs};
use tokio::sync::mpsc::Sender;

/// Answers [`Request::Logs`](super::Request::Logs). That there is such an app is the caller's to
/// know.
pub async fn logs(logs: &Logs, filter: Filter, lines: u32, follow: bool, replies: Sender<Reply>) {
    let lines = usize::try_from(lines).unwrap_or(usize::MAX);
    // Nothing comes in between: both happen in one turn.
    let kept = logs.last(&filter, lines);
    let following = follow.then(|| logs.follow(filter));
    for line in kept {
        if replies.send(Reply::Log(line)).await.is_err() {
            return;
        }
    }
    match following {
        None => drop(replies.send(Reply::done("")).await),
        Some(None) => drop(replies.send(too_many()).await),
        Some(Some(mut following)) => {
            while replies
                .send(Reply::Log(following.recv().await))
                .await
                .is_ok()
            {}
        }
    }
}

/// Answers [`Request::Events`](super::Request::Events).
pub async fn events(events: &Events, last: u32, follow: bool, replies: Sender<Reply>) {
    let kept = events.last(usize::try_from(last).unwrap_or(usize::MAX));
    let following = follow.then(|| events.follow());
    for event in kept {
        if replies.send(Reply::Event(event)).await.is_err() {
            return;
        }
    }
    match following {
        None => drop(replies.send(Reply::done("")).await),
        Some(None) => drop(replies.send(too_many()).await),
        Some(Some(mut following)) => {
            while replies
                .send(Reply::Event(following.recv().await))
                .await
                .is_ok()
            {}
        }
    }
}

fn too_many() -> Reply {
    Reply::failed("too many follow already")
}
