//! Runs as process 1 of a test guest and serves the harness over a virtio-serial port: concurrent commands and file
//! transfers. `guest-agent --listen PATH` serves a Unix socket instead, for tests on the host.

#![forbid(unsafe_code)]

/// Prints a message and ignores errors: a panic would end process 1, and with it the guest.
macro_rules! complain {
    ($($message:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "guest-agent: {}", format_args!($($message)*));
    }};
}

mod channel;
mod job;
mod port;
mod reaper;
mod session;
mod transfer;

use std::process::ExitCode;
use std::sync::Arc;
use std::{env, fs, process, thread};

use rustix::process::{Pid, set_child_subreaper};

use crate::port::Port;
use crate::reaper::Children;
use crate::session::Session;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let port = match arguments.as_slice() {
        [flag, path] if flag == "--listen" => match Port::listen(path) {
            Ok(port) => port,
            Err(error) => {
                complain!("cannot listen on {path}: {error}");
                return ExitCode::FAILURE;
            }
        },
        // The kernel passes unknown parameters to process 1, so other arguments must be accepted.
        _ => Port::wait_for_serial(),
    };
    if process::id() == 1 {
        prepare_guest();
    } else if let Err(error) = set_child_subreaper(Some(Pid::INIT)) {
        complain!("cannot become subreaper, orphans will not be reaped: {error}");
    }

    let children = Arc::new(Children::default());
    let reaper = Arc::clone(&children);
    thread::spawn(move || reaper.reap_forever());
    Session::new(Arc::new(port), children).serve_forever()
}

/// Sets up the guest for the programs that process 1 starts.
fn prepare_guest() {
    // All kernel messages go to the console, where the harness looks for splats.
    if let Err(error) = fs::write("/proc/sys/kernel/printk", "8") {
        complain!("cannot set the console's log level: {error}");
    }
}
