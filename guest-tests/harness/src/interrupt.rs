//! Cleanup when the test process is interrupted.
//!
//! Child processes die with this process anyway, see [`crate::process`]. Directories do not: SIGINT, SIGTERM and SIGHUP
//! are caught, everything is removed, and then the signal takes its default action. After SIGKILL, the next testbed
//! removes the remains.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex, Once, Weak};
use std::{fs, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::sync::lock;

static CHILDREN: Mutex<Vec<Weak<Mutex<Child>>>> = Mutex::new(Vec::new());
static DIRECTORIES: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
static HANDLER: Once = Once::new();

/// Registers `child` to be killed on an interrupt.
pub(crate) fn remember_child(child: &Arc<Mutex<Child>>) {
    install_handler();
    let mut children = lock(&CHILDREN);
    children.retain(|child| child.strong_count() > 0);
    children.push(Arc::downgrade(child));
}

/// Registers `directory` to be removed on an interrupt.
pub(crate) fn remember_directory(directory: PathBuf) {
    install_handler();
    lock(&DIRECTORIES).get_or_insert_default().insert(directory);
}

/// Reverts [`remember_directory`].
pub(crate) fn forget_directory(directory: &PathBuf) {
    if let Some(directories) = lock(&DIRECTORIES).as_mut() {
        directories.remove(directory);
    }
}

fn install_handler() {
    HANDLER.call_once(|| match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(mut signals) => {
            thread::spawn(move || {
                for signal in signals.forever() {
                    clean_up();
                    let _ = emulate_default_handler(signal);
                }
            });
        }
        Err(error) => eprintln!("cannot catch signals, an interrupt will leave directories behind: {error}"),
    });
}

fn clean_up() {
    for child in lock(&CHILDREN).iter().filter_map(Weak::upgrade) {
        let mut child = lock(&child);
        let _ = child.kill();
        let _ = child.wait();
    }
    for directory in lock(&DIRECTORIES).take().into_iter().flatten() {
        let _ = fs::remove_dir_all(directory);
    }
}
