//! Shares the host's processors among all test processes.
//!
//! There is one token per processor, and a guest takes one token. A token is a file in the target directory, held by a
//! lock on that file (flock(2)), so a test that dies releases its tokens.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::{Doing, Error, Result};

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Held tokens; dropping releases them.
#[derive(Debug)]
pub struct Budget {
    held: Vec<File>,
}

impl Budget {
    /// Takes `wanted` of the `total` tokens in `directory`, or all of them if there are fewer: a testbed with more
    /// guests than the host has processors runs alone.
    pub fn acquire(directory: &Path, total: usize, wanted: usize, timeout: Duration) -> Result<Self> {
        fs::create_dir_all(directory).doing(|| format!("create {}", directory.display()))?;
        let deadline = Deadline::after(timeout);
        // One process at a time: otherwise two could wait forever, each holding part of what the other needs.
        let gate = directory.join("gate");
        let _gate = take_any(&[gate], deadline, "its turn to take processor tokens")?;

        let mut free: Vec<PathBuf> = (0..total)
            .map(|number| directory.join(format!("token-{number}")))
            .collect();
        let mut held = Vec::new();
        let what = "other testbeds to release processor tokens";
        while held.len() < wanted.min(total) {
            let (index, file) = take_any(&free, deadline, what)?;
            free.swap_remove(index);
            held.push(file);
        }
        Ok(Self { held })
    }

    /// Returns the number of tokens held.
    pub fn tokens(&self) -> usize {
        self.held.len()
    }
}

/// Locks the first free one of `paths`, waiting if necessary.
fn take_any(paths: &[PathBuf], deadline: Deadline, what: &str) -> Result<(usize, File)> {
    loop {
        for (index, path) in paths.iter().enumerate() {
            let file = File::options()
                .create(true)
                .append(true)
                .open(path)
                .doing(|| format!("open {}", path.display()))?;
            match file.try_lock() {
                Ok(()) => return Ok((index, file)),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => {
                    return Err(Error::Io {
                        doing: format!("lock {}", path.display()),
                        source,
                    });
                }
            }
        }
        if deadline.left().is_none() {
            return Err(deadline.missed(what));
        }
        thread::sleep(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SOON: Duration = Duration::from_millis(60);
    const LATE: Duration = Duration::from_secs(20);

    fn directory(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("guest-tests-budget-{name}-{}", std::process::id()))
    }

    #[test]
    fn no_more_tokens_are_out_than_there_are() {
        let dir = directory("total");
        let two = Budget::acquire(&dir, 3, 2, SOON).unwrap();
        let one = Budget::acquire(&dir, 3, 1, SOON).unwrap();
        let error = Budget::acquire(&dir, 3, 1, SOON).unwrap_err();
        assert!(error.to_string().contains("processor tokens"), "{error}");
        drop(one);
        assert!(Budget::acquire(&dir, 3, 2, SOON).is_err());
        drop(two);
        assert_eq!(Budget::acquire(&dir, 3, 3, SOON).unwrap().tokens(), 3);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_bed_larger_than_the_host_takes_everything() {
        let dir = directory("large");
        let all = Budget::acquire(&dir, 2, 5, SOON).unwrap();
        assert_eq!(all.tokens(), 2);
        assert!(Budget::acquire(&dir, 2, 1, SOON).is_err());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn contenders_never_deadlock_and_never_exceed_the_total() {
        let dir = directory("contenders");
        let running = AtomicUsize::new(0);
        thread::scope(|scope| {
            for wanted in [1, 2, 3, 2, 3, 1, 4, 2] {
                let (dir, running) = (&dir, &running);
                scope.spawn(move || {
                    let budget = Budget::acquire(dir, 3, wanted, LATE).unwrap();
                    let now = running.fetch_add(budget.tokens(), Ordering::SeqCst);
                    assert!(now + budget.tokens() <= 3);
                    thread::sleep(Duration::from_millis(10));
                    running.fetch_sub(budget.tokens(), Ordering::SeqCst);
                });
            }
        });
        fs::remove_dir_all(dir).unwrap();
    }
}
