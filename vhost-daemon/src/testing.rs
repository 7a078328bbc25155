//! Harness for tests of the daemons' binaries, and assertions that several of them use.

mod catalogue;
mod confinement;
mod control_page;
mod daemon;
pub mod json;
mod manual;
mod open_metrics;
mod possessions;
mod service;
mod stalled_log;
mod terminal;

use std::thread;
use std::time::{Duration, Instant};

pub use catalogue::assert_catalogue;
pub use confinement::assert_confined;
pub use control_page::assert_control_page;
pub use daemon::{Daemon, Program, await_socket, is_empty, read_stats};
pub use manual::assert_up_to_date;
pub use open_metrics::{http, read_metrics};
pub use possessions::Possessions;
pub use service::assert_notifies;
pub use stalled_log::assert_needs_no_reader;
pub use terminal::{Terminal, assert_top};

use crate::trace::EventInfo;

/// Asserts that a page has a table row for every event: name, object, arguments.
///
/// # Panics
///
/// Panics if a row is missing.
#[track_caller]
pub fn assert_events_documented(page: &str, events: &[EventInfo]) {
    for event in events {
        let cells = [
            format!("`{}`", event.name),
            event.object.to_owned(),
            event.arguments.join(", "),
        ];
        let row = format!("| {} |", cells.join(" | ")).replace("|  |", "| |");
        assert!(page.lines().any(|line| line == row), "no {row:?}");
    }
}

/// Time after which something counts as never happening; long, for busy machines.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until a condition holds.
///
/// # Panics
///
/// Panics if the condition does not hold within [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}
