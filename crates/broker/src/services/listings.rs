//! Listings for administrators, in pages. A page is made anew from what is there, so it costs
//! nothing between two of them; what comes or goes meanwhile may be missed.

use super::leases::LeaseService;
use crate::ids::ConnectionId;
use crate::topics::{TopicStats, Topics};
use ganger_protocol::admin::{AdminReply, LeaseInfo, Subscriber, Topic};

/// The name and process of a connection's client.
pub type Who<'w> = &'w dyn Fn(ConnectionId) -> (String, u32);

/// Which part of a listing.
#[derive(Debug, Clone, Copy)]
pub struct Page<'p> {
    /// Only what begins so.
    pub prefix: &'p str,
    /// Only what comes after this.
    pub after: Option<&'p str>,
    /// About how many rows.
    pub rows: usize,
}

/// Channels and their subscribers, in the order of their patterns.
pub fn topics(topics: &Topics, page: Page<'_>, who: Who<'_>) -> AdminReply {
    let mut found = topics.all();
    found.retain(|topic| page.has(topic.pattern().as_str()));
    found.sort_unstable_by(|a, b| a.pattern().as_str().cmp(b.pattern().as_str()));
    let (mut listed, mut rows) = (Vec::new(), 0);
    let mut found = found.into_iter();
    for topic in found.by_ref() {
        let row = topic_row(&topic.stats(), who);
        rows += 1 + row.subscribers.len();
        listed.push(row);
        if rows >= page.rows {
            break;
        }
    }
    let has_more = found.next().is_some();
    let next = listed.last().filter(|_| has_more);
    let next = next.map(|topic: &Topic| topic.pattern.clone());
    AdminReply::Topics {
        topics: listed,
        next,
    }
}

/// Leases, in the order of their names.
pub fn leases(service: &LeaseService, page: Page<'_>) -> AdminReply {
    let names = service.leases().names();
    // Names are texts: others are refused.
    let names =
        names.filter_map(|(name, permits)| Some((std::str::from_utf8(name).ok()?, permits)));
    let mut found: Vec<_> = names.filter(|(name, _)| page.has(name)).collect();
    found.sort_unstable();
    let rows = page.rows.max(1);
    let next = (found.len() > rows).then(|| found[rows - 1].0.to_owned());
    let row = |(name, permits): (&str, u32)| LeaseInfo {
        name: name.to_owned(),
        permits,
        holders: service.holders(name.as_bytes()),
        waiting: service.leases().waiting(name.as_bytes()) as u64,
    };
    AdminReply::Leases {
        leases: found.into_iter().take(rows).map(row).collect(),
        next,
    }
}

impl Page<'_> {
    fn has(&self, name: &str) -> bool {
        name.starts_with(self.prefix) && self.after.is_none_or(|after| name > after)
    }
}

fn topic_row(stats: &TopicStats, who: Who<'_>) -> Topic {
    let mut row = Topic {
        pattern: stats.pattern.as_str().to_owned(),
        ..Topic::default()
    };
    if let Some(channel) = &stats.channel {
        row.published = channel.totals.messages;
        row.published_bytes = channel.totals.bytes;
        row.last_seq = channel.next - 1;
        row.ring_messages = channel.messages as u64;
        row.ring_bytes = channel.bytes as u64;
        row.subscribers
            .extend(channel.subscribers.iter().map(|cursor| Subscriber {
                lag: cursor.lag,
                delivered: cursor.delivered,
                dropped: cursor.lost,
                ..subscriber(cursor.subscriber, who)
            }));
    }
    for (name, group) in &stats.groups {
        row.subscribers
            .extend(group.members.iter().map(|member| Subscriber {
                group: name.as_deref().map(str::to_owned),
                responds: name.is_none(),
                lag: group.backlog as u64,
                delivered: member.acked,
                outstanding: member.unacked as u64,
                ..subscriber(member.subscriber, who)
            }));
    }
    row
}

