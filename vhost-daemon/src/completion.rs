//! Completions of a program's command line.

use std::io::{self, Write};

use clap::CommandFactory;

pub use clap_complete::Shell;

/// Prints the completions of a program for a shell.
pub fn print_completion<C: CommandFactory>(shell: Shell) -> io::Result<()> {
    let mut command = C::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    io::stdout().write_all(&script)
}
