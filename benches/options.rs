//! The command line that the benchmarks share.

use crate::report::Report;
use std::process::ExitCode;

/// What is measured, and where it is told.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Less is measured, and shorter.
    pub(crate) is_quick: bool,
    only: Option<String>,
    json: Option<String>,
    markdown: bool,
}

impl Options {
    /// Reads them. `own` gets the words that are not for all benchmarks, and takes what follows if it
    /// knows them. An error is the exit code where nothing is to be measured.
    pub(crate) fn read(
        bench: &str,
        own: impl FnMut(&str, &mut dyn Iterator<Item = String>) -> Result<bool, String>,
    ) -> Result<Self, ExitCode> {
        let words = std::env::args().skip(1);
        // `cargo bench` passes an argument, `cargo test --all-targets` does not: that is no time to
        // measure.
        if words.len() == 0 {
            println!("nothing measured; run: cargo bench --bench {bench}");
            return Err(ExitCode::SUCCESS);
        }
        Self::parse(words, own).map_err(|error| {
            eprintln!("{error}; the options stand in benches/{bench}/main.rs");
            ExitCode::from(2)
        })
    }

    fn parse(
        mut words: impl Iterator<Item = String>,
        mut own: impl FnMut(&str, &mut dyn Iterator<Item = String>) -> Result<bool, String>,
    ) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                // What cargo passes to every benchmark.
                "--bench" => {}
                "--quick" => options.is_quick = true,
                "--only" => options.only = Some(words.next().ok_or("--only needs a name")?),
                "--json" => options.json = Some(words.next().ok_or("--json needs a file")?),
                "--markdown" => options.markdown = true,
                other if own(other, &mut words)? => {}
                other => return Err(format!("what is {other}?")),
            }
        }
        Ok(options)
    }

    /// Whether what has this name is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }

    /// Tells what was found out.
    pub(crate) fn tell(&self, report: &Report) -> ExitCode {
        report.print(self.markdown);
        if let Some(path) = &self.json {
            if let Err(error) = report.write_json(path) {
                eprintln!("{path}: {error}");
                return ExitCode::FAILURE;
            }
        }
        ExitCode::SUCCESS
    }
}