fn subscriber(of: crate::ids::Subscriber, who: Who<'_>) -> Subscriber {
    let (client, pid) = who(of.connection);
    Subscriber {
        connection: of.connection.0,
        client,
        pid,
        id: of.subscription.0,
        ..Subscriber::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids;
    use crate::message::Message;
    use crate::services::leases::Caller;
    use crate::topics::channel::Wish;
    use crate::topics::group::MemberOptions;
    use crate::topics::Effects;
    use ganger_protocol::lease::{Acquire, LeaseRequest};
    use ganger_protocol::Limits;
    use ganger_region::{Config, Options, Region};
    use std::sync::Arc;

    fn who(connection: ConnectionId) -> (String, u32) {
        let pid = u32::try_from(connection.0).unwrap();
        (format!("client {pid}"), pid)
    }

    fn page(prefix: &'static str, rows: usize) -> Page<'static> {
        Page {
            prefix,
            after: None,
            rows,
        }
    }

    #[test]
    fn pages_of_topics_show_each_once_with_lag_and_members() {
        let all = Topics::new((&Limits::default()).into(), 1);
        let mut effects = Effects::default();
        let mut joined = Vec::new();
        for (number, pattern) in (1..).zip(["b.c", "a.*", "a.b", "a.>", "c"]) {
            let pattern = pattern.parse().unwrap();
            let wish = Wish::default();
            let subscriber = ids::Subscriber::new(number, 7);
            joined.push(
                all.subscribe(&pattern, subscriber, wish, None, &mut effects)
                    .unwrap(),
            );
        }
        let options = MemberOptions {
            cap: 1,
            redeliver: false,
        };
        let member = ids::Subscriber::new(9, 1);
        let group = all.join(
            &"a.b".parse().unwrap(),
            Some("g"),
            member,
            options,
            &mut effects,
        );
        let responder = all.join(&"c".parse().unwrap(), None, member, options, &mut effects);
        for _ in 0..3 {
            let message = Arc::new(Message::plain(b"a.b", b"12").unwrap());
            all.publish(&message, &mut effects).unwrap();
        }
        let mut names = Vec::new();
        let mut after = None;
        loop {
            let page = Page {
                prefix: "a.",
                after: after.as_deref(),
                rows: 2,
            };
            let AdminReply::Topics { topics, next } = topics(&all, page, &who) else {
                panic!()
            };
            assert!(!topics.is_empty());
            names.extend(topics.into_iter().map(|topic| topic.pattern));
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(names, ["a.*", "a.>", "a.b"]);
        let AdminReply::Topics { topics, next } = topics(&all, page("", 100), &who) else {
            panic!()
        };
        assert_eq!((topics.len(), next), (5, None));
        let topic = &topics[2];
        assert_eq!(
            (&topic.pattern[..], topic.published, topic.last_seq),
            ("a.b", 3, 3)
        );
        let [first, member] = &topic.subscribers[..] else {
            panic!("{topic:?}")
        };
        assert_eq!(
            (first.connection, &first.client[..], first.id),
            (3, "client 3", 7)
        );
        assert_eq!((first.lag, first.group.as_deref()), (3, None));
        assert_eq!((member.outstanding, member.lag), (1, 2));
        assert_eq!(
            (member.group.as_deref(), member.responds),
            (Some("g"), false)
        );
        assert!(topics[4].subscribers[1].responds);
        drop((joined, group, responder));
    }

    #[test]
    fn pages_of_leases_show_each_once() {
        let region = Region::create(&Config::new(4 << 20), Options::new()).unwrap();
        let mut service = LeaseService::new(region, &Limits::default(), 0, 0);
        for (id, name) in (1..).zip(["b", "ab", "aa", "ac", "ab"]) {
            let caller = Caller {
                connection: ConnectionId(1),
                name: "me".into(),
                pid: 5,
            };
            let acquire = Acquire {
                name: name.into(),
                ..Acquire::default()
            };
            let request = LeaseRequest::Acquire(acquire);
            service.request(&caller, id, request, 0, &mut Vec::new());
        }
        let AdminReply::Leases {
            leases: listed,
            next,
        } = leases(&service, page("a", 2))
        else {
            panic!()
        };
        let names: Vec<_> = listed.iter().map(|lease| &lease.name[..]).collect();
        assert_eq!((names, next.as_deref()), (vec!["aa", "ab"], Some("ab")));
        assert_eq!((listed[1].waiting, listed[1].holders[0].pid), (1, 5));
        let rest = Page {
            after: Some("ab"),
            ..page("a", 2)
        };
        let AdminReply::Leases {
            leases: listed,
            next,
        } = leases(&service, rest)
        else {
            panic!()
        };
        assert_eq!((&listed[0].name[..], listed.len(), next), ("ac", 1, None));
    }
}
