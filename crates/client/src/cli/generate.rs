//! Shell completions and manual pages, made from the same definitions as `--help`.

use std::path::PathBuf;

use anyhow::Context;
use cipherwall_cli::print;
use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;

/// Print a shell's completions for this program
#[derive(Debug, clap::Args)]
pub(super) struct CompletionOptions {
    /// The shell
    shell: Shell,
}

/// Write the manual pages into a directory
#[derive(Debug, clap::Args)]
pub(super) struct ManOptions {
    /// An existing directory
    dir: PathBuf,
}

pub(super) fn completions(options: &CompletionOptions) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "cipherwall", &mut script);
    print(String::from_utf8(script)?.trim_end())
}

pub(super) fn man(options: &ManOptions) -> anyhow::Result<()> {
    clap_mangen::generate_to(Cli::command(), &options.dir)
        .with_context(|| format!("cannot write manual pages to {}", options.dir.display()))
}
