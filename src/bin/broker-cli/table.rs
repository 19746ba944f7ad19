//! Tables for people, and numbers as people read them.

use crate::failure::Failure;
use crate::output::Output;
use std::time::Duration;

/// Columns of text; numbers stand to the right.
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self {
            head: head.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Its lines, the head first.
    pub(crate) fn lines(&self) -> Vec<String> {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                let longest = cells.map(|cell| cell.chars().count()).max();
                longest.unwrap_or(0).max(self.head[column].len())
            })
            .collect();
        let to_right: Vec<bool> = (0..self.head.len())
            .map(|column| {
                let mut cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.all(|cell| cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit()))
            })
            .collect();
        let head = self.head.iter().map(|&name| name.to_owned()).collect();
        let all = std::iter::once(&head).chain(&self.rows);
        all.map(|row| line(row, &widths, &to_right)).collect()
    }

    pub(crate) fn print(&self, out: &mut Output) -> Result<(), Failure> {
        for (number, line) in self.lines().into_iter().enumerate() {
            let line = if number == 0 { out.bold(&line) } else { line };
            out.line(&line)?;
        }
        Ok(())
    }
}

fn line(row: &[String], widths: &[usize], to_right: &[bool]) -> String {
    let mut line = String::new();
    for ((cell, &width), &to_right) in row.iter().zip(widths).zip(to_right) {
        let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
        match to_right {
            true => line.extend([padding.as_str(), cell]),
            false => line.extend([cell, padding.as_str()]),
        }
        line.push_str("  ");
    }
    line.trim_end().to_owned()
}

/// `1 entry`, `2 entries`.
pub(crate) fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

/// `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut left = count;
    while left >= 10_240 && unit + 1 < UNITS.len() {
        left /= 1024;
        unit += 1;
    }
    if unit + 1 < UNITS.len() && left >= 1024 {
        let tenths = left * 10 / 1024;
        return format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit + 1]);
    }
    format!("{left} {}", UNITS[unit])
}

/// `3h 20m`: the two greatest units.
pub(crate) fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{}.{}s", seconds, ms % 1000 / 100),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// How many a second, of what was counted in this time.
pub(crate) fn per_second(count: u64, time: Duration) -> u64 {
    let nanoseconds = time.as_nanos().max(1);
    u64::try_from(u128::from(count) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_names_to_the_left() {
        let mut table = Table::new(&["NAME", "LAG"]);
        table.row(["a".into(), "10000".into()]);
        table.row(["longer".into(), "7".into()]);
        assert_eq!(
            table.lines(),
            ["NAME      LAG", "a       10000", "longer      7"]
        );
    }

    #[test]
    fn bytes_and_ages_are_short() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(64 << 20), "64 MiB");
        assert_eq!(bytes(u64::MAX), "16777215 TiB");
        assert_eq!(age(1500), "1.5s");
        assert_eq!(age(200_000), "3m 20s");
        assert_eq!(age(90_000_000), "1d 1h");
        assert_eq!(per_second(500, Duration::from_millis(250)), 2000);
    }
}
