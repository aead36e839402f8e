//! Developer commands, called as `cargo xtask COMMAND`: one file per command.
#![allow(clippy::print_stdout, reason = "the terminal is what these commands are for")]

mod bench;
mod demo;
mod packages;
mod shell;
mod soak;
mod test;

use std::process::ExitCode;

use clap::Parser;

/// Developer commands of CipherWall.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Shows the product at work in a laboratory of network namespaces (needs root)
    Demo(demo::Options),
    /// Runs every check: format, lints, documentation, dependencies, all tests (needs root)
    Test(test::Options),
    /// Measures CipherWall beside the direct path and other VPNs; writes docs/benchmarks.md (needs
    /// root)
    Bench(bench::Options),
    /// Runs end-to-end tests at full sizes and durations; writes docs/soak.md (needs root)
    Soak(soak::Options),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run_command(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Soak(options) => soak::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
