//! A worker that does not take its connections while others idle.

use super::ganger::{kill, Ganger, Place};
use super::program;
use crate::harness::wait_until;
use ganger_supervisor::report::WorkerStatus;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const SERVER: &str = "
require('node:http').createServer((request, response) => {
  response.setHeader('connection', 'close');
  response.end(process.env.GANGER_WORKER);
}).listen(Number(process.env.PORT), process.env.HOST);
";

/// Asks on a connection of its own and does not wait for the answer.
fn ask(ganger: &Ganger) -> TcpStream {
    let mut stream = TcpStream::connect(ganger.at()).unwrap();
    let patience = Some(Duration::from_secs(60));
    stream.set_read_timeout(patience).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream
}

/// Which worker answers.
fn answer(mut stream: TcpStream) -> u16 {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.parse().unwrap()
}

fn worker(ganger: &Ganger, index: u16) -> WorkerStatus {
    let workers = ganger.app().unwrap().workers.into_iter();
    let mut found = workers.filter(|worker| worker.index == index);
    found.next().unwrap()
}

/// It gets nothing new as long as its queue stays full, loses nothing of what waits there, and gets
/// its share again when it has recovered.
#[test]
fn a_worker_that_stands_still_loses_its_share_until_it_goes_on() {
    let Some(node) = program("node") else {
        return;
    };
    let place = Place::new("standing still");
    let server = place.write("server.js", SERVER);
    let ganger = place.recipe(&[node, server]).start();
    let victim = worker(&ganger, 0).pid.unwrap().cast_unsigned();
    kill(victim, Signal::STOP);
    // Thirty chances of a half: some are the victim's.
    let asked: Vec<TcpStream> = (0..30).map(|_| ask(&ganger)).collect();
    wait_until("the victim to have lost its share", || {
        worker(&ganger, 0).weight == 0
    });
    let waiting = worker(&ganger, 0).queue;
    assert!(waiting > 0);
    assert!(worker(&ganger, 1).weight > 0);
    for _ in 0..50 {
        assert_eq!(answer(ask(&ganger)), 1);
    }
    assert_eq!(worker(&ganger, 0).queue, waiting, "it got nothing new");
    kill(victim, Signal::CONT);
    let answers: Vec<u16> = asked.into_iter().map(answer).collect();
    let of_victim = answers.iter().filter(|worker| **worker == 0).count();
    assert!(of_victim >= waiting as usize, "{of_victim} of {waiting}");
    wait_until("its share again", || worker(&ganger, 0).weight > 0);
    let mut seen = BTreeSet::new();
    wait_until("both to answer", || {
        seen.insert(answer(ask(&ganger)));
        seen.len() == 2
    });
    assert_eq!(worker(&ganger, 0).restarts, 0);
    ganger.stop();
}
