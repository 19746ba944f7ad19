//! `repl`: one verb a line, over one connection, with history and completion.

use crate::arguments::{Arguments, Verb};
use crate::failure::{complain, Failure};
use crate::output::printable;
use crate::session::Session;
use clap::{Args, Command, CommandFactory, Parser};
use ganger_client::{Cursor, Kv};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

/// Lines that are remembered.
const HISTORY: usize = 10_000;
/// Keys that are proposed.
const KEYS_MAX: usize = 100;
/// Pages of a scan that looking for them may take.
const PAGES_MAX: usize = 16;
/// Verbs whose arguments are keys.
const KEY_VERBS: [&str; 9] = [
    "get", "set", "del", "incr", "append", "ttl", "expire", "watch", "update",
];

const EXAMPLES: &str = "\
Examples:
  broker-cli repl
  broker-cli --json repl < commands.txt    # a script: one verb a line

In the repl:
  ganger> set greeting 'hello there'
  ganger> get greeting
  ganger> subscribe 'orders.*'             # Ctrl-C ends it, not the repl
  ganger> help publish";

/// Read verbs line by line, and run them over one connection.
///
/// The lines are as on the command line, without broker-cli in front, with quotes as in a shell.
/// Tab completes verbs, options and keys; the history is kept in $XDG_STATE_HOME/ganger (or
/// ~/.local/state/ganger), lines that begin with a space are not. Ctrl-D or `exit` ends it. If
/// standard input is no terminal, a failed line stops nothing, and the exit code is that of the
/// last failure.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Repl {
    /// Do not read or write the history.
    #[arg(long)]
    no_history: bool,
}

impl Repl {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        if session.is_lasting {
            return Err(Failure::Usage("this is the repl already".into()));
        }
        let is_terminal = io::stdin().is_terminal();
        session.is_lasting = true;
        let base = session.options.to_arguments();
        // Without a region there are no keys to propose; without a broker, the verbs will say so.
        let kv = match is_terminal && !session.options.socket {
            true => session.region().ok().flatten(),
            false => None,
        };
        let mut editor = editor(kv)?;
        let history = history_file().filter(|_| is_terminal && !self.no_history);
        if let Some(path) = &history {
            let _ = editor.load_history(path);
        }
        let mut last = Ok(());
        loop {
            match editor.readline("ganger> ") {
                Ok(line) => {
                    let words = line.trim();
                    if matches!(words, "exit" | "quit") {
                        break;
                    }
                    if words.is_empty() || words.starts_with('#') {
                        continue;
                    }
                    if is_terminal {
                        let _ = editor.add_history_entry(&line);
                    }
                    if let Err(failure) = run_line(words, &base, session) {
                        if matches!(failure, Failure::Unread) {
                            return Err(failure);
                        }
                        failure.say();
                        last = Err(failure);
                    }
                }
                // Ctrl-C gives the line up.
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(Failure::Failed(format!("the terminal: {error}"))),
            }
        }
        if let Some(path) = &history {
            if let Err(error) = editor.append_history(path) {
                complain(&format!("the history was not kept: {error}"));
            }
        }
        match last {
            // What failed was told when it did; said again, it would be new.
            Err(failure) if !is_terminal => Err(Failure::Status(failure.code())),
            _ => Ok(()),
        }
    }
}

/// Runs one line.
fn run_line(line: &str, base: &[OsString], session: &mut Session) -> Result<(), Failure> {
    let words = shlex::split(line);
    let words = words.ok_or_else(|| Failure::Usage("a quote is not closed".into()))?;
    let all = std::iter::once(OsString::from("broker-cli")).chain(base.iter().cloned());
    let all = all.chain(words.into_iter().map(OsString::from));
    let Arguments { options, verb } = match Arguments::try_parse_from(all) {
        Ok(arguments) => arguments,
        Err(error) => {
            return match crate::failure::told(&error) {
                Some(line) => Err(Failure::Usage(line)),
                None => Ok(()),
            };
        }
    };
    if matches!(verb, Verb::ExecBelow(_)) {
        return Err(Failure::Usage("not from here".into()));
    }
    session.choose(options);
    let done = verb.run(session);
    // What a failed verb has written is written all the same.
    match (done, session.out.flush()) {
        (Ok(()), Err(error)) => Err(error.into()),
        (done, _) => done,
    }
}

