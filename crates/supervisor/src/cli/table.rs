//! Tables that fit: columns as wide as their widest cell; if the terminal is too narrow, those that
//! matter least are left out, and the last one is cut.

use super::out::{paint, Tone};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Blanks between columns.
const GAP: usize = 2;
/// Stands where a cell was cut.
const CUT: &str = "\u{2026}";

/// A column.
pub(crate) struct Column {
    title: &'static str,
    is_right: bool,
    /// Left out first where this is highest; never where it is 0.
    spare: u8,
}

/// A table to be shown.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// What stands in a row and a column.
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Column {
    /// For words. Never left out.
    pub(crate) fn left(title: &'static str) -> Self {
        Self {
            title,
            is_right: false,
            spare: 0,
        }
    }

    /// For numbers. Never left out.
    pub(crate) fn right(title: &'static str) -> Self {
        Self {
            is_right: true,
            ..Self::left(title)
        }
    }

    /// May be left out; the highest goes first.
    pub(crate) fn spare(mut self, spare: u8) -> Self {
        self.spare = spare;
        self
    }
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::toned(Tone::Plain, text)
    }

    pub(crate) fn toned(tone: Tone, text: impl Into<String>) -> Self {
        let text: String = text.into();
        Self {
            // A line that a table can't show would break all the others.
            text: text.chars().filter(|c| !c.is_control()).collect(),
            tone,
        }
    }

    fn width(&self) -> usize {
        self.text.width()
    }
}

impl Table {
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// One cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Its lines, each behind `indent` blanks, within `width` columns if there is a limit. A column
    /// without a word in it is left out.
    pub(crate) fn lines(&self, indent: usize, width: Option<usize>, colour: bool) -> Vec<String> {
        let mut shown: Vec<usize> = (0..self.columns.len())
            .filter(|at| self.rows.iter().any(|row| !row[*at].text.is_empty()))
            .collect();
        let widths: Vec<usize> = (0..self.columns.len()).map(|at| self.width(at)).collect();
        let total = |shown: &[usize]| -> usize {
            let cells: usize = shown.iter().map(|at| widths[*at]).sum();
            indent + cells + GAP * shown.len().saturating_sub(1)
        };
        let limit = width.unwrap_or(usize::MAX);
        while total(&shown) > limit {
            let least = shown.iter().max_by_key(|at| self.columns[**at].spare);
            match least.copied() {
                Some(at) if self.columns[at].spare > 0 => shown.retain(|other| *other != at),
                _ => break,
            }
        }
        let header = self.columns.iter().map(|column| Cell {
            text: column.title.to_owned(),
            tone: Tone::Dim,
        });
        let header: Vec<Cell> = header.collect();
        std::iter::once(&header)
            .chain(&self.rows)
            .map(|row| self.line(row, &shown, &widths, (indent, limit, colour)))
            .collect()
    }

    fn width(&self, at: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[at].width());
        cells.max().unwrap_or(0).max(self.columns[at].title.len())
    }

    fn line(
        &self,
        row: &[Cell],
        shown: &[usize],
        widths: &[usize],
        (indent, limit, colour): (usize, usize, bool),
    ) -> String {
        let mut line = " ".repeat(indent);
        let mut used = indent;
        for (nth, at) in shown.iter().enumerate() {
            let (cell, width) = (&row[*at], widths[*at]);
            if nth > 0 {
                line.push_str(&" ".repeat(GAP));
                used += GAP;
            }
            let room = width.min(limit.saturating_sub(used));
            let text = fit(&cell.text, room);
            let blanks = " ".repeat(room.saturating_sub(text.width()));
            let text = paint(colour && !text.is_empty(), cell.tone, text);
            if self.columns[*at].is_right {
                line.push_str(&blanks);
                line.push_str(&text);
            } else {
                line.push_str(&text);
                line.push_str(&blanks);
            }
            used += room;
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// `text`, or its beginning, in so many columns.
pub(crate) fn fit(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let mut left = room.saturating_sub(1);
    let begin = text.chars().take_while(|c| {
        let width = c.width().unwrap_or(0);
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    });
    let mut cut: String = begin.collect();
    if room > 0 {
        cut.push_str(CUT);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(vec![
            Column::left("WORKER"),
            Column::right("PID"),
            Column::right("MEMORY").spare(1),
            Column::left("NOTE").spare(2),
            Column::left("EMPTY").spare(1),
        ]);
        table.row(
            ["web.0", "4711", "54 MiB", "fine", ""]
                .map(Cell::new)
                .into(),
        );
        table.row(
            ["web.10", "1", "", "\u{65e5}\u{672c}", ""]
                .map(Cell::new)
                .into(),
        );
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_empty_ones_left_out() {
        let lines = table().lines(2, None, false);
        assert_eq!(
            lines,
            [
                "  WORKER   PID  MEMORY  NOTE",
                "  web.0   4711  54 MiB  fine",
                "  web.10     1          \u{65e5}\u{672c}",
            ]
        );
    }

    #[test]
    fn in_a_narrow_terminal_what_matters_least_goes_first() {
        assert_eq!(table().lines(0, Some(20), false)[0], "WORKER   PID  MEMORY");
        assert_eq!(table().lines(0, Some(19), false)[0], "WORKER   PID");
        assert_eq!(table().lines(0, Some(11), false)[1], "web.0   47\u{2026}");
        for width in 0..40 {
            for line in table().lines(2, Some(width), false) {
                assert!(line.width() <= width.max(2), "{width}: {line}");
            }
        }
    }

    #[test]
    fn cut_text_never_splits_a_wide_character() {
        assert_eq!(fit("\u{65e5}\u{672c}", 4), "\u{65e5}\u{672c}");
        assert_eq!(fit("\u{65e5}\u{672c}", 3), "\u{65e5}\u{2026}");
        assert_eq!(fit("\u{65e5}\u{672c}", 2), "\u{2026}");
        assert_eq!(fit("abc", 0), "");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(Cell::new("a\x1b[31mb\nc").text, "a[31mbc");
    }
}
