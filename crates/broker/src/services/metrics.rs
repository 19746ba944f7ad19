//! The broker's numbers as Prometheus text.
//!
//! Names begin with `ganger_broker_`; those of counters end with `_total`. The number of series is
//! bounded: only the busiest topics have some of their own, connections have none.

use std::collections::BTreeMap;
use std::fmt::Write;

mod sources;

pub use sources::{
    add_chores, add_leases, add_region, add_requests, add_taps, add_topics, add_watches,
    TOPICS_SHOWN,
};

const PREFIX: &str = "ganger_broker_";

/// Numbers, family by family.
#[derive(Debug, Default)]
pub struct Metrics {
    families: Vec<Family>,
}

#[derive(Debug)]
struct Family {
    name: String,
    help: &'static str,
    kind: &'static str,
    /// The label's name, if there is one.
    label: Option<&'static str>,
    samples: Vec<(String, u64)>,
}

impl Metrics {
    /// A number that only grows. Its name gets `_total`.
    pub fn counter(&mut self, name: &str, help: &'static str, value: u64) {
        let name = format!("{PREFIX}{name}_total");
        self.add(name, help, "counter", None, vec![(String::new(), value)]);
    }

    /// A number that comes and goes.
    pub fn gauge(&mut self, name: &str, help: &'static str, value: u64) {
        let name = format!("{PREFIX}{name}");
        self.add(name, help, "gauge", None, vec![(String::new(), value)]);
    }

    /// Numbers that only grow, one for each value of a label.
    pub fn counters(
        &mut self,
        name: &str,
        help: &'static str,
        label: &'static str,
        samples: Vec<(String, u64)>,
    ) {
        let name = format!("{PREFIX}{name}_total");
        self.add(name, help, "counter", Some(label), samples);
    }

    /// Numbers that come and go, one for each value of a label.
    pub fn gauges(
        &mut self,
        name: &str,
        help: &'static str,
        label: &'static str,
        samples: Vec<(String, u64)>,
    ) {
        let name = format!("{PREFIX}{name}");
        self.add(name, help, "gauge", Some(label), samples);
    }

    fn add(
        &mut self,
        name: String,
        help: &'static str,
        kind: &'static str,
        label: Option<&'static str>,
        samples: Vec<(String, u64)>,
    ) {
        self.families.push(Family {
            name,
            help,
            kind,
            label,
            samples,
        });
    }

    /// The text.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for family in &self.families {
            family.write(&mut text);
        }
        text
    }

    /// The numbers without labels, by their names.
    pub fn numbers(&self) -> BTreeMap<String, u64> {
        let plain = self.families.iter().filter(|family| family.label.is_none());
        let number = |family: &Family| Some((family.name.clone(), family.samples.first()?.1));
        plain.filter_map(number).collect()
    }
}

impl Family {
    fn write(&self, text: &mut String) {
        let Self {
            name, help, kind, ..
        } = self;
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {}", escaped(help, false));
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for (value, number) in &self.samples {
            let _ = match self.label {
                None => writeln!(text, "{name} {number}"),
                Some(label) => {
                    let value = escaped(value, true);
                    writeln!(text, "{name}{{{label}=\"{value}\"}} {number}")
                }
            };
        }
    }
}

/// What would end a line or a label's value is written as the format wants it.
fn escaped(text: &str, in_quotes: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '"' if in_quotes => escaped.push_str("\\\""),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
