use crate::fake::Fake;
use crate::Watchdog;
use ganger_client::blocking::{Client, Nothing};
use ganger_client::{ClientBuilder, Error, Event, WatchEvent};
use std::time::Duration;

fn connect(fake: &Fake) -> Client {
    Client::connect_with(&ClientBuilder::new().home(fake.home())).unwrap()
}

#[test]
fn the_same_calls_without_tokio() {
    let _watchdog = Watchdog::new("blocking");
    let fake = Fake::new();
    let client = connect(&fake);
    let mut messages = client.subscribe("a").unwrap();
    client.publish("a", "1").unwrap();
    assert!(matches!(messages.next(), Some(Event::Message(message)) if message.payload() == b"1"));
    let soon = Duration::from_millis(1);
    assert_eq!(messages.next_within(soon).unwrap_err(), Nothing);

    let kv = client.remote_kv();
    kv.set("k", "v").unwrap();
    assert_eq!(kv.get("k").unwrap(), Some(b"v".to_vec()));
    let mut watch = client.watch("k").unwrap();
    assert!(matches!(
        watch.next(),
        Some(WatchEvent::Begin { gap: None })
    ));

    let lock = client.lock("l").unwrap();
    assert!(client.try_lock("l").unwrap().is_none());
    lock.release().unwrap();

    let mut requests = client.respond("double").unwrap();
    let answering = std::thread::spawn(move || {
        let request = requests.next().unwrap();
        let twice = request.payload().repeat(2);
        request.reply(twice).unwrap();
    });
    assert_eq!(client.request("double", "ab").unwrap().payload(), b"abab");
    answering.join().unwrap();
    assert!(matches!(
        client.request("double", ""),
        Err(Error::NoResponders)
    ));
}

#[test]
fn what_was_published_last_still_goes_out_when_the_client_is_dropped() {
    let _watchdog = Watchdog::new("blocking, dropped");
    let fake = Fake::new();
    let reader = connect(&fake);
    let mut messages = reader.subscribe("a").unwrap();
    for number in 0..50_u8 {
        let client = connect(&fake);
        client.publish("a", [number]).unwrap();
        drop(client);
        assert_eq!(messages.next_message().unwrap().payload(), [number]);
    }
}
