//! `stats` and `metrics`: the broker's numbers, and the region's.

use crate::failure::Failure;
use crate::json::Object;
use crate::output::Output;
use crate::session::Session;
use crate::table::{age, bytes, counted};
use clap::Args;
use ganger_client::protocol::admin::BrokerStats;
use ganger_client::protocol::kv::RegionStats;

const STATS_EXAMPLES: &str = "\
Examples:
  broker-cli stats
  broker-cli stats --region-only           # without asking the broker
  broker-cli --json stats | jq .region.entries";

/// Show the numbers of the broker and of the region.
#[derive(Args)]
#[command(after_long_help = STATS_EXAMPLES)]
pub(crate) struct Stats {
    /// The region's numbers alone, directly from the region: works without a broker.
    #[arg(long)]
    region_only: bool,
    /// Counters that are 0 too.
    #[arg(short, long)]
    all: bool,
}

impl Stats {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        if self.region_only || session.options.region.is_some() {
            let stats = session.store()?.stats()?;
            let out = &mut session.out;
            return match out.json {
                true => json(&stats, out),
                false => region(&stats, out),
            };
        }
        let client = session.client()?;
        let stats = session.wait(async { Ok(client.stats().await?) })?;
        let out = &mut session.out;
        if out.json {
            return json(&stats, out);
        }
        broker(&stats, self.all, out)?;
        out.line("")?;
        region(&stats.region, out)
    }
}

fn json<T: serde::Serialize>(stats: &T, out: &mut Output) -> Result<(), Failure> {
    super::print_json(std::slice::from_ref(stats), out)
}

fn broker(stats: &BrokerStats, all: bool, out: &mut Output) -> Result<(), Failure> {
    let head = out.bold("broker");
    let uptime = age(stats.uptime_ms);
    out.line(&format!(
        "{head}  {}, process {}, up {uptime}",
        stats.software, stats.pid
    ))?;
    // The region's are told by themselves.
    let counters = stats.counters.iter().filter_map(|(name, &count)| {
        let name = name.strip_prefix("ganger_broker_").unwrap_or(name);
        let is_wanted = (all || count > 0) && !name.starts_with("region_");
        is_wanted.then(|| (name.strip_suffix("_total").unwrap_or(name), count))
    });
    let counters: Vec<(&str, u64)> = counters.collect();
    let width = counters.iter().map(|(name, _)| name.len()).max();
    let width = width.unwrap_or(0);
    for (name, count) in counters {
        out.line(&format!("  {name:width$}  {count}"))?;
    }
    Ok(())
}

fn region(stats: &RegionStats, out: &mut Output) -> Result<(), Failure> {
    let head = out.bold("region");
    let size = bytes(stats.declared_bytes);
    let entries = counted(stats.entries, "entry", "entries");
    let data = bytes(stats.bytes);
    out.line(&format!("{head}  {entries}, {data} of keys and values"))?;
    let (used, has) = (
        bytes(stats.pages_used * 65_536),
        bytes(stats.committed_bytes),
    );
    for (name, text) in [
        ("size", size),
        ("memory", format!("{has}, {used} of it in use")),
        ("writes", stats.writes.to_string()),
        ("expired", stats.expired.to_string()),
        ("evicted", stats.evicted.to_string()),
        ("repairs", format!("{} after deaths", stats.repairs)),
        ("damaged", stats.damaged.to_string()),
        (
            "shards",
            format!("{}, {} buckets", stats.shards, stats.buckets),
        ),
        (
            "sessions",
            format!("{} of {}", stats.sessions_attached, stats.sessions),
        ),
    ] {
        out.line(&format!("  {name:8}  {text}"))?;
    }
    Ok(())
}

const METRICS_EXAMPLES: &str = "\
Examples:
  broker-cli metrics
  broker-cli metrics > /var/lib/node_exporter/ganger.prom";

/// Write all counters as Prometheus text.
#[derive(Args)]
#[command(after_long_help = METRICS_EXAMPLES)]
pub(crate) struct Metrics {}

impl Metrics {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client()?;
        let text = session.wait(async { Ok(client.metrics().await?) })?;
        match session.out.json {
            true => session.out.object(Object::new().field("text", text)),
            false => session.out.bytes(text.as_bytes()),
        }
    }
}
