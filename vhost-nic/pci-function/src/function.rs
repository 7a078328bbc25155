//! The function that an attachment drives.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::bus_master::BusMaster;
use crate::config_layout::CONFIG_SPACE_SIZE;
use crate::config_space::ConfigSpace;
use crate::device::Device;
use crate::dma::{Dma, GuestMap, Purpose};
use crate::msix::{InterruptLines, Masking, Msix};
use crate::spec::{BarLayout, FunctionSpec};
use crate::stats::{FunctionSnapshot, FunctionStats};
use crate::turn::{Change, FunctionDoor, Space};

/// Parts shared by a function and the device behind it. They exist first: the device is created from them, and the
/// function from both.
pub struct FunctionParts<P> {
    /// Guest memory.
    pub dma: Arc<Dma<P>>,
    /// Interrupts.
    pub msix: Arc<Msix>,
    /// Permission of the guest to access its memory.
    pub bus_master: Arc<BusMaster>,
}

impl<P> Clone for FunctionParts<P> {
    fn clone(&self) -> Self {
        Self {
            dma: self.dma.clone(),
            msix: self.msix.clone(),
            bus_master: self.bus_master.clone(),
        }
    }
}

impl<P: Purpose> FunctionParts<P> {
    /// Creates the parts of a function with `vectors` MSI-X vectors, from 1 to [`MAX_VECTORS`](crate::MAX_VECTORS).
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
    /// Lock order: before the interrupt vectors; not during a reset of the device.
    config: Mutex<ConfigSpace>,
    /// Whether BAR 0 is decoded.
    memory: AtomicBool,
    bar: BarLayout,
    dma: Arc<dyn GuestMap>,
    msix: Arc<Msix>,
    bus_master: Arc<BusMaster>,
    device: Arc<dyn Device>,
    stats: FunctionStats,
    door: OnceLock<Arc<dyn FunctionDoor>>,
}

impl PciFunction {
    /// Creates a function in its state after power-on.
    ///
    /// # Panics
    ///
    /// If the size of BAR 0 is invalid, or if it has no room for the MSI-X table and the pending bits at the offsets of
    /// [`BarLayout`].
    pub fn new<P: Purpose>(spec: impl Into<FunctionSpec>, parts: FunctionParts<P>, device: Arc<dyn Device>) -> Self {
        let spec = spec.into();
        let (bar, vectors) = (spec.bar, parts.msix.vectors());
        assert!(
            bar.size.is_power_of_two() && (16..=1 << 31).contains(&bar.size),
            "{bar:?} has an invalid size"
        );
        assert!(
            bar.msix_table + parts.msix.table_size() <= bar.msix_pba
                && bar.msix_pba + parts.msix.pba_size() <= bar.size,
            "no room in {bar:?} for {vectors} vectors"
        );
        Self {
            config: Mutex::new(ConfigSpace::new(spec, vectors)),
            memory: AtomicBool::new(false),
            bar,
            dma: parts.dma,
            msix: parts.msix,
            bus_master: parts.bus_master,
            device,
            stats: FunctionStats::default(),
            door: OnceLock::new(),
        }
    }

    /// Puts a door before the function. Further calls are ignored.
    pub fn set_door(&self, door: Arc<dyn FunctionDoor>) {
        let _ = self.door.set(door);
    }

    /// Guest memory, for an attachment to map.
    pub fn dma(&self) -> &dyn GuestMap {
        &*self.dma
    }

    /// Size of BAR 0 in bytes.
    pub fn bar_size(&self) -> u64 {
        self.bar.size
    }

    /// Interrupts.
    pub fn msix(&self) -> &Msix {
        &self.msix
    }

    /// Takes a snapshot of the counters.
    pub fn stats(&self) -> FunctionSnapshot {
        self.stats.snapshot()
    }

