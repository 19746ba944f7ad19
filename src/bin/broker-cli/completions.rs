//! `completions`: so that shells complete our verbs and options.

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::session::Session;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  broker-cli completions bash > ~/.local/share/bash-completion/completions/broker-cli
  broker-cli completions zsh > \"${fpath[1]}/_broker-cli\"
  broker-cli completions fish > ~/.config/fish/completions/broker-cli.fish";

/// Write a script that makes a shell complete verbs and options.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Completions {
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let mut script = Vec::new();
        let mut command = Arguments::command();
        clap_complete::generate(self.shell, &mut command, "broker-cli", &mut script);
        session.out.bytes(&script)
    }
}
