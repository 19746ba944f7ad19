//! Redis through redis-rs with tokio, the client that its users have: the counterpart of Ganger's
//! `Client`.

use crate::link::{Publish, Receive, Store, SUBJECT};
use futures_util::{FutureExt, StreamExt};
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncCommands, Pipeline};
use std::future::Future;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

fn open(address: &str) -> (Runtime, redis::Client) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let client = redis::Client::open(format!("unix://{address}")).unwrap();
    (runtime, client)
}

/// A connection for commands.
pub(crate) struct Commands {
    runtime: Runtime,
    connection: MultiplexedConnection,
    pipeline: Pipeline,
}

impl Commands {
    pub(crate) fn connect(address: &str) -> Self {
        let (runtime, client) = open(address);
        let connect = client.get_multiplexed_async_connection();
        Self {
            connection: runtime.block_on(connect).unwrap(),
            runtime,
            pipeline: Pipeline::new(),
        }
    }

    fn all<F: Future<Output = ()>>(
        &self,
        keys: &[[u8; 16]],
        operation: impl Fn(MultiplexedConnection, [u8; 16]) -> F,
    ) {
        let operations = keys
            .iter()
            .map(|key| operation(self.connection.clone(), *key));
        let all = futures_util::future::join_all(operations);
        self.runtime.block_on(all);
    }
}

impl Publish for Commands {
    fn publish(&mut self, payload: &[u8]) {
        self.pipeline.publish(SUBJECT, payload).ignore();
    }

    fn flush(&mut self) {
        let sent = self.pipeline.query_async::<()>(&mut self.connection);
        self.runtime.block_on(sent).unwrap();
        self.pipeline.clear();
    }

    fn send_one(&mut self, payload: &[u8]) {
        let mut connection = self.connection.clone();
        let payload = payload.to_vec();
        self.runtime.spawn(async move {
            let sent: usize = connection.publish(SUBJECT, payload).await.unwrap();
            assert!(sent > 0);
        });
        // The task above hands it to the connection's, which writes it.
        self.runtime.block_on(yield_now());
    }

    fn batch(&self, payload_len: usize) -> usize {
        ((256 << 10) / payload_len).clamp(64, 1024)
    }
}

impl Store for Commands {
    fn get(&mut self, keys: &[[u8; 16]]) {
        self.all(keys, |mut connection, key| async move {
            let value: Option<Vec<u8>> = connection.get(&key[..]).await.unwrap();
            assert!(value.is_some());
        });
    }

    fn set(&mut self, keys: &[[u8; 16]], value: &[u8]) {
        self.all(keys, |mut connection, key| async move {
            let () = connection.set(&key[..], value).await.unwrap();
        });
    }

    fn incr(&mut self, keys: &[[u8; 16]]) {
        self.all(keys, |mut connection, key| async move {
            let _: i64 = connection.incr(&key[..], 1).await.unwrap();
        });
    }
}

/// A connection that has subscribed.
pub(crate) struct Subscribed {
    runtime: Runtime,
    messages: PubSub,
}

impl Subscribed {
    pub(crate) fn connect(address: &str) -> Self {
        let (runtime, client) = open(address);
        let mut messages = runtime.block_on(client.get_async_pubsub()).unwrap();
        runtime.block_on(messages.subscribe(SUBJECT)).unwrap();
        Self { runtime, messages }
    }
}

impl Receive for Subscribed {
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) {
        let Self { runtime, messages } = self;
        runtime.block_on(async {
            let mut messages = messages.on_message();
            let mut next = messages.next().await;
            while let Some(message) = next {
                each(message.get_payload_bytes());
                // As long as there are more.
                match messages.next().now_or_never() {
                    Some(more) => next = more,
                    None => return,
                }
            }
            panic!("redis closed the connection");
        });
    }
}
