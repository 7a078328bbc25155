//! MSI-X: vectors, table and pending bit array (PCI Express Base Specification 6.1.4 and 7.7.2).

use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::Serialize;

/// Maximum number of vectors of a function (PCI Express Base Specification 7.7.2.2).
pub const MAX_VECTORS: u16 = 2048;

/// Message of a vector, as the guest wrote it into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MsixMessage {
    /// Message Address.
    pub address: u64,
    /// Message Data.
    pub data: u32,
}

/// Outcome of sending an interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The message was sent.
    Done,
    /// The message cannot be sent now; the vector becomes pending.
    NotNow,
}

/// Interrupt delivery of an attachment.
pub trait InterruptLines: Send + Sync {
    /// Sends the interrupt of one vector, if that is possible now. Must not block, and must not call [`Msix`].
    fn deliver(&self, vector: u16, message: MsixMessage) -> Delivery;
}

/// A door that interrupts pass on their way to the lines.
pub trait InterruptDoor: Send + Sync {
    /// Puts itself before lines that have just been connected.
    fn before(&self, lines: Arc<dyn InterruptLines>) -> Arc<dyn InterruptLines>;
}

/// Owner of the mask bits in effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masking {
    /// The function: the guest writes its table, Function Mask and MSI-X Enable.
    Function,
    /// The attachment: the guest writes a table that the VMM emulates, and [`InterruptLines::deliver`] decides.
    Attachment,
}

/// The vectors of one function.
pub struct Msix {
    /// One lock per vector: threads that raise different vectors do not contend.
    vectors: Box<[Mutex<Vector>]>,
    door: OnceLock<Arc<dyn InterruptDoor>>,
}

/// Snapshot of a function's interrupts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MsixStats {
    /// Interrupts raised by the device.
    pub raised: u64,
    /// Messages sent to the guest; interrupts raised while a vector is pending are coalesced into one.
    pub sent: u64,
    /// Vectors that are pending.
    pub pending: u64,
}

struct Vector {
    message: MsixMessage,
    /// Mask Bit of the Vector Control register.
    masked: bool,
    /// MSI-X Enable and not Function Mask.
    enabled: bool,
    pending: bool,
    lines: Option<(Arc<dyn InterruptLines>, Masking)>,
    raised: u64,
    sent: u64,
}

/// Size of a table entry in bytes.
const ENTRY_SIZE: usize = 16;

impl Vector {
    fn new() -> Self {
        Self {
            message: MsixMessage::default(),
            masked: true,
            enabled: false,
            pending: false,
            lines: None,
            raised: 0,
            sent: 0,
        }
    }

    /// Sends the message, or leaves the vector pending.
    fn send(&mut self, index: u16) {
        let delivery = match &self.lines {
            Some((_, Masking::Function)) if self.masked || !self.enabled => Delivery::NotNow,
            Some((lines, _)) => lines.deliver(index, self.message),
            None => Delivery::NotNow,
        };
        self.pending = delivery == Delivery::NotNow;
        self.sent += u64::from(!self.pending);
    }

    fn send_pending(&mut self, index: u16) {
        if self.pending {
            self.send(index);
        }
    }

    /// Table entry (7.7.2.6 to 7.7.2.9).
    fn entry(&self) -> [u8; ENTRY_SIZE] {
        let mut entry = [0; ENTRY_SIZE];
        entry[..8].copy_from_slice(&self.message.address.to_le_bytes());
        entry[8..12].copy_from_slice(&self.message.data.to_le_bytes());
        entry[12] = self.masked.into();
        entry
    }

    fn set_entry(&mut self, entry: [u8; ENTRY_SIZE]) {
        let [a0, a1, a2, a3, a4, a5, a6, a7, d0, d1, d2, d3, control, ..] = entry;
        self.message = MsixMessage {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            data: u32::from_le_bytes([d0, d1, d2, d3]),
        };
        self.masked = control & 1 != 0;
    }
}

impl Msix {
    /// Creates the vectors of a function, from 1 to [`MAX_VECTORS`], all masked.
    pub fn new(vectors: u16) -> Self {
        Self {
            vectors: (0..vectors.clamp(1, MAX_VECTORS))
                .map(|_| Mutex::new(Vector::new()))
                .collect(),
            door: OnceLock::new(),
        }
    }

    /// Puts a door before the lines that are connected from now on. Further calls are ignored.
    pub fn set_door(&self, door: Arc<dyn InterruptDoor>) {
        let _ = self.door.set(door);
    }

