//! Interactive shells in the guests, on this terminal.

use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{iter, thread};

use anyhow::{Context, Result};
use guest_harness::{Guest, NIC, Testbed};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// Runs the shell on a terminal in the guest, as job control, line editing and colours need one.
const PTY: &str = "exec python3 -c 'import pty; pty.spawn([\"/bin/bash\", \"-i\"])'";

const TICK: Duration = Duration::from_millis(100);

/// Prompts for a guest and runs a shell in it, until the user quits.
pub fn run(testbed: &Testbed) -> Result<()> {
    let names: Vec<&str> = testbed.guests().iter().map(Guest::name).collect();
    println!(
        "\nThe guests stay up. Try `/host/smc-tool linkgroups`, or, with a NIC, `ibv_devinfo` and `ethtool -S {NIC}`."
    );
    loop {
        print!("guest ({}), or q to end: ", names.join(", "));
        io::stdout().flush()?;
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            println!();
            return Ok(());
        }
        match line.trim() {
            "q" | "quit" | "exit" => return Ok(()),
            name => match testbed.guests().iter().find(|guest| guest.name() == name) {
                Some(guest) => shell(guest)?,
                None => println!("There is no guest {name:?}."),
            },
        }
    }
}

/// Restores the terminal when dropped.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn new() -> Result<Self> {
        let stdin = io::stdin();
        if !isatty(&stdin) {
            return Ok(Self(None));
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing can be done about a failure.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

fn shell(guest: &Guest) -> Result<()> {
    println!("A shell in guest {}; leave it with exit or Ctrl-D.", guest.name());
    let environment = [
        ("TERM", std::env::var("TERM").unwrap_or_else(|_| "dumb".into())),
        ("HOME", "/root".into()),
    ];
    let command = environment
        .into_iter()
        .fold(guest.shell(PTY), |command, (name, value)| command.env(name, value));
    let job = command.stdin("").spawn()?;
    let terminal = RawTerminal::new()?;
    let over = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            let mut bytes = [0; 1024];
            while !over.load(Ordering::Relaxed) {
                match read_stdin(&mut bytes) {
                    Ok(None) => {}
                    Ok(Some(0)) | Err(_) => return job.close_stdin(),
                    Ok(Some(count)) => drop(job.write(&bytes[..count])),
                }
            }
        });
        let printed =
            iter::from_fn(|| job.read_output(Duration::from_secs(24 * 3600)).transpose()).try_for_each(|output| {
                let mut stdout = io::stdout();
                stdout.write_all(&output?)?;
                anyhow::Ok(stdout.flush()?)
            });
        over.store(true, Ordering::Relaxed);
        printed
    });
    drop(terminal);
    println!();
    result.context("the shell was lost")
}

/// Reads standard input; `None` if nothing is typed within one tick.
fn read_stdin(bytes: &mut [u8]) -> io::Result<Option<usize>> {
    let stdin = io::stdin();
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: TICK.subsec_nanos().into(),
    };
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    if poll(&mut fds, Some(&timeout))? == 0 {
        return Ok(None);
    }
    // Bypasses the buffer of `Stdin`, which would swallow input meant for the next prompt.
    Ok(Some(rustix::io::read(&stdin, bytes)?))
}
