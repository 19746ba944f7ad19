//! Where the numbers come from: one function for each part of the broker.

use super::Metrics;
use crate::requests::RequestTotals;
use crate::services::chores::ChoreTotals;
use crate::services::leases::LeaseService;
use crate::services::taps::TapTotals;
use crate::services::watch::Watches;
use crate::topics::{TopicStats, Topics};
use ganger_region::Stats;

/// Topics that have series of their own: the busiest.
pub const TOPICS_SHOWN: usize = 100;

/// Of topics, and of the busiest each.
pub fn add_topics(out: &mut Metrics, topics: &Topics) {
    let totals = topics.totals();
    out.counter("published", "Messages published.", totals.published);
    out.counter(
        "unrouted",
        "Messages that nobody was there for.",
        totals.unrouted,
    );
    let help = "Retained messages refused because of their limits.";
    out.counter("retain_refused", help, totals.retain_refused);
    let help = "Subscriptions refused because there were too many patterns.";
    out.counter("topics_refused", help, totals.topics_refused);
    let help = "Channels that went early because too many lingered.";
    out.counter("lingering_cut", help, totals.lingering_cut);
    let help = "Messages of queue groups that ended without members.";
    out.counter("group_lost", help, totals.group_lost);
    let (used, lingering) = topics.bytes();
    out.gauge(
        "ring_bytes",
        "Bytes in the rings of channels with subscribers.",
        used as u64,
    );
    let help = "Bytes in the rings of channels without.";
    out.gauge("lingering_bytes", help, lingering as u64);
    let (messages, bytes) = topics.retained_len();
    out.gauge("retained_messages", "Retained messages.", messages as u64);
    out.gauge("retained_bytes", "Bytes of them.", bytes as u64);

    let mut all: Vec<TopicStats> = topics.all().iter().map(|topic| topic.stats()).collect();
    out.gauge(
        "topics",
        "Patterns with subscribers, or that had some.",
        all.len() as u64,
    );
    let cursors = all.iter().filter_map(|topic| topic.channel.as_ref());
    let subscribers: usize = cursors.map(|channel| channel.subscribers.len()).sum();
    out.gauge(
        "subscribers",
        "Subscriptions outside queue groups.",
        subscribers as u64,
    );
    add_groups(out, &all);
    all.sort_unstable_by_key(|topic| std::cmp::Reverse(published(topic)));
    out.gauge(
        "topics_not_shown",
        "Patterns without series of their own, because others are busier.",
        all.len().saturating_sub(TOPICS_SHOWN) as u64,
    );
    all.truncate(TOPICS_SHOWN);
    let series = |number: &dyn Fn(&TopicStats) -> u64| {
        let sample = |topic: &TopicStats| (topic.pattern.as_str().to_owned(), number(topic));
        all.iter().map(sample).collect::<Vec<_>>()
    };
    let help = "Messages published to a pattern's channel.";
    out.counters("topic_published", help, "pattern", series(&published));
    let help = "Messages that the slowest subscriber of a pattern is behind.";
    let behind = |topic: &TopicStats| {
        let channel = topic.channel.iter();
        let cursors = channel.flat_map(|channel| &channel.subscribers);
        cursors.map(|cursor| cursor.lag).max().unwrap_or(0)
    };
    out.gauges("topic_lag_max", help, "pattern", series(&behind));
    let help = "Messages that the present subscribers of a pattern have lost.";
    let lost = |topic: &TopicStats| {
        let channel = topic.channel.iter();
        let cursors = channel.flat_map(|channel| &channel.subscribers);
        cursors.map(|cursor| cursor.lost).sum()
    };
    out.gauges("topic_lost", help, "pattern", series(&lost));
}