    /// Number of vectors.
    pub fn vectors(&self) -> u16 {
        self.vectors.len() as u16
    }

    /// Raises a vector: its message is sent now or, if that is not possible, stays pending. A vector that does not
    /// exist is ignored.
    pub fn raise(&self, vector: u16) {
        if let Some(slot) = self.vectors.get(usize::from(vector)) {
            let mut slot = slot.lock();
            slot.raised += 1;
            slot.send(vector);
        }
    }

    /// Sends the pending ones of `count` vectors from `first` on. Called when the attachment can send again.
    pub fn retry(&self, first: u16, count: u16) {
        for (index, vector) in self.numbered().skip(first.into()).take(count.into()) {
            vector.lock().send_pending(index);
        }
    }

    /// Takes a snapshot of the counters.
    pub fn stats(&self) -> MsixStats {
        let mut stats = MsixStats::default();
        for vector in &self.vectors {
            let vector = vector.lock();
            stats.raised += vector.raised;
            stats.sent += vector.sent;
            stats.pending += u64::from(vector.pending);
        }
        stats
    }

    /// Replaces the lines. After it returns, the previous ones are unused.
    pub(super) fn connect(&self, lines: Option<(Arc<dyn InterruptLines>, Masking)>) {
        let lines = lines.map(|(lines, masking)| match self.door.get() {
            Some(door) => (door.before(lines), masking),
            None => (lines, masking),
        });
        for (index, vector) in self.numbered() {
            let mut vector = vector.lock();
            vector.lines.clone_from(&lines);
            vector.send_pending(index);
        }
    }

    /// Applies MSI-X Enable and Function Mask of Message Control (7.7.2.2).
    pub(super) fn set_control(&self, enable: bool, function_mask: bool) {
        for (index, vector) in self.numbered() {
            let mut vector = vector.lock();
            vector.enabled = enable && !function_mask;
            vector.send_pending(index);
        }
    }

    /// Resets: no vector is pending, every vector is masked.
    pub(super) fn reset(&self) {
        for vector in &self.vectors {
            let mut vector = vector.lock();
            vector.message = MsixMessage::default();
            vector.masked = true;
            vector.enabled = false;
            vector.pending = false;
        }
    }

    /// Size of the table in bytes.
    pub(super) fn table_size(&self) -> u64 {
        (self.vectors.len() * ENTRY_SIZE) as u64
    }

    /// Size of the pending bit array in bytes.
    pub(super) fn pba_size(&self) -> u64 {
        (self.vectors.len().div_ceil(64) * 8) as u64
    }

    /// Reads the table; the access must be within it.
    pub(super) fn read_table(&self, offset: u64, data: &mut [u8]) {
        for (index, within, range) in entries(offset, data.len()) {
            if let Some(vector) = self.vectors.get(index) {
                let length = range.len();
                data[range].copy_from_slice(&vector.lock().entry()[within..within + length]);
            }
        }
    }

    /// Writes the table, and sends pending vectors that are unmasked by it; the access must be within it.
    pub(super) fn write_table(&self, offset: u64, data: &[u8]) {
        for (index, within, range) in entries(offset, data.len()) {
            if let Some(vector) = self.vectors.get(index) {
                let mut vector = vector.lock();
                let mut entry = vector.entry();
                entry[within..within + range.len()].copy_from_slice(&data[range]);
                vector.set_entry(entry);
                vector.send_pending(index as u16);
            }
        }
    }

    /// Reads the pending bit array; the access must be within it.
    pub(super) fn read_pba(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in data.iter_mut().enumerate() {
            let first = (offset as usize + at) * 8;
            let bits = self.vectors.iter().skip(first).take(8);
            *byte = bits
                .enumerate()
                .fold(0, |byte, (bit, vector)| byte | u8::from(vector.lock().pending) << bit);
        }
    }

    fn numbered(&self) -> impl Iterator<Item = (u16, &Mutex<Vector>)> {
        (0..).zip(&self.vectors)
    }
}

impl fmt::Debug for Msix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Msix")
            .field("vectors", &self.vectors())
            .field("stats", &self.stats())
            .finish()
    }
}

/// Splits an access by table entry: index of the entry, offset within it, and the bytes of the access.
fn entries(offset: u64, length: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset as usize + done;
        let (index, within) = (at / ENTRY_SIZE, at % ENTRY_SIZE);
        let part = (ENTRY_SIZE - within).min(length - done);
        let range = done..done + part;
        done += part;
        (part > 0).then_some((index, within, range))
    })
}

#[cfg(test)]
mod tests;
