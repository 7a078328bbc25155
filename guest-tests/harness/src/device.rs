//! Devices under test.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::daemon::Daemon;
use crate::error::Result;

/// A kind of device, of which every guest of a testbed gets one, with the daemon that serves it, if any.
pub trait Device: fmt::Debug + Send + Sync {
    /// Returns the name in messages and file names.
    fn name(&self) -> &str;

    /// Starts the daemon; called before any guest starts.
    fn start(&self, place: &Place) -> Result<Option<Daemon>> {
        let _ = place;
        Ok(None)
    }

    /// Returns the QEMU arguments of one guest.
    fn qemu_args(&self, guest: usize, place: &Place) -> Vec<String>;

    /// Returns the vhost-user socket of the PCI function of a User Mode Linux guest, if the device supports it.
    fn uml_pci(&self, guest: usize, place: &Place) -> Option<PathBuf> {
        let _ = (guest, place);
        None
    }
}

/// The testbed from the view of a device: its guests and directories.
#[derive(Debug, Clone)]
pub struct Place {
    pub(crate) guests: usize,
    pub(crate) uml_guests: usize,
    pub(crate) logs: PathBuf,
    pub(crate) sockets: PathBuf,
}

impl Place {
    /// Returns the number of guests of the testbed.
    pub fn guests(&self) -> usize {
        self.guests
    }

    /// Returns whether a guest is a User Mode Linux guest; these have the highest numbers.
    pub fn is_uml(&self, guest: usize) -> bool {
        guest + self.uml_guests >= self.guests
    }

    /// Returns the directory for logs; kept if a test fails.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Returns the directory for sockets, with a short path; removed with the testbed.
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }
}
