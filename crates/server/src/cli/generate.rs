//! Shell completions and manual pages, made from the same definitions as `--help`.

use std::path::PathBuf;

use anyhow::Context;
use cipherwall_cli::print;
use clap::CommandFactory;

use super::Cli;

/// Print a shell's completions for this program
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub(super) enum Shell {
    /// For /usr/share/bash-completion/completions/cipherwall-server
    Bash,
    /// For a directory of fpath, as _cipherwall-server
    Zsh,
    /// For ~/.config/fish/completions/cipherwall-server.fish
    Fish,
}

/// Write the manual pages into a directory
#[derive(Debug, clap::Args)]
pub(super) struct ManOptions {
    /// An existing directory
    dir: PathBuf,
}

pub(super) fn completions(shell: Shell) -> anyhow::Result<()> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cipherwall-server", &mut script);
    print(String::from_utf8(script)?.trim_end())
}

pub(super) fn man(options: &ManOptions) -> anyhow::Result<()> {
    clap_mangen::generate_to(Cli::command(), &options.dir)
        .with_context(|| format!("cannot write manual pages to {}", options.dir.display()))
}
