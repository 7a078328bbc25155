//! Runs as process 1 of a test guest and does what the harness asks over a virtio-serial port: commands and file transfers, many at a
//! time. `guest-agent --listen PATH` serves a Unix socket instead, for tests on the host.

/// Prints a message, if that can be: where a panic would end process 1, and with it the guest, failing to print must not cause one.
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
                complain!("could not listen on {path}: {error}");
                return ExitCode::FAILURE;
            }
        },
        // The kernel hands parameters it does not know to process 1, so anything else is not for us to refuse.
        _ => Port::wait_for_serial(),
    };
    if process::id() == 1 {
        prepare_guest();
    } else if let Err(error) = set_child_subreaper(Some(Pid::INIT)) {
        complain!("orphans will not be reaped here: {error}");
    }

    let children = Arc::new(Children::default());
    let reaper = Arc::clone(&children);
    thread::spawn(move || reaper.reap_forever());
    Session::new(Arc::new(port), children).serve_forever()
}

/// What process 1 owes the programs it starts.
fn prepare_guest() {
    // Everything the kernel says from here on goes to the console, where the harness looks for splats.
    if let Err(error) = fs::write("/proc/sys/kernel/printk", "8") {
        complain!("the console's log level stays as it is: {error}");
    }
}
