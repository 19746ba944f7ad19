use super::*;
use crate::ids::Subscriber;
use crate::message::Message;
use crate::requests::RequestTotals;
use crate::services::chores::ChoreTotals;
use crate::services::leases::LeaseService;
use crate::services::taps::Taps;
use crate::services::watch::Watches;
use crate::topics::channel::Wish;
use crate::topics::{Effects, Topics};
use ganger_protocol::Limits;
use ganger_region::{Config, Options, Region};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// A reader of the text, as strict as the format: series by name and label.
fn parse(text: &str) -> BTreeMap<(String, Option<(String, String)>), u64> {
    let mut samples = BTreeMap::new();
    let (mut helped, mut typed) = (HashSet::new(), BTreeMap::new());
    assert!(text.is_empty() || text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(helped.insert(name.to_owned()), "{name} is helped twice");
            assert!(!help.is_empty());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge"].contains(&kind) && helped.contains(name));
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            assert!(typed.insert(name.to_owned(), kind).is_none());
        } else {
            let (series, number) = line.rsplit_once(' ').unwrap();
            let (name, label) = match series.split_once('{') {
                None => (series, None),
                Some((name, label)) => (name, Some(label_of(label))),
            };
            let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(
                name.starts_with(PREFIX) && name.chars().all(sound),
                "{name}"
            );
            assert_eq!(
                typed.last_key_value().is_some(),
                typed.contains_key(name),
                "{name}"
            );
            let before = samples.insert((name.to_owned(), label), number.parse().unwrap());
            assert_eq!(before, None, "{series} stands twice");
        }
    }
    samples
}

fn label_of(text: &str) -> (String, String) {
    let (name, rest) = text.split_once("=\"").unwrap();
    let (mut value, mut characters) = (String::new(), rest.chars());
    loop {
        match characters.next().unwrap() {
            '"' => break,
            '\\' => match characters.next().unwrap() {
                'n' => value.push('\n'),
                c @ ('\\' | '"') => value.push(c),
                other => panic!("\\{other}"),
            },
            other => value.push(other),
        }
    }
    assert_eq!(characters.as_str(), "}");
    (name.to_owned(), value)
}

#[test]
fn labels_and_helps_survive_whatever_is_in_them() {
    let mut metrics = Metrics::default();
    let nasty = ["a\"b", "a\\", "line\nbreak", "} 7", "\u{e4}", ""];
    let samples = nasty.map(|value| (value.to_owned(), 7)).to_vec();
    metrics.counters("things", "Two\nlines, and a \\.", "what", samples);
    metrics.gauge("more", "A plain one.", u64::MAX);
    let parsed = parse(&metrics.to_text());
    assert_eq!(parsed.len(), nasty.len() + 1);
    for value in nasty {
        let label = ("what".to_owned(), value.to_owned());
        let series = ("ganger_broker_things_total".to_owned(), Some(label));
        assert_eq!(parsed[&series], 7);
    }
    let numbers = metrics.numbers();
    assert_eq!(
        numbers,
        [("ganger_broker_more".to_owned(), u64::MAX)].into()
    );
}

#[test]
fn every_part_shows_its_numbers_and_series_are_bounded() {
    let region = Region::create(&Config::new(4 << 20), Options::new()).unwrap();
    region.set(b"k", b"v").unwrap();
    let limits = Limits::default();
    let topics = Topics::new((&limits).into(), 1);
    let mut effects = Effects::default();
    for number in 0..u32::try_from(TOPICS_SHOWN).unwrap() + 5 {
        let (pattern, subject) = (
            format!("t.{number}").parse().unwrap(),
            format!("t.{number}"),
        );
        let who = Subscriber::new(1, number);
        topics
            .subscribe(&pattern, who, Wish::default(), None, &mut effects)
            .unwrap();
        for _ in 0..=number {
            let message = Arc::new(Message::plain(subject.as_bytes(), b"").unwrap());
            topics.publish(&message, &mut effects).unwrap();
        }
    }
    let mut metrics = Metrics::default();
    add_topics(&mut metrics, &topics);
    add_requests(&mut metrics, 3, &RequestTotals::default());
    add_watches(
        &mut metrics,
        &Watches::new(region.clone(), 1, &limits, Box::new(|_| {})),
    );
    add_leases(
        &mut metrics,
        &LeaseService::new(region.clone(), &limits, 0, 0),
    );
    add_chores(&mut metrics, &ChoreTotals::default());
    add_taps(&mut metrics, &Taps::new(Box::new(|_| {})).totals());
    add_region(&mut metrics, &region.stats());
    let parsed = parse(&metrics.to_text());
    let plain = |name: &str| parsed[&(format!("{PREFIX}{name}"), None)];
    assert_eq!(plain("published_total"), (1..=105).sum::<u64>());
    assert_eq!((plain("topics"), plain("topics_not_shown")), (105, 5));
    assert_eq!((plain("requests_waiting"), plain("region_entries")), (3, 1));
    let labelled: Vec<_> = parsed
        .keys()
        .filter_map(|(_, label)| label.as_ref())
        .collect();
    assert_eq!(labelled.len(), 3 * TOPICS_SHOWN);
    assert!(
        !labelled.iter().any(|(_, pattern)| pattern == "t.4"),
        "the quietest are shown"
    );
    let published = ("pattern".to_owned(), "t.104".to_owned());
    let series = (format!("{PREFIX}topic_published_total"), Some(published));
    assert_eq!(parsed[&series], 105);
    assert_eq!(metrics.numbers().len(), parsed.len() - labelled.len());
}
