//! The function an attachment drives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::bus_master::BusMaster;
use super::config::ConfigSpace;
use super::config_layout::{CONFIG_SPACE_SIZE, Layout, MSIX_PBA, MSIX_TABLE};
use super::identity::Identity;
use super::msix::{InterruptLines, Masking, Msix};
use super::stats::{FunctionSnapshot, FunctionStats};
use super::{BAR_SIZE, Device};
use crate::dma::Dma;

/// What a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionConfig {
    /// Which adapter it says it is.
    pub identity: Identity,
    /// The MAC address its serial number is made from.
    pub mac: [u8; 6],
}

/// What a function and the device behind it share. They exist first: the device is made with them, the function with both.
#[derive(Clone)]
pub struct FunctionParts {
    /// Guest memory.
    pub dma: Arc<Dma>,
    /// Interrupts.
    pub msix: Arc<Msix>,
    /// Whether the guest lets the device access its memory.
    pub bus_master: Arc<BusMaster>,
}

impl FunctionParts {
    /// The parts of a function with that many MSI-X vectors, from 1 to [`MAX_VECTORS`](super::MAX_VECTORS).
    pub fn new(vectors: u16) -> Self {
        Self {
            dma: Arc::default(),
            msix: Arc::new(Msix::new(vectors)),
            bus_master: Arc::default(),
        }
    }
}

/// A PCI function with a device behind it.
pub struct PciFunction {
    config: Mutex<ConfigSpace>,
    /// Whether BAR 0 is decoded.
    memory: AtomicBool,
    parts: FunctionParts,
    device: Arc<dyn Device>,
    stats: FunctionStats,
}

impl PciFunction {
    /// A function as after power-on.
    pub fn new(config: FunctionConfig, parts: FunctionParts, device: Arc<dyn Device>) -> Self {
        let layout = Layout::new(&config, parts.msix.vectors());
        Self {
            config: Mutex::new(ConfigSpace::new(layout)),
            memory: AtomicBool::new(false),
            parts,
            device,
            stats: FunctionStats::default(),
        }
    }

    /// Guest memory, for an attachment to map.
    pub fn dma(&self) -> &Dma {
        &self.parts.dma
    }

    /// The interrupts.
    pub fn msix(&self) -> &Msix {
        &self.parts.msix
    }

    /// Accesses that went nowhere.
    pub fn stats(&self) -> FunctionSnapshot {
        self.stats.snapshot()
    }

    /// Fills `data` with what a read of configuration space returns; ones where there is none.
    pub fn config_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(offset) = self.within(offset, data.len(), CONFIG_SPACE_SIZE as u64) {
            self.config.lock().read(offset as usize, data);
        }
    }

    /// Takes a write to configuration space; ignored where there is none.
    pub fn config_write(&self, offset: u64, data: &[u8]) {
        if let Some(offset) = self.within(offset, data.len(), CONFIG_SPACE_SIZE as u64) {
            let mut config = self.config.lock();
            let reset = config.write(offset as usize, data);
            self.apply(&config);
            drop(config);
            if reset {
                self.reset();
            }
        }
    }

    /// Fills `data` with what a read of a BAR returns; ones where there is nothing.
    pub fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(offset) = self.decode(bar, offset, data.len()) {
            for (place, from, range) in self.pieces(offset, data.len()) {
                let data = &mut data[range];
                match place {
                    Place::Table => self.parts.msix.read_table(from, data),
                    Place::Pba => self.parts.msix.read_pba(from, data),
                    Place::Device => self.device.read(from, data),
                }
            }
        }
    }

    /// Takes a write to a BAR; ignored where there is nothing.
    pub fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        if let Some(offset) = self.decode(bar, offset, data.len()) {
            for (place, from, range) in self.pieces(offset, data.len()) {
                let data = &data[range];
                match place {
                    Place::Table => self.parts.msix.write_table(from, data),
                    // Software should never write it (PCI Express Base Specification 7.7.2.10).
                    Place::Pba => {}
                    Place::Device => self.device.write(from, data),
                }
            }
        }
    }

    /// Says where interrupts go from now on. What is pending and can be sent is sent.
    pub fn connect(&self, lines: Arc<dyn InterruptLines>, masking: Masking) {
        self.parts.msix.connect(Some((lines, masking)));
    }

    /// Interrupts stay pending from now on. When it returns, nothing uses the lines any more.
    pub fn disconnect(&self) {
        self.parts.msix.connect(None);
    }

    /// Resets function and device (PCI Express Base Specification 6.6): as after power-on, except that mappings of guest memory
    /// and the way to send interrupts, which are the attachment's, stay.
    pub fn reset(&self) {
        FunctionStats::add(&self.stats.resets);
        self.device.reset();
        let mut config = self.config.lock();
        config.reset();
        self.parts.msix.reset();
        self.apply(&config);
    }

    /// Makes the rest of the function do what the configuration space says.
    fn apply(&self, config: &ConfigSpace) {
        let enabled = config.enabled();
        self.memory.store(enabled.memory, Ordering::Release);
        self.parts.bus_master.set(enabled.bus_master);
        self.parts.msix.set_control(enabled.msix, enabled.function_mask);
    }

    /// The offset of an access that is within `size`.
    fn within(&self, offset: u64, length: usize, size: u64) -> Option<u64> {
        let inside = offset.checked_add(length as u64).is_some_and(|end| end <= size);
        if !inside {
            FunctionStats::add(&self.stats.outside);
        }
        inside.then_some(offset)
    }

    /// The offset of an access that the function answers.
    fn decode(&self, bar: u8, offset: u64, length: usize) -> Option<u64> {
        let offset = self.within(offset, length, if bar == 0 { BAR_SIZE } else { 0 })?;
        let memory = self.memory.load(Ordering::Acquire);
        if !memory {
            FunctionStats::add(&self.stats.disabled);
        }
        memory.then_some(offset)
    }

    /// The parts of an access, by what is there: each one's place, the offset within the table or the array or the BAR, and its bytes.
    fn pieces(&self, offset: u64, length: usize) -> impl Iterator<Item = (Place, u64, std::ops::Range<usize>)> {
        let table_end = MSIX_TABLE + self.parts.msix.table_size();
        let pba_end = MSIX_PBA + self.parts.msix.pba_size();
        let mut done = 0;
        std::iter::from_fn(move || {
            let at = offset + done as u64;
            let (place, from, end) = if at < MSIX_TABLE {
                (Place::Device, at, MSIX_TABLE)
            } else if at < table_end {
                (Place::Table, at - MSIX_TABLE, table_end)
            } else if at < MSIX_PBA {
                (Place::Device, at, MSIX_PBA)
            } else if at < pba_end {
                (Place::Pba, at - MSIX_PBA, pba_end)
            } else {
                (Place::Device, at, BAR_SIZE)
            };
            let piece = usize::try_from(end - at).unwrap_or(usize::MAX).min(length - done);
            let range = done..done + piece;
            done += piece;
            (piece > 0).then_some((place, from, range))
        })
    }
}

/// What is at an offset of BAR 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Table,
    Pba,
    Device,
}

#[cfg(test)]
mod tests;