fn editor(kv: Option<Kv>) -> Result<Editor<Proposals, FileHistory>, Failure> {
    let failed = |error| Failure::Failed(format!("the terminal: {error}"));
    let config = Config::builder()
        .max_history_size(HISTORY)
        .map_err(failed)?
        .history_ignore_dups(true)
        .map_err(failed)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .build();
    let mut editor = Editor::with_config(config).map_err(failed)?;
    let mut command = Arguments::command();
    command.build();
    editor.set_helper(Some(Proposals { command, kv }));
    Ok(editor)
}

/// Where the history is: values may be in it, so nobody else may read it.
fn history_file() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = set("XDG_STATE_HOME").map(PathBuf::from);
    let state =
        state.or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local/state")))?;
    let folder = state.join("ganger");
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(&folder).ok()?;
    let path = folder.join("broker-cli.history");
    let mut options = OpenOptions::new();
    options
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .ok()?;
    Some(path)
}

/// What Tab proposes.
struct Proposals {
    command: Command,
    kv: Option<Kv>,
}

impl Proposals {
    fn all(&self, words: &[&str], word: &str) -> Vec<String> {
        let verb = words.iter().find(|word| !word.starts_with('-'));
        let Some(verb) = verb.and_then(|verb| self.command.find_subcommand(verb)) else {
            let verbs = self
                .command
                .get_subcommands()
                .filter(|verb| !verb.is_hide_set());
            let names = verbs.map(|verb| verb.get_name().to_owned());
            return names.chain(["exit".to_owned()]).collect();
        };
        if word.starts_with('-') {
            let options = verb.get_arguments().filter_map(clap::Arg::get_long);
            return options.map(|name| format!("--{name}")).collect();
        }
        match verb.get_name() {
            "help" => {
                let verbs = self.command.get_subcommands();
                verbs.map(|verb| verb.get_name().to_owned()).collect()
            }
            name if KEY_VERBS.contains(&name) => self.keys(word),
            _ => Vec::new(),
        }
    }

    /// Keys that begin so, and that can be typed without quotes.
    fn keys(&self, prefix: &str) -> Vec<String> {
        let (Some(kv), mut found) = (&self.kv, Vec::new()) else {
            return Vec::new();
        };
        let mut next = Some(Cursor::START);
        for _ in 0..PAGES_MAX {
            let Some(cursor) = next.filter(|_| found.len() < KEYS_MAX) else {
                break;
            };
            let Ok(page) = kv.scan(prefix, cursor, KEYS_MAX) else {
                break;
            };
            next = page.next;
            let keys = page.entries.into_iter().map(|(key, _)| printable(&key));
            let is_plain = |key: &String| {
                let is_plain = |c: char| c.is_alphanumeric() || "_-.:/@%+=,".contains(c);
                key.chars().all(is_plain)
            };
            found.extend(keys.filter(is_plain));
        }
        found.truncate(KEYS_MAX);
        found
    }
}

impl Completer for Proposals {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let before = line.get(..position).unwrap_or(line);
        let start = before.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let (words, word) = before.split_at(start);
        let words: Vec<&str> = words.split_whitespace().collect();
        let mut fitting = self.all(&words, word);
        fitting.retain(|proposal| proposal.starts_with(word));
        fitting.sort_unstable();
        fitting.dedup();
        Ok((start, fitting))
    }
}

impl Hinter for Proposals {
    type Hint = String;
}

impl Highlighter for Proposals {}
impl Validator for Proposals {}
impl Helper for Proposals {}

#[cfg(test)]
mod tests {
    use super::*;
    use ganger_client::Config as RegionConfig;

    #[test]
    fn verbs_options_and_keys_are_proposed() {
        let kv = Kv::create(RegionConfig::new(1 << 20)).unwrap();
        for key in ["user:1", "user:2", "other", "user: spaced"] {
            kv.set(key, "").unwrap();
        }
        let mut command = Arguments::command();
        command.build();
        let proposals = Proposals {
            command,
            kv: Some(kv),
        };
        let history = FileHistory::new();
        let complete = |line: &str| {
            let context = Context::new(&history);
            proposals.complete(line, line.len(), &context).unwrap()
        };
        assert_eq!(complete("ge"), (0, vec!["get".to_owned()]));
        assert_eq!(complete("get user:").1, ["user:1", "user:2"]);
        assert_eq!(complete("--json get oth"), (11, vec!["other".to_owned()]));
        let options = complete("set k --if-").1;
        assert_eq!(options, ["--if-absent", "--if-present", "--if-revision"]);
        assert!(complete("publish x").1.is_empty());
    }
}