/// Of the queue groups there are. Their numbers go with them, so these are no counters.
fn add_groups(out: &mut Metrics, topics: &[TopicStats]) {
    let groups = || {
        topics
            .iter()
            .flat_map(|topic| &topic.groups)
            .map(|group| &group.1)
    };
    let sum = |number: fn(&crate::topics::GroupStats) -> u64| groups().map(number).sum();
    out.gauge(
        "groups",
        "Queue groups, and sets of responders.",
        groups().count() as u64,
    );
    let help = "Members of them.";
    out.gauge(
        "group_members",
        help,
        sum(|group| group.members.len() as u64),
    );
    let help = "Messages that wait for a member.";
    out.gauge("group_backlog", help, sum(|group| group.backlog as u64));
    let help = "Messages they dropped because too many waited.";
    out.gauge(
        "group_dropped_full",
        help,
        sum(|group| group.totals.dropped_full),
    );
    let help = "Messages they dropped because a member died with them.";
    out.gauge(
        "group_dropped_dead",
        help,
        sum(|group| group.totals.dropped_dead),
    );
    let help = "Messages they dropped because they were delivered too often.";
    out.gauge(
        "group_dropped_redelivered",
        help,
        sum(|group| group.totals.dropped_poison),
    );
    let help = "Messages they delivered again.";
    out.gauge(
        "group_redelivered",
        help,
        sum(|group| group.totals.redelivered),
    );
    let help = "Acknowledgements of messages that were not outstanding.";
    out.gauge(
        "group_stray_acks",
        help,
        sum(|group| group.totals.stray_acks),
    );
}

/// Of requests.
pub fn add_requests(out: &mut Metrics, waiting: usize, totals: &RequestTotals) {
    out.gauge(
        "requests_waiting",
        "Requests that wait for a reply.",
        waiting as u64,
    );
    out.counter(
        "requests",
        "Requests that went to a responder.",
        totals.opened,
    );
    out.counter(
        "requests_answered",
        "Requests that were answered.",
        totals.answered,
    );
    let help = "Requests whose responder went away.";
    out.counter("requests_worker_died", help, totals.worker_died);
    out.counter(
        "requests_timed_out",
        "Requests whose time was over.",
        totals.timed_out,
    );
    out.counter(
        "requests_cancelled",
        "Requests that were cancelled.",
        totals.cancelled,
    );
    let help = "Requests that nobody was there for.";
    out.counter("requests_no_responders", help, totals.no_responders);
    out.counter(
        "requests_refused",
        "Requests refused because of a limit.",
        totals.refused,
    );
    out.counter(
        "replies_late",
        "Replies that came too late, or to nothing.",
        totals.late,
    );
}

/// Of watches.
pub fn add_watches(out: &mut Metrics, watches: &Watches) {
    let totals = watches.totals();
    out.gauge("watches", "Watches.", watches.len() as u64);
    let help = "Changes kept for watches that are behind or come back.";
    out.gauge("watch_log", help, watches.log_len() as u64);
    out.counter("watches_opened", "Watches begun.", totals.opened);
    out.counter(
        "watches_refused",
        "Watches refused because of a limit.",
        totals.refused,
    );
    out.counter(
        "watches_resumed",
        "Watches that went on where they were.",
        totals.resumed,
    );
    out.counter(
        "watch_snapshots",
        "Snapshots of a watch begun.",
        totals.snapshots,
    );
    out.counter(
        "watch_entries",
        "Entries of these snapshots told.",
        totals.entries,
    );
    out.counter(
        "watch_changes",
        "Changes that came from the region.",
        totals.changes,
    );
    out.counter("watch_told", "Changes told to watchers.", totals.told);
    let help = "Times the region could not say what changed in a shard.";
    out.counter("watch_gaps", help, totals.gaps);
    let help = "Times a watcher was too slow and began anew.";
    out.counter("watch_slow", help, totals.slow);
    let help = "Expired keys taken out so that watchers hear of it.";
    out.counter("watch_swept", help, totals.swept);
}

