//! The format of a fabric's records, and the configuration in them.

use serde::{Deserialize, Serialize};
use vhost_daemon::record::Format;

use super::event::Event;
use crate::fabric::{Layout, Limits, Mode};

/// Format of the records of a fabric.
#[derive(Debug, Clone, Copy)]
pub enum IsmRecord {}

impl Format for IsmRecord {
    const MAGIC: [u8; 8] = *b"ISMTAPE\n";
    const VERSION: u32 = 1;
    const DEVICE: &'static str = "an ISM fabric";
    type Setup = Setup;
    type Event = Event;
}

/// Configuration of a recorded fabric, as far as a guest can see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Names of the guests, by number.
    pub guests: Vec<String>,
    /// Program and version that made the record.
    pub program: String,
    /// SMC fabric id.
    pub chid: u16,
    /// Way of the data.
    #[serde(default)]
    pub mode: Mode,
    /// Length of a guest's window in bytes.
    pub window_size: u64,
    /// Maximum length of a DMB in bytes.
    pub max_dmb_size: u64,
    /// Maximum length of an area of a DMB from ALLOC in bytes.
    #[serde(default = "unlimited")]
    pub max_area_size: u64,
    /// Layout of the shared memory.
    #[serde(default)]
    pub layout: Layout,
    /// Maximum number of DMBs that a guest owns and attaches together.
    pub max_dmbs: u32,
    /// Maximum number of slabs in a guest's window.
    pub max_maps: u32,
}

/// Of records from before DMBs could be lists of areas.
fn unlimited() -> u64 {
    u64::MAX
}

impl Setup {
    /// Describes a fabric and its guests.
    pub fn new(chid: u16, limits: &Limits, guests: Vec<String>) -> Self {
        Self {
            guests,
            program: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
            chid,
            mode: limits.mode,
            window_size: limits.window_size,
            max_dmb_size: limits.max_dmb_size,
            max_area_size: limits.max_area_size,
            layout: limits.layout,
            max_dmbs: limits.max_dmbs,
            max_maps: limits.max_maps,
        }
    }

    /// Returns the limits of every guest.
    pub fn limits(&self) -> Limits {
        Limits {
            mode: self.mode,
            window_size: self.window_size,
            max_dmb_size: self.max_dmb_size,
            max_area_size: self.max_area_size,
            layout: self.layout,
            max_dmbs: self.max_dmbs,
            max_maps: self.max_maps,
        }
    }
}
