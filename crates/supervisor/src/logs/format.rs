//! How a line of output looks: `web.0 | text`.

use crate::report::LogLine;
use std::io::Write;

/// Name of the broker's lines: it has one process and no number.
const BROKER: &str = "broker";
/// Longest name that others are aligned to.
const WIDTH_MAX: usize = 24;
const RESET: &[u8] = b"\x1b[0m";
/// Told apart on dark and light grounds, and none that means an error.
const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "96"];

/// How lines are shown.
#[derive(Debug, Clone, Default)]
pub struct Style {
    /// With colours.
    pub has_colour: bool,
    /// With the time of day (UTC), to the millisecond.
    pub has_time: bool,
    /// Columns of the widest name so far; grows by itself.
    pub width: usize,
}

impl Style {
    /// Appends the line as it is shown, with its end, and before it a notice of what was dropped.
    pub fn line(&mut self, line: &LogLine, out: &mut Vec<u8>) {
        let name = name(&line.app, line.worker);
        self.width = self.width.max(name.len().min(WIDTH_MAX));
        if line.dropped > 0 {
            self.prefix(line, &name, out);
            self.dim(&dropped_text(line.dropped), out);
            out.push(b'\n');
        }
        self.prefix(line, &name, out);
        out.extend_from_slice(&line.text);
        // What a worker coloured and didn't end would colour everybody's lines.
        if self.has_colour && line.text.contains(&0x1b) {
            out.extend_from_slice(RESET);
        }
        out.push(b'\n');
    }

    /// Appends a line of the supervisor's own.
    pub fn note(&mut self, text: &str, out: &mut Vec<u8>) {
        let (from, to) = if self.has_colour {
            ("\x1b[1m", "\x1b[0m")
        } else {
            ("", "")
        };
        self.width = self.width.max("ganger".len());
        let width = self.width;
        for line in text.lines() {
            // A Vec takes everything.
            let _ = writeln!(out, "{from}{:width$} |{to} {line}", "ganger");
        }
    }

    /// Appends `text`, which is ours and not a worker's.
    pub fn dim(&self, text: &str, out: &mut Vec<u8>) {
        if self.has_colour {
            out.extend_from_slice(b"\x1b[2m");
        }
        out.extend_from_slice(text.as_bytes());
        if self.has_colour {
            out.extend_from_slice(RESET);
        }
    }

    fn prefix(&self, line: &LogLine, name: &str, out: &mut Vec<u8>) {
        let width = self.width;
        if self.has_time {
            self.dim(&time_of_day(line.at_ms), out);
            out.push(b' ');
        }
        let _ = if self.has_colour {
            let colour = match line.app.as_str() {
                BROKER => "90",
                _ => COLOURS[usize::from(line.worker) % COLOURS.len()],
            };
            let bar = if line.is_stderr { "31" } else { colour };
            write!(out, "\x1b[{colour}m{name:width$} \x1b[{bar}m|\x1b[0m ")
        } else {
            write!(out, "{name:width$} | ")
        };
    }
}

/// `web.0`, or `broker`.
fn name(app: &str, worker: u16) -> String {
    match app {
        BROKER => BROKER.to_owned(),
        app => format!("{app}.{worker}"),
    }
}

/// What is said where lines are missing.
pub fn dropped_text(dropped: u64) -> String {
    match dropped {
        1 => "[... 1 line dropped]".to_owned(),
        dropped => format!("[... {dropped} lines dropped]"),
    }
}

/// `13:05:59.123`, UTC.
pub fn time_of_day(at_ms: u64) -> String {
    let (ms, seconds) = (at_ms % 1000, at_ms / 1000);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{ms:03}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(app: &str, worker: u16, text: &[u8]) -> LogLine {
        LogLine {
            at_ms: 86_400_000 + 3_723_004,
            app: app.into(),
            worker,
            pid: 1,
            is_stderr: worker == 1,
            dropped: 0,
            text: text.to_vec(),
        }
    }

    fn shown(style: &mut Style, line: &LogLine) -> String {
        let mut out = Vec::new();
        style.line(line, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_are_aligned_to_the_widest_so_far() {
        let mut style = Style::default();
        assert_eq!(shown(&mut style, &line("web", 0, b"a")), "web.0 | a\n");
        assert_eq!(shown(&mut style, &line("web", 10, b"b")), "web.10 | b\n");
        assert_eq!(shown(&mut style, &line("web", 1, b"c")), "web.1  | c\n");
        assert_eq!(shown(&mut style, &line("broker", 0, b"d")), "broker | d\n");
        let mut out = Vec::new();
        style.note("two\nlines", &mut out);
        assert_eq!(out, b"ganger | two\nganger | lines\n");
    }

    #[test]
    fn what_was_dropped_is_told_and_times_are_shown() {
        let mut style = Style {
            has_time: true,
            ..Style::default()
        };
        let mut one = line("web", 0, b"a");
        one.dropped = 12;
        assert_eq!(
            shown(&mut style, &one),
            "01:02:03.004 web.0 | [... 12 lines dropped]\n01:02:03.004 web.0 | a\n"
        );
    }

    #[test]
    fn colours_end_where_the_line_ends() {
        let mut style = Style {
            has_colour: true,
            ..Style::default()
        };
        let text = shown(&mut style, &line("web", 0, b"\x1b[31mred"));
        assert_eq!(text, "\x1b[36mweb.0 \x1b[36m|\x1b[0m \x1b[31mred\x1b[0m\n");
        let text = shown(&mut style, &line("web", 1, b"plain"));
        assert_eq!(text, "\x1b[33mweb.1 \x1b[31m|\x1b[0m plain\n");
    }
}
