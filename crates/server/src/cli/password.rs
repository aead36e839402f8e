//! Passwords and confirmations from whoever runs a command.

use std::io::{BufRead, BufReader, IsTerminal, Read};

use anyhow::Context;
use cipherwall_cli::{Failure, print_error};
use zeroize::Zeroizing;

/// No password is longer, in bytes.
const PASSWORD_MAX: u64 = 4096;

/// The first line of standard input, without its line feed.
pub(super) fn from_stdin() -> anyhow::Result<Zeroizing<String>> {
    read(&mut std::io::stdin().lock())
}

/// Asks for a new password twice, on the terminal.
pub(super) fn from_terminal(user: &str) -> anyhow::Result<Zeroizing<String>> {
    if !std::io::stdin().is_terminal() {
        let why = "there is no terminal to ask for the password: give it with --password-stdin";
        return Err(Failure::usage(why).into());
    }
    let ask = |prompt: String| {
        let typed = rpassword::prompt_password(prompt);
        typed.map(Zeroizing::new).context("cannot read the password from the terminal")
    };
    let password = ask(format!("New password of {user}: "))?;
    if password.is_empty() {
        return Err(Failure::usage("the password is empty").into());
    }
    if ask("The same again: ".to_owned())? != password {
        return Err(Failure::usage("the two are not the same; nothing was changed").into());
    }
    Ok(password)
}

/// Asks on the terminal whether to go on. Without a terminal there is nobody to ask: then only
/// `yes`, an option of the command line, will do.
pub(super) fn confirmed(question: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(
            Failure::usage("there is no terminal to ask for confirmation: add --yes").into()
        );
    }
    print_error(format_args!("{question} [y/N]"));
    let mut answer = String::new();
    let mut input = BufReader::new(std::io::stdin()).take(16);
    input.read_line(&mut answer).context("cannot read the answer")?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::failed("nothing was changed").into()),
    }
}

fn read(input: &mut impl BufRead) -> anyhow::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::with_capacity(256));
    input
        .take(PASSWORD_MAX)
        .read_line(&mut line)
        .context("cannot read the password from standard input")?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    if line.is_empty() {
        return Err(Failure::usage("the password on standard input is empty").into());
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_first_line_as_it_stands() {
        for (input, password) in
            [("secret", "secret"), ("secret\r\nmore\n", "secret"), (" two words \n", " two words ")]
        {
            assert_eq!(*read(&mut input.as_bytes()).unwrap(), password);
        }
        assert!(read(&mut "\n".as_bytes()).is_err());
    }
}
