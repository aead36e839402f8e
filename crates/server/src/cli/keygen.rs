//! `cipherwall-server keygen`: a key file for static mode.

use std::path::PathBuf;

use cipherwall_cli::print;
use cipherwall_static_mode::create_key_file;

use super::failure::coded;

/// Make a key file for static mode
///
/// 128 hexadecimal digits and a newline, readable for its owner only. Both sides need the same
/// file; whoever has it can read and write all traffic.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Where to write the key
    #[arg(value_name = "FILE")]
    path: PathBuf,

    /// Replace a key file that is there
    #[arg(long)]
    force: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    create_key_file(&options.path, options.force).map_err(coded)?;
    let path = std::path::absolute(&options.path)?;
    let path = path.display();
    print(format_args!(
        "The key is in {path}. Copy it to the client by a safe way, such as scp. Then start, here:\n  \
         sudo cipherwall-server static --key {path} --listen 0.0.0.0:1194\nand on the client:\n  \
         sudo cipherwall static --key FILE --server THIS-MACHINE:1194"
    ))
}
