//! One beyond each limit of the broker: a named error to that client only, and nothing else happens.

use crate::brokers::{run, Broker};
use ganger_client::protocol::kv::KvRequest;
use ganger_client::protocol::{ErrorCode, Limits};
use ganger_client::{Error, PublishOptions, SetOptions};

fn code<T>(outcome: Result<T, Error>) -> Option<ErrorCode> {
    let error = outcome.err()?;
    let refusal = error.refusal().unwrap_or_else(|| panic!("{error}"));
    Some(refusal.code.clone())
}

#[test]
fn one_subscription_more_than_allowed_is_refused_and_one_less_makes_room() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let mut held = Vec::new();
        for number in 0..Limits::default().subscriptions {
            held.push(client.subscribe(&format!("s.{number}")).await.unwrap());
        }
        let more = client.subscribe("one.more").await;
        assert_eq!(code(more.map(drop)), Some(ErrorCode::TooManySubscriptions));
        drop(held.pop());
        client.subscribe("one.more").await.unwrap();
        broker.connect().await.subscribe("other").await.unwrap();
    });
}

#[test]
fn one_part_more_than_a_batch_may_have_and_an_answer_beyond_a_frame_are_refused() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let kv = client.remote_kv();
        let limit = Limits::default().batch;
        let batch = |len| vec![KvRequest::Len {}; len];
        assert_eq!(kv.batch(batch(limit)).await.unwrap().len(), limit);
        assert_eq!(
            code(kv.batch(batch(limit + 1)).await),
            Some(ErrorCode::BatchTooLong)
        );
        let keys = vec!["k"; limit];
        assert_eq!(kv.get_many(&keys).await.unwrap().len(), limit);
        let keys = vec!["k"; limit + 1];
        assert_eq!(
            code(kv.get_many(&keys).await),
            Some(ErrorCode::BatchTooLong)
        );
        client
            .kv()
            .unwrap()
            .set("large", vec![1; 10 << 20])
            .unwrap();
        assert_eq!(kv.get("large").await.unwrap().unwrap().len(), 10 << 20);
        let twice = kv.get_many(&["large", "large"]).await;
        assert_eq!(code(twice), Some(ErrorCode::AnswerTooLong));
    });
}

#[test]
fn one_ephemeral_key_more_than_allowed_is_refused() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let kv = client.remote_kv();
        let limits = Limits::default();
        let options = ganger_client::protocol::kv::SetOptions {
            ephemeral: true,
            ..Default::default()
        };
        let numbers: Vec<usize> = (0..limits.ephemeral_keys).collect();
        for part in numbers.chunks(limits.batch) {
            let set = |number: &usize| KvRequest::Set {
                key: format!("{number}").into(),
                value: "".into(),
                options,
            };
            kv.batch(part.iter().map(set).collect()).await.unwrap();
        }
        let ephemeral = SetOptions::new().ephemeral();
        let more = kv.set_with("one more", "", ephemeral).await;
        assert_eq!(code(more), Some(ErrorCode::TooManyEphemeral));
        // One of them may be written again.
        kv.set_with("1", "x", ephemeral).await.unwrap();
        let left = broker.connect().await;
        client.close().await.unwrap();
        while left.remote_kv().len().await.unwrap() > 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn retained_messages_beyond_the_limit_are_refused_and_reach_nobody() {
    run(async {
        let broker = Broker::start();
        let client = broker.connect().await;
        let limit = Limits::default().retained_messages;
        let retain = PublishOptions::new().retain();
        for number in 0..limit {
            client
                .publish_with(&format!("r.{number}"), "x", &retain)
                .await
                .unwrap();
        }
        client.flush().await.unwrap();
        let acked = retain.clone().ack();
        let more = client.publish_with("one.more", "x", &acked).await;
        assert_eq!(code(more), Some(ErrorCode::TooManyRetained));
        client.publish_with("r.1", "again", &acked).await.unwrap();
        client.publish_with("r.1", "", &acked).await.unwrap();
        client.publish_with("one.more", "x", &acked).await.unwrap();
    });
}