/// Of leases.
pub fn add_leases(out: &mut Metrics, service: &LeaseService) {
    let (totals, records) = service.totals();
    let held = service.leases().held().count();
    out.gauge("leases", "Leases that are held.", held as u64);
    let names = service.leases().keys();
    out.gauge(
        "lease_names",
        "Names held, waited for or observed.",
        names as u64,
    );
    out.counter("leases_granted", "Leases granted.", totals.granted);
    out.counter("leases_released", "Leases given back.", totals.released);
    out.counter(
        "leases_expired",
        "Leases lost for want of renewal.",
        totals.expired,
    );
    let help = "Leases ended by the end of their holder's connection.";
    out.counter("leases_holder_gone", help, totals.holder_gone);
    let help = "Leases of an earlier broker that their holders claimed again.";
    out.counter("leases_reclaimed", help, totals.reclaimed);
    let help = "Leases of an earlier broker that nobody claimed in time.";
    out.counter("leases_unclaimed", help, totals.unclaimed);
    out.counter(
        "lease_waits_timed_out",
        "Waits for leases that ended.",
        totals.timed_out,
    );
    out.counter(
        "leases_refused",
        "Leases refused because of a limit.",
        totals.refused,
    );
    let help = "Leases not granted for want of a token.";
    out.counter("leases_no_token", help, totals.no_token);
    out.counter(
        "leases_restored",
        "Records found at the start.",
        records.restored,
    );
    let help = "Records found at the start that made no sense.";
    out.counter("lease_records_broken", help, records.broken);
    let help = "Records that could not be written.";
    out.counter("lease_records_unkept", help, records.unkept);
    let help = "Records that could not be removed.";
    out.counter("lease_records_left", help, records.left_over);
}

/// Of snapshots and audits.
pub fn add_chores(out: &mut Metrics, totals: &ChoreTotals) {
    out.counter("snapshots_written", "Snapshots written.", totals.written);
    out.counter(
        "snapshots_failed",
        "Snapshots that could not be written.",
        totals.failed,
    );
    out.counter(
        "snapshots_restored",
        "Snapshots put into the region.",
        totals.restored,
    );
    let help = "Files that were no whole snapshots.";
    out.counter("snapshots_refused", help, totals.files_refused);
    let help = "When the last snapshot was written, in seconds since 1970.";
    out.gauge("snapshot_last_seconds", help, totals.last_written_ms / 1000);
    out.gauge(
        "snapshot_last_bytes",
        "Bytes of the last snapshot.",
        totals.last_bytes,
    );
    out.counter("audits", "Audits of the region.", totals.audits);
    out.counter(
        "audit_problems",
        "Broken invariants they found.",
        totals.problems,
    );
    let help = "Snapshots and audits refused because too many waited.";
    out.counter("chores_refused", help, totals.refused);
}

/// Of taps.
pub fn add_taps(out: &mut Metrics, totals: &TapTotals) {
    out.gauge("taps", "Taps.", totals.taps);
    out.counter("tap_shown", "Messages shown to taps.", totals.shown);
    out.counter(
        "tap_lost",
        "Messages that taps were too slow for.",
        totals.lost,
    );
    out.counter(
        "taps_refused",
        "Taps refused because there were too many.",
        totals.refused,
    );
}

/// Of the region.
pub fn add_region(out: &mut Metrics, stats: &Stats) {
    out.gauge(
        "region_entries",
        "Keys, expired ones not yet swept included.",
        stats.entries,
    );
    out.gauge("region_bytes", "Bytes of keys and values.", stats.bytes);
    let help = "Bytes the region was declared with.";
    out.gauge("region_declared_bytes", help, stats.declared_bytes);
    let help = "Bytes of memory the region has.";
    out.gauge("region_committed_bytes", help, stats.committed_bytes);
    out.gauge("region_pages", "Pages there can be.", stats.pages);
    out.gauge("region_pages_used", "Pages in use.", stats.pages_used);
    out.gauge(
        "region_pages_free",
        "Pages that have memory and no use.",
        stats.pages_free,
    );
    out.gauge("region_sessions", "Sessions there can be.", stats.sessions);
    let help = "Sessions that are taken.";
    out.gauge("region_sessions_attached", help, stats.sessions_attached);
    out.counter("region_writes", "Writes of all processes.", stats.writes);
    out.counter(
        "region_expired",
        "Keys removed because they expired.",
        stats.expired,
    );
    out.counter("region_evicted", "Keys evicted.", stats.evicted);
    let help = "Repairs after the death of a lock holder.";
    out.counter("region_repairs", help, stats.repairs);
    let help = "Slots that repairs dropped because they were damaged.";
    out.counter("region_damaged", help, stats.damaged);
}

fn published(topic: &TopicStats) -> u64 {
    topic
        .channel
        .as_ref()
        .map_or(0, |channel| channel.totals.messages)
}
