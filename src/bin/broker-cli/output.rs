//! What goes out: values, lines, JSON.

use crate::arguments::{Color, Options};
use crate::failure::Failure;
use crate::json::{self, Object};
use serde_json::Value as Json;
use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

/// Standard output, and how to write there.
pub(crate) struct Output {
    to: BufWriter<Stdout>,
    is_terminal: bool,
    pub(crate) json: bool,
    raw: bool,
    msgpack: bool,
    color: bool,
}

impl Output {
    pub(crate) fn new(options: &Options) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            to: BufWriter::with_capacity(64 << 10, io::stdout()),
            is_terminal,
            json: options.json,
            raw: options.raw,
            msgpack: options.msgpack,
            color: match options.color {
                Color::Always => true,
                Color::Never => false,
                Color::Auto => is_terminal && !no_color,
            },
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// The value of one key and nothing else: exactly its bytes, unless somebody looks at them.
    pub(crate) fn value(&mut self, value: &[u8], is_counter: bool) -> Result<(), Failure> {
        if self.raw || !self.is_terminal && !is_counter && !self.msgpack {
            return Ok(self.to.write_all(value)?);
        }
        let shown = self.shown(value, is_counter)?;
        self.line(&shown)
    }

    /// A payload and nothing else, one of many: a line, or in raw form exactly its bytes.
    pub(crate) fn payload(&mut self, payload: &[u8]) -> Result<(), Failure> {
        if self.raw {
            return self.bytes(payload);
        }
        let shown = self.shown(payload, false)?;
        self.line(&shown)
    }

    /// A line of text.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.to, "{text}")?)
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.to.write_all(bytes)?)
    }

    /// A number and the end of its line; in JSON, as the field of this name.
    pub(crate) fn number<N: Into<Json> + ToString>(
        &mut self,
        name: &str,
        number: N,
    ) -> Result<(), Failure> {
        match self.json {
            true => self.object(Object::new().field(name, number)),
            false => self.line(&number.to_string()),
        }
    }

    pub(crate) fn object(&mut self, object: Object) -> Result<(), Failure> {
        self.line(&object.build().to_string())
    }

    /// A value beside other things on a line: in raw form as it is.
    pub(crate) fn shown_bytes(&self, value: &[u8], is_counter: bool) -> Result<Vec<u8>, Failure> {
        match self.raw {
            true => Ok(value.to_vec()),
            false => Ok(self.shown(value, is_counter)?.into_bytes()),
        }
    }

    /// Adds a value to an object: numbers of counters and what is in MessagePack as such.
    pub(crate) fn value_field(
        &self,
        object: Object,
        name: &str,
        value: &[u8],
        is_counter: bool,
    ) -> Result<Object, Failure> {
        Ok(match counter(value, is_counter) {
            Some(number) => object.field(name, number),
            None if self.msgpack => object.field(name, json::of_msgpack(value)?),
            None => object.bytes(name, value),
        })
    }

    /// What was written gets out now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// Text in bold, for heads of tables.
    pub(crate) fn bold(&self, text: &str) -> String {
        self.styled("1", text)
    }

    /// Text that does not matter so much.
    pub(crate) fn dim(&self, text: &str) -> String {
        self.styled("2", text)
    }

    /// Text that somebody should see: messages that were lost.
    pub(crate) fn warning(&self, text: &str) -> String {
        self.styled("33", text)
    }

    fn styled(&self, code: &str, text: &str) -> String {
        match self.color {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn shown(&self, value: &[u8], is_counter: bool) -> Result<String, Failure> {
        Ok(match counter(value, is_counter) {
            Some(number) => number.to_string(),
            None if self.msgpack => json::of_msgpack(value)?.to_string(),
            None => printable(value),
        })
    }
}

/// The number of a counter.
fn counter(value: &[u8], is_counter: bool) -> Option<i64> {
    let bytes = value.try_into().ok().filter(|_| is_counter)?;
    Some(i64::from_le_bytes(bytes))
}

/// Bytes as one line that no terminal takes for a command: text as it is, all else with escapes.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                character if character.is_control() => {
                    for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                        escape(byte, &mut text);
                    }
                }
                character => text.push(character),
            }
        }
        for &byte in chunk.invalid() {
            escape(byte, &mut text);
        }
    }
    text
}

fn escape(byte: u8, text: &mut String) {
    // Writing to a string can't fail.
    let _ = write!(text, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_one_line_without_commands_for_terminals() {
        assert_eq!(
            printable("gr\u{fc}n\n\u{1b}[2J\u{9b}\0\\".as_bytes()),
            "gr\u{fc}n\\n\\x1b[2J\\xc2\\x9b\\x00\\\\"
        );
        assert_eq!(printable(b"\xff\xc3"), "\\xff\\xc3");
    }
}
