//! Publishers and subscribers die and stand still under load, and the others notice nothing.

use super::history::{payload, History};
use super::keeper::{builder, Keeper};
use super::{kills, moment, run, soon};
use crate::chaos::Random;
use crate::harness::{listen, report, Child, Watchdog};
use ganger_client::{Event, SubscribeOptions};
use rustix::process::Signal;
use std::time::Duration;

/// How far behind the subscribers may be: they do lose messages when they stand still.
const LAG: u64 = 500;

/// Six processes publish and read; one after another is killed and replaced, or stopped for a while.
/// One subscriber in the test reads all the time and must not lose a message; the others must be told
/// of each one they lost.
#[test]
fn publishers_and_subscribers_die_and_stand_still_and_each_loss_is_told() {
    let _watchdog = Watchdog::new("broker_faults::crew", 600);
    let keeper = Keeper::plain(&[]);
    let home = keeper.home.to_str().unwrap().to_owned();
    let mut births = 0;
    let mut publisher = || {
        births += 1;
        let arguments = [home.clone(), format!("p.{births}")];
        Child::spawn("fault-publisher", &arguments)
    };
    let subscriber = || {
        let mut child = Child::spawn("fault-subscriber", std::slice::from_ref(&home));
        assert_eq!(child.hear(), "ready");
        child
    };
    let mut publishers: Vec<Child> = (0..3).map(|_| publisher()).collect();
    let mut subscribers: Vec<Child> = (0..3).map(|_| subscriber()).collect();
    let mut random = Random::new(3);
    let (seen, subscribers) = run(async {
        let client = keeper.connect().await;
        let mut observer = client.subscribe("p.>").await.unwrap();
        let mut seen = History::default();
        for _ in 0..kills(60) {
            let victim = random.below(3) as usize;
            match (random.chance(50), random.chance(50)) {
                (true, true) => publishers[victim] = publisher(),
                (true, false) => subscribers[victim] = subscriber(),
                (false, is_publisher) => {
                    let child = match is_publisher {
                        true => &publishers[victim],
                        false => &subscribers[victim],
                    };
                    child.signal(Signal::STOP);
                    take(&mut observer, &mut seen, 3 * LAG).await;
                    child.signal(Signal::CONT);
                }
            }
            take(&mut observer, &mut seen, LAG).await;
        }
        publishers.clear();
        client.publish("p.end", payload(0, 0)).await.unwrap();
        // All that is there.
        while !take(&mut observer, &mut seen, 1).await {}
        (seen, subscribers)
    });
    assert_eq!((seen.lost, seen.restarts), (0, 0));
    for mut child in subscribers {
        let told = child.hear();
        let head: u64 = told
            .strip_prefix("all told, the last is ")
            .unwrap()
            .parse()
            .unwrap();
        assert!(head > 0);
        assert!(child.wait().success());
    }
}

/// Takes so many messages; `true` if the last of all is among them.
async fn take(from: &mut ganger_client::Subscription, seen: &mut History, messages: u64) -> bool {
    for _ in 0..messages {
        let event = soon("a message", from.next()).await.unwrap();
        seen.take(&event).unwrap();
        if matches!(&event, Event::Message(message) if message.subject() == "p.end") {
            return true;
        }
    }
    false
}

pub(super) fn play_publisher(home: &str, subject: &str) {
    let publisher = subject.strip_prefix("p.").unwrap().parse().unwrap();
    run(async {
        let client = builder(home).connect().await.unwrap();
        for number in 0.. {
            client
                .publish(subject, payload(publisher, number))
                .await
                .unwrap();
            if number % 64 == 0 {
                client.flush().await.unwrap();
                moment().await;
            }
        }
    });
}

pub(super) fn play_subscriber(home: &str) {
    let told = run(async {
        let client = builder(home).connect().await.unwrap();
        let options = SubscribeOptions::new().max_lag(LAG);
        let mut messages = client.subscribe_with("p.>", options).await.unwrap();
        report("ready");
        let mut history = History::default();
        while let Some(event) = messages.next().await {
            if let Err(error) = history.take(&event) {
                return error;
            }
            if let Event::Message(message) = event {
                if message.subject() == "p.end" {
                    return format!("all told, the last is {}", message.seq());
                }
            }
            if history.messages % 1000 == 0 {
                // Now and then it is too slow even without being stopped.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        format!("over: {:?}", messages.error())
    });
    report(&told);
    // So that nobody takes its end for a crash before it was heard.
    let _ = listen();
}
