//! `cipherwall keygen`: a key file for static mode.

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
        "The key is in {path}. Copy it to the gateway by a safe way, such as scp. Then start, on the \
         gateway:\n  sudo cipherwall-server static --key FILE --listen 0.0.0.0:1194\nand here:\n  \
         sudo cipherwall static --key {path} --server GATEWAY:1194"
    ))
}
