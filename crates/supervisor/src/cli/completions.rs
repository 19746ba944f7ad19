//! `ganger completions`: what the shell offers.

use super::Failure;
use clap::Args;
use clap_complete::Shell;
use std::io::Write;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ganger completions bash > ~/.local/share/bash-completion/completions/ganger
  ganger completions zsh > ~/.zfunc/_ganger
  ganger completions fish > ~/.config/fish/completions/ganger.fish")]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs, command: clap::Command) -> Result<(), Failure> {
    // What is hidden is not to be offered either.
    let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    let mut command = clap::Command::new("ganger")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommands(shown.cloned());
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "ganger", &mut text);
    Ok(std::io::stdout().lock().write_all(&text)?)
}
