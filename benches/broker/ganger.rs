//! Ganger, through the `Client` that its users have.

use crate::link::{ready, Publish, Receive, Store, SERVICE, SUBJECT};
use futures_util::FutureExt;
use ganger_client::{
    Client, ClientBuilder, Event, GapCause, Policy, RemoteKv, SubscribeOptions, Subscription,
};
use std::future::Future;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

/// A client and what it runs on.
struct Link {
    runtime: Runtime,
    client: Client,
}

impl Link {
    fn connect(address: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let home = Path::new(address).parent().unwrap();
        let builder = ClientBuilder::new().home(home);
        let client = runtime.block_on(builder.connect()).unwrap();
        Self { runtime, client }
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

pub(crate) struct Publisher(Link);

impl Publisher {
    pub(crate) fn connect(address: &str) -> Self {
        Self(Link::connect(address))
    }
}

impl Publish for Publisher {
    fn publish(&mut self, payload: &[u8]) {
        self.0
            .wait(self.0.client.publish(SUBJECT, payload))
            .unwrap();
    }

    fn publish_all(&mut self, count: usize, payload: &mut [u8], stamp: fn(&mut [u8])) {
        // A program that publishes enters its runtime once, not for every message.
        self.0.wait(async {
            for _ in 0..count {
                stamp(payload);
                self.0.client.publish(SUBJECT, &*payload).await.unwrap();
            }
        });
    }

    fn flush(&mut self) {
        self.0.wait(self.0.client.flush()).unwrap();
    }

    fn send_one(&mut self, payload: &[u8]) {
        self.0.wait(async {
            self.0.client.publish(SUBJECT, payload).await.unwrap();
            // The client's task writes it.
            yield_now().await;
        });
    }

    fn batch(&self, _payload_len: usize) -> usize {
        // As for NATS: each flush waits for an answer.
        1024
    }
}

pub(crate) struct Subscriber {
    link: Link,
    subscription: Subscription,
    may_lose: bool,
}

impl Subscriber {
    /// One that loses nothing that is sent in line: its publisher waits for it.
    pub(crate) fn connect(address: &str) -> Self {
        let wait = Policy::Block { ms: 1000 };
        Self::with(address, SubscribeOptions::new().policy(wait), false)
    }

    /// One that loses the oldest messages when it is too slow, as subscriptions usually do.
    pub(crate) fn losing(address: &str) -> Self {
        Self::with(address, SubscribeOptions::new(), true)
    }

    fn with(address: &str, options: SubscribeOptions, may_lose: bool) -> Self {
        let link = Link::connect(address);
        let subscription = link.wait(link.client.subscribe_with(SUBJECT, options));
        Self {
            subscription: subscription.unwrap(),
            link,
            may_lose,
        }
    }
}

impl Receive for Subscriber {
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) {
        let Self {
            link,
            subscription,
            may_lose,
        } = self;
        link.runtime.block_on(async {
            let mut next = subscription.next().await;
            // As long as there are more, at most so many at a time.
            for _ in 0..256 {
                match next {
                    Some(Event::Message(message)) => each(message.payload()),
                    // What it does not read in time is not kept for it.
                    Some(Event::Gap(gap)) if *may_lose || gap.cause == GapCause::Expired => {}
                    other => panic!("{other:?}, {:?}", subscription.error()),
                }
                match subscription.next().now_or_never() {
                    Some(more) => next = more,
                    None => return,
                }
            }
            if let Some(Event::Message(message)) = next {
                each(message.payload());
            }
        });
    }
}

/// Answers requests with what they ask.
pub(crate) fn reply(address: &str) {
    let link = Link::connect(address);
    link.wait(async {
        let mut requests = link.client.respond(SERVICE).await.unwrap();
        ready();
        while let Some(request) = requests.next().await {
            let payload = request.payload().to_vec();
            request.reply(payload).await.unwrap();
        }
    });
}

pub(crate) struct Asker(Link);

impl Asker {
    pub(crate) fn connect(address: &str) -> Self {
        Self(Link::connect(address))
    }

    pub(crate) fn ask(&mut self, payload: &[u8]) {
        self.0
            .wait(self.0.client.request(SERVICE, payload))
            .unwrap();
    }
}

pub(crate) struct SocketStore {
    link: Link,
    store: RemoteKv,
}

impl SocketStore {
    pub(crate) fn connect(address: &str) -> Self {
        let link = Link::connect(address);
        let store = link.client.remote_kv();
        Self { link, store }
    }

    fn all(&self, operations: impl Iterator<Item = impl Future<Output = ()>>) {
        self.link.wait(async {
            futures_util::future::join_all(operations).await;
        });
    }
}

impl Store for SocketStore {
    fn get(&mut self, keys: &[[u8; 16]]) {
        let store = &self.store;
        self.all(keys.iter().map(|key| async move {
            assert!(store.get(key).await.unwrap().is_some());
        }));
    }

    fn set(&mut self, keys: &[[u8; 16]], value: &[u8]) {
        let store = &self.store;
        self.all(keys.iter().map(|key| async move {
            store.set(key, value).await.unwrap();
        }));
    }

    fn incr(&mut self, keys: &[[u8; 16]]) {
        let store = &self.store;
        self.all(keys.iter().map(|key| async move {
            store.incr(key, 1).await.unwrap();
        }));
    }

    fn get_many(&mut self, keys: &[[u8; 16]]) {
        let values = self.link.wait(self.store.get_many(keys)).unwrap();
        assert!(values.iter().all(Option::is_some));
    }
}

/// A client that does nothing. It is held only so that its connection stays.
pub(crate) struct Idle(#[allow(dead_code)] Link);

impl Idle {
    pub(crate) fn connect(address: &str) -> Self {
        let link = Link::connect(address);
        link.wait(async { tokio::time::sleep(Duration::ZERO).await });
        Self(link)
    }
}