    /// Reads configuration space; all ones outside of it.
    pub fn config_read(&self, offset: u64, data: &mut [u8]) {
        match self.door.get() {
            None => self.read_config(offset, data),
            Some(door) => door.read(Space::Config, offset, data, &mut |data| self.read_config(offset, data)),
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(offset) = self.within(offset, data.len(), CONFIG_SPACE_SIZE as u64) {
            self.config.lock().read(offset as usize, data);
        }
    }

    /// Writes configuration space; ignored outside of it.
    pub fn config_write(&self, offset: u64, data: &[u8]) {
        match self.door.get() {
            None => self.write_config(offset, data),
            Some(door) => door.write(Space::Config, offset, data, &mut || self.write_config(offset, data)),
        }
    }

    fn write_config(&self, offset: u64, data: &[u8]) {
        if let Some(offset) = self.within(offset, data.len(), CONFIG_SPACE_SIZE as u64) {
            let mut config = self.config.lock();
            let reset = config.write(offset as usize, data);
            self.apply(&config);
            drop(config);
            if reset {
                self.reset_all();
            }
        }
    }

    /// Reads a BAR; all ones if the function does not decode the access.
    pub fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        match self.door.get() {
            None => self.read_bar(bar, offset, data),
            Some(door) => door.read(Space::Bar(bar), offset, data, &mut |data| {
                self.read_bar(bar, offset, data);
            }),
        }
    }

    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(offset) = self.decode(bar, offset, data.len()) {
            for (target, from, range) in self.split(offset, data.len()) {
                let data = &mut data[range];
                match target {
                    Target::Table => self.msix.read_table(from, data),
                    Target::Pba => self.msix.read_pba(from, data),
                    Target::Device => self.device.read(from, data),
                }
            }
        }
    }

    /// Writes a BAR; ignored if the function does not decode the access.
    pub fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        match self.door.get() {
            None => self.write_bar(bar, offset, data),
            Some(door) => door.write(Space::Bar(bar), offset, data, &mut || self.write_bar(bar, offset, data)),
        }
    }

    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) {
        if let Some(offset) = self.decode(bar, offset, data.len()) {
            for (target, from, range) in self.split(offset, data.len()) {
                let data = &data[range];
                match target {
                    Target::Table => self.msix.write_table(from, data),
                    // Software should never write it (PCI Express Base Specification 7.7.2.10).
                    Target::Pba => {}
                    Target::Device => self.device.write(from, data),
                }
            }
        }
    }

    /// Connects the interrupts to `lines`, and sends those that are pending.
    pub fn connect(&self, lines: Arc<dyn InterruptLines>, masking: Masking) {
        self.change(Change::Connect(masking), || {
            self.msix.connect(Some((lines.clone(), masking)))
        });
    }

    /// Disconnects the interrupts, which stay pending. After it returns, the lines are unused.
    pub fn disconnect(&self) {
        self.change(Change::Disconnect, || self.msix.connect(None));
    }

    /// Raises a vector on behalf of the attachment.
    pub fn raise_interrupt(&self, vector: u16) {
        self.change(Change::Raise(vector), || self.msix.raise(vector));
    }

    /// Sends the pending ones of `count` vectors from `first` on, when the attachment can send again.
    pub fn retry_interrupts(&self, first: u16, count: u16) {
        self.change(Change::Retry { first, count }, || self.msix.retry(first, count));
    }

    /// Resets function and device (PCI Express Base Specification 6.6) to the state after power-on. Mappings of guest
    /// memory and the connection of the interrupts stay: they belong to the attachment.
    pub fn reset(&self) {
        self.change(Change::Reset, || self.reset_all());
    }

    fn reset_all(&self) {
        FunctionStats::add(&self.stats.resets);
        // A reset from outside of the guest: the guest must not set up the device behind it.
        self.memory.store(false, Ordering::Release);
        self.device.reset();
        let mut config = self.config.lock();
        config.reset();
        self.msix.reset();
        self.apply(&config);
    }

    /// Resets function and device, and drops what outlives a reset: the machine is gone, and another may come.
    pub fn power_cycle(&self) {
        self.change(Change::PowerCycle, || {
            self.reset_all();
            self.device.power_cycle();
            self.config.lock().power_cycle();
        });
    }

    fn change(&self, change: Change, mut act: impl FnMut()) {
        match self.door.get() {
            None => act(),
            Some(door) => door.change(change, &mut act),
        }
    }

    /// Applies the enable bits of configuration space to the rest of the function.
    fn apply(&self, config: &ConfigSpace) {
        let enabled = config.enabled();
        self.memory.store(enabled.memory, Ordering::Release);
        self.bus_master.set(enabled.bus_master);
        self.msix.set_control(enabled.msix, enabled.function_mask);
    }

    /// Returns the offset of an access within `size`; counts others.
    fn within(&self, offset: u64, length: usize, size: u64) -> Option<u64> {
        let inside = offset.checked_add(length as u64).is_some_and(|end| end <= size);
        if !inside {
            FunctionStats::add(&self.stats.outside);
        }
        inside.then_some(offset)
    }

    /// Returns the offset of an access that the function decodes; counts others.
    fn decode(&self, bar: u8, offset: u64, length: usize) -> Option<u64> {
        let offset = self.within(offset, length, if bar == 0 { self.bar.size } else { 0 })?;
        let memory = self.memory.load(Ordering::Acquire);
        if !memory {
            FunctionStats::add(&self.stats.disabled);
        }
        memory.then_some(offset)
    }

    /// Splits an access by target: for each part its target, the offset within the target, and its bytes.
    fn split(&self, offset: u64, length: usize) -> impl Iterator<Item = (Target, u64, std::ops::Range<usize>)> {
        let BarLayout {
            size,
            msix_table,
            msix_pba,
        } = self.bar;
        let table_end = msix_table + self.msix.table_size();
        let pba_end = msix_pba + self.msix.pba_size();
        let mut done = 0;
        std::iter::from_fn(move || {
            let at = offset + done as u64;
            let (target, from, end) = if at < msix_table {
                (Target::Device, at, msix_table)
            } else if at < table_end {
                (Target::Table, at - msix_table, table_end)
            } else if at < msix_pba {
                (Target::Device, at, msix_pba)
            } else if at < pba_end {
                (Target::Pba, at - msix_pba, pba_end)
            } else {
                (Target::Device, at, size)
            };
            let part = usize::try_from(end - at).unwrap_or(usize::MAX).min(length - done);
            let range = done..done + part;
            done += part;
            (part > 0).then_some((target, from, range))
        })
    }
}

/// Target of an access to BAR 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Table,
    Pba,
    Device,
}

#[cfg(test)]
mod tests;
