//! A guest's console: a log file written by QEMU or by the User Mode Linux kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::Result;
use crate::process::tail;
use crate::splat::find_splats;

const TAIL_LINES: usize = 25;
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Console output of a guest since the start of the testbed, across reboots.
#[derive(Debug, Clone)]
pub struct Console {
    path: PathBuf,
}

impl Console {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Returns the path of the log file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns all output so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.path).unwrap_or_default()).into_owned()
    }

    /// Returns the last `lines` lines.
    pub fn tail(&self, lines: usize) -> String {
        tail(&self.path, lines)
    }

    /// Waits until `text` appears on the console.
    pub fn wait_for(&self, text: &str, timeout: Duration) -> Result<()> {
        let deadline = Deadline::after(timeout);
        while !self.text().contains(text) {
            if deadline.left().is_none() {
                let tail = self.tail(TAIL_LINES);
                return Err(deadline.missed(format!("\"{text}\" on the console, which ends with\n{tail}")));
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Returns the kernel splats, except those that contain one of `allowed`.
    pub fn splats(&self, allowed: &[String]) -> Vec<String> {
        find_splats(&self.text(), allowed)
    }
}
