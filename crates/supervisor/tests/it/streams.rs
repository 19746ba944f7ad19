//! Kept lines and events, then those that come, as a client gets them.

use crate::watchdog;
use ganger_supervisor::control::{streams, Reply};
use ganger_supervisor::events::{Events, Happening};
use ganger_supervisor::logs::{Filter, Logs, Options};
use std::io::Write;
use tokio::sync::mpsc;

#[tokio::test]
async fn kept_events_come_first_then_the_new_ones_without_a_hole() {
    let _watchdog = watchdog();
    let events = Events::new();
    for _ in 0..5 {
        events.tell(Happening::new("web", "worker-ready", "ready"));
    }
    let (sender, mut replies) = mpsc::channel(1);
    let theirs = events.clone();
    let task = tokio::spawn(async move { streams::events(&theirs, 3, true, sender).await });
    for number in 3..8 {
        let Some(Reply::Event(event)) = replies.recv().await else {
            panic!("an event");
        };
        assert_eq!(event.number, number);
        if number < 6 {
            events.tell(Happening::new("web", "worker-exit", "exit"));
        }
    }
    drop(replies);
    // It learns that nobody listens when there is something to tell.
    while !task.is_finished() {
        events.tell(Happening::new("web", "worker-exit", "exit"));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn kept_lines_come_first_then_the_new_ones() {
    let _watchdog = watchdog();
    let logs = Logs::new(Options::default());
    let (out, mut writer) = std::io::pipe().unwrap();
    let (err, _err) = std::io::pipe().unwrap();
    logs.attach("web", 0, 7, out.into(), err.into()).unwrap();
    writer.write_all(b"one\ntwo\nthree\n").unwrap();
    let (sender, mut replies) = mpsc::channel(1);
    let theirs = logs.clone();
    tokio::spawn(async move { streams::logs(&theirs, Filter::default(), 2, true, sender).await });
    let mut texts = Vec::new();
    while texts.len() < 3 {
        let Some(Reply::Log(line)) = replies.recv().await else {
            panic!("a line");
        };
        texts.push(String::from_utf8(line.text).unwrap());
        if texts.len() == 2 {
            writer.write_all(b"four\n").unwrap();
        }
    }
    assert_eq!(texts, ["two", "three", "four"]);
    let (sender, mut replies) = mpsc::channel(10);
    streams::logs(&logs, Filter::default(), 1, false, sender).await;
    assert!(matches!(replies.recv().await, Some(Reply::Log(line)) if line.text == b"four"));
    assert_eq!(replies.recv().await, Some(Reply::done("")));
}
