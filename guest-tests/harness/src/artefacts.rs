//! Directories and logs of a testbed, kept after a failure.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, process};

use crate::error::{Doing, Result};
use crate::interrupt;
use crate::locate::target_dir;
use crate::sync::lock;

/// Limit on a directory of Unix sockets: paths have at most 108 bytes with the terminating NUL (unix(7)), and names
/// need room.
const MAX_SOCKET_DIR: usize = 70;

/// The directories of one testbed.
#[derive(Debug)]
pub(crate) struct Artefacts {
    name: String,
    directory: PathBuf,
    sockets: PathBuf,
    /// Lock on `sockets`, by which other processes distinguish a live directory from a stale one.
    _in_use: File,
    commands: Arc<CommandLog>,
    succeeded: AtomicBool,
    kept: AtomicBool,
}

impl Artefacts {
    /// Creates the directories. Logs in `results`, if given, are kept.
    pub(crate) fn create(name: &str, results: Option<&Path>) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = match COUNT.fetch_add(1, Ordering::Relaxed) {
            0 => process::id().to_string(),
            number => format!("{}.{number}", process::id()),
        };
        let directory = match results {
            Some(results) => results.to_owned(),
            None => {
                let directory = target_dir().join("guest-tests").join(format!("{name}-{unique}"));
                let _ = fs::remove_dir_all(&directory);
                fs::create_dir_all(&directory).doing(|| format!("create {}", directory.display()))?;
                directory
            }
        };

        let scratch = scratch_base();
        remove_left_overs(&scratch);
        let sockets = scratch.join(format!("{SCRATCH_PREFIX}{unique}"));
        let _ = fs::remove_dir_all(&sockets);
        fs::create_dir_all(&sockets).doing(|| format!("create {}", sockets.display()))?;
        // Locked before it gets its final name, under which others try to lock it.
        let lock_file = sockets.join("new");
        let in_use = File::create(&lock_file).doing(|| format!("create {}", lock_file.display()))?;
        in_use.lock().doing(|| format!("lock {}", lock_file.display()))?;
        fs::rename(&lock_file, sockets.join(LOCK_NAME)).doing(|| format!("rename {}", lock_file.display()))?;
        interrupt::remember_directory(sockets.clone());

        let commands = Arc::new(CommandLog::create(&directory.join("commands.log"))?);
        Ok(Self {
            name: name.to_owned(),
            directory,
            sockets,
            _in_use: in_use,
            commands,
            succeeded: AtomicBool::new(false),
            kept: AtomicBool::new(results.is_some()),
        })
    }

    /// Returns the directory of the logs.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the directory of the sockets, whose path is short enough for Unix sockets.
    pub(crate) fn sockets(&self) -> &Path {
        &self.sockets
    }

    pub(crate) fn commands(&self) -> &Arc<CommandLog> {
        &self.commands
    }

    /// Marks the logs as no longer needed.
    pub(crate) fn succeed(&self) {
        self.succeeded.store(true, Ordering::Relaxed);
    }

    /// Keeps the logs without printing where they are.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for Artefacts {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.sockets);
        interrupt::forget_directory(&self.sockets);
        if self.kept.load(Ordering::Relaxed) {
            return;
        }
        let keep = env::var("KEEP_LOGS").is_ok_and(|value| value == "1");
        if self.succeeded.load(Ordering::Relaxed) && !keep {
            let _ = fs::remove_dir_all(&self.directory);
        } else {
            eprintln!("logs of testbed {}: {}", self.name, self.directory.display());
        }
    }
}

const SCRATCH_PREFIX: &str = "guest-tests-";
const LOCK_NAME: &str = "in-use";

fn scratch_base() -> PathBuf {
    let base = env::temp_dir();
    if base.as_os_str().len() + SCRATCH_PREFIX.len() > MAX_SOCKET_DIR {
        PathBuf::from("/tmp")
    } else {
        base
    }
}

/// Removes directories left behind by killed test processes.
fn remove_left_overs(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(SCRATCH_PREFIX));
        if !ours {
            continue;
        }
        let lock_file = File::open(entry.path().join(LOCK_NAME));
        if lock_file.is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Log of all commands run in guests, with their outcomes.
#[derive(Debug)]
pub(crate) struct CommandLog {
    file: Mutex<File>,
    begin: Instant,
}

impl CommandLog {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).doing(|| format!("create {}", path.display()))?;
        Ok(Self {
            file: Mutex::new(file),
            begin: Instant::now(),
        })
    }

    /// Adds an entry: the command or action, its outcome and its output.
    pub(crate) fn add(&self, guest: &str, what: &str, outcome: &str, took: Duration, output: &str) {
        let mut entry = format!(
            "[{:9.3}] {guest}: {what}\n            {outcome} after {:.3} s\n",
            self.begin.elapsed().as_secs_f64(),
            took.as_secs_f64()
        );
        for line in output.lines() {
            entry.push_str("            | ");
            entry.push_str(line);
            entry.push('\n');
        }
        let _ = lock(&self.file).write_all(entry.as_bytes());
    }
}
