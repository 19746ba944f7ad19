//! What was measured, and how it is printed: a table for people, Markdown, and JSON lines.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};

/// Median and range of the rounds of one measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) rounds: usize,
}

impl Spread {
    pub(crate) fn of(rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        } else {
            sorted[middle]
        };
        Self {
            median,
            min: sorted[0],
            max: sorted[sorted.len() - 1],
            rounds: sorted.len(),
        }
    }

    /// The ratio of two sides, taken round by round: what disturbed a round disturbed both.
    pub(crate) fn of_ratio(over: &[f64], under: &[f64]) -> Self {
        let ratios: Vec<f64> = over.iter().zip(under).map(|(a, b)| a / b).collect();
        Self::of(&ratios)
    }
}

/// What a target demands of a median.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
    Below(f64),
}

impl Limit {
    fn is_met(self, median: f64) -> bool {
        match self {
            Self::AtMost(limit) => median <= limit,
            Self::AtLeast(limit) => median >= limit,
            Self::Below(limit) => median < limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {limit}"),
            Self::AtLeast(limit) => format!(">= {limit}"),
            Self::Below(limit) => format!("< {limit}"),
        }
    }
}

struct Figure {
    what: String,
    side: String,
    unit: &'static str,
    spread: Spread,
    ratio: Option<Spread>,
    /// The curve it is a point of, and where.
    place: Option<(String, f64)>,
}

struct Distribution {
    what: String,
    side: String,
    unit: &'static str,
    points: Vec<(f64, f64)>,
}

struct Verdict {
    what: String,
    unit: &'static str,
    spread: Spread,
    limit: Limit,
}

/// Everything that one run found out.
#[derive(Default)]
pub(crate) struct Report {
    figures: Vec<Figure>,
    distributions: Vec<Distribution>,
    verdicts: Vec<Verdict>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn figure(&mut self, what: &str, side: &str, unit: &'static str, rounds: &[f64]) {
        self.push(what, side, unit, rounds, None);
    }

    /// A figure with how often ganger's goes into it, or it into ganger's, as the caller put it.
    pub(crate) fn figure_with_ratio(
        &mut self,
        what: &str,
        side: &str,
        unit: &'static str,
        rounds: &[f64],
        ratio: Spread,
    ) {
        self.push(what, side, unit, rounds, Some(ratio));
    }

    /// Says of the last figure that it is the point at `x` of its side's part of a curve.
    pub(crate) fn on_curve(&mut self, curve: &str, x: f64) {
        if let Some(figure) = self.figures.last_mut() {
            figure.place = Some((curve.to_owned(), x));
        }
    }

    /// All times of one side: which part of them stays within which time. JSON only.
    #[allow(dead_code)] // benches/store has them
    pub(crate) fn distribution(
        &mut self,
        what: &str,
        side: &str,
        unit: &'static str,
        points: Vec<(f64, f64)>,
    ) {
        self.distributions.push(Distribution {
            what: what.to_owned(),
            side: side.to_owned(),
            unit,
            points,
        });
    }

    pub(crate) fn target(&mut self, what: &str, unit: &'static str, spread: Spread, limit: Limit) {
        self.verdicts.push(Verdict {
            what: what.to_owned(),
            unit,
            spread,
            limit,
        });
    }

    #[allow(dead_code)] // benches/store asks
    pub(crate) fn is_every_target_met(&self) -> bool {
        let mut verdicts = self.verdicts.iter();
        verdicts.all(|verdict| verdict.limit.is_met(verdict.spread.median))
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        eprintln!("note: {note}");
        self.notes.push(note);
    }

