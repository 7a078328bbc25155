//! Devices under test.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::daemon::Daemon;
use crate::error::Result;

/// A kind of device that every guest of a bed gets one of, with the daemon behind it if there is one.
pub trait Device: fmt::Debug + Send + Sync {
    /// What it is called in messages and file names.
    fn name(&self) -> &str;

    /// Starts what has to run before the guests do.
    fn start(&self, place: &Place) -> Result<Option<Daemon>> {
        let _ = place;
        Ok(None)
    }

    /// QEMU's arguments for one guest.
    fn qemu_args(&self, guest: usize, place: &Place) -> Vec<String>;

    /// The vhost-user socket of a PCI function, for one User Mode Linux guest.
    fn uml_pci(&self, guest: usize, place: &Place) -> Option<PathBuf> {
        let _ = (guest, place);
        None
    }
}

/// Where a device can put things.
#[derive(Debug, Clone)]
pub struct Place {
    pub(crate) guests: usize,
    pub(crate) uml_guests: usize,
    pub(crate) logs: PathBuf,
    pub(crate) sockets: PathBuf,
}

impl Place {
    /// How many guests the bed has.
    pub fn guests(&self) -> usize {
        self.guests
    }

    /// Whether a guest is a User Mode Linux guest; these come after the others.
    pub fn is_uml(&self, guest: usize) -> bool {
        guest + self.uml_guests >= self.guests
    }

    /// Directory for logs; kept when a test fails.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Directory for sockets, with a short path; removed with the bed.
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }
}
