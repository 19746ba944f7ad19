//! Standard output of a verb: colours only on a terminal, tables that fit it, and a reader that goes
//! away is no error.

use crate::logs::wants_colour;
use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

/// Columns of a terminal that doesn't say.
const COLUMNS: usize = 80;

/// What a word means, and so its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Busy,
    Bad,
    Dim,
    Bold,
}

/// Standard output.
pub(crate) struct Out {
    stdout: BufWriter<Stdout>,
    has_colour: bool,
    width: Option<usize>,
}

impl Out {
    pub(crate) fn new() -> Self {
        let stdout = io::stdout();
        let environment = |name: &str| std::env::var_os(name);
        Self {
            has_colour: wants_colour(environment, stdout.is_terminal()),
            width: stdout.is_terminal().then(|| columns(&stdout)),
            stdout: BufWriter::new(stdout),
        }
    }

    /// Columns, if it is a terminal.
    pub(crate) fn width(&self) -> Option<usize> {
        self.width
    }

    pub(crate) fn has_colour(&self) -> bool {
        self.has_colour
    }

    /// `text` in its colour.
    pub(crate) fn paint(&self, tone: Tone, text: impl Display) -> String {
        paint(self.has_colour, tone, text)
    }

    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.stdout, "{text}")
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stdout.write_all(bytes)
    }

    /// As one document, for scripts.
    pub(crate) fn json<T: serde::Serialize>(&mut self, value: &T) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.stdout, value)?;
        self.stdout.write_all(b"\n")
    }

    /// As one line, for scripts.
    pub(crate) fn json_line<T: serde::Serialize>(&mut self, value: &T) -> io::Result<()> {
        serde_json::to_writer(&mut self.stdout, value)?;
        self.stdout.write_all(b"\n")
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

/// `text` in its colour, or as it is.
pub(crate) fn paint(has_colour: bool, tone: Tone, text: impl Display) -> String {
    let code = match tone {
        Tone::Plain => "",
        Tone::Good => "32",
        Tone::Busy => "33",
        Tone::Bad => "31",
        Tone::Dim => "2",
        Tone::Bold => "1",
    };
    if !has_colour || code.is_empty() {
        return text.to_string();
    }
    format!("\x1b[{code}m{text}\x1b[0m")
}

fn columns(stdout: &Stdout) -> usize {
    match rustix::termios::tcgetwinsize(stdout) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => COLUMNS,
    }
}