    pub(crate) fn print(&self, markdown: bool) {
        let mut figures = vec![row([
            "measurement",
            "side",
            "median",
            "min",
            "max",
            "unit",
            "x ganger",
        ])];
        figures.extend(self.figures.iter().map(|figure| {
            let Spread {
                median, min, max, ..
            } = figure.spread;
            let ratio = figure.ratio.map_or(String::new(), |ratio| {
                format!(
                    "{} [{}..{}]",
                    number(ratio.median),
                    number(ratio.min),
                    number(ratio.max)
                )
            });
            vec![
                figure.what.clone(),
                figure.side.clone(),
                number(median),
                number(min),
                number(max),
                figure.unit.to_owned(),
                ratio,
            ]
        }));
        let mut verdicts = vec![row(["target", "median", "min", "max", "wanted", ""])];
        verdicts.extend(self.verdicts.iter().map(|verdict| {
            let Spread {
                median, min, max, ..
            } = verdict.spread;
            let mark = if verdict.limit.is_met(median) {
                "met"
            } else {
                "NOT MET"
            };
            vec![
                verdict.what.clone(),
                number(median),
                number(min),
                number(max),
                format!("{} {}", verdict.limit.text(), verdict.unit),
                mark.to_owned(),
            ]
        }));
        for table in [figures, verdicts].iter().filter(|table| table.len() > 1) {
            println!("{}", layout(table, markdown));
        }
        for note in &self.notes {
            println!("{note}{}", if markdown { "\n" } else { "" });
        }
    }

    /// One JSON object a line: figures, distributions, verdicts, notes.
    pub(crate) fn write_json(&self, path: &str) -> io::Result<()> {
        let mut file = io::BufWriter::new(File::create(path)?);
        for figure in &self.figures {
            let ratio = figure.ratio.map_or(String::new(), |ratio| {
                format!(",\"times_ganger\":{}", json_spread(ratio))
            });
            let place = figure.place.as_ref().map_or(String::new(), |(curve, x)| {
                format!(",\"curve\":{},\"x\":{x}", json_text(curve))
            });
            writeln!(
                file,
                "{{\"kind\":\"figure\",\"what\":{},\"side\":{},\"unit\":{},\"value\":{}{ratio}{place}}}",
                json_text(&figure.what),
                json_text(&figure.side),
                json_text(figure.unit),
                json_spread(figure.spread),
            )?;
        }
        for all in &self.distributions {
            let points: Vec<String> = all
                .points
                .iter()
                .map(|(value, share)| format!("[{value},{share:.6}]"))
                .collect();
            writeln!(
                file,
                "{{\"kind\":\"distribution\",\"what\":{},\"side\":{},\"unit\":{},\"points\":[{}]}}",
                json_text(&all.what),
                json_text(&all.side),
                json_text(all.unit),
                points.join(","),
            )?;
        }
        for verdict in &self.verdicts {
            writeln!(
                file,
                "{{\"kind\":\"target\",\"what\":{},\"unit\":{},\"value\":{},\"wanted\":{},\"met\":{}}}",
                json_text(&verdict.what),
                json_text(verdict.unit),
                json_spread(verdict.spread),
                json_text(&verdict.limit.text()),
                verdict.limit.is_met(verdict.spread.median),
            )?;
        }
        for note in &self.notes {
            writeln!(file, "{{\"kind\":\"note\",\"text\":{}}}", json_text(note))?;
        }
        file.flush()
    }

    fn push(
        &mut self,
        what: &str,
        side: &str,
        unit: &'static str,
        rounds: &[f64],
        ratio: Option<Spread>,
    ) {
        let spread = Spread::of(rounds);
        eprintln!("{what}, {side}: {} {unit}", number(spread.median));
        self.figures.push(Figure {
            what: what.to_owned(),
            side: side.to_owned(),
            unit,
            spread,
            ratio,
            place: None,
        });
    }
}

/// Three digits or so: more would claim a precision that is not there.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn layout(table: &[Vec<String>], markdown: bool) -> String {
    let widths: Vec<usize> = (0..table[0].len())
        .map(|column| table.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for (line, row) in table.iter().enumerate() {
        let cells = row.iter().zip(&widths);
        if markdown {
            for (cell, width) in cells {
                let _ = write!(out, "| {cell:width$} ");
            }
            out.push_str("|\n");
            if line == 0 {
                for width in &widths {
                    let _ = write!(out, "|{}", "-".repeat(width + 2));
                }
                out.push_str("|\n");
            }
        } else {
            let text: Vec<String> = cells
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            out.push_str(text.join("  ").trim_end());
            out.push('\n');
        }
    }
    out
}

fn json_spread(spread: Spread) -> String {
    format!(
        "{{\"median\":{},\"min\":{},\"max\":{},\"rounds\":{}}}",
        spread.median, spread.min, spread.max, spread.rounds
    )
}

fn json_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
