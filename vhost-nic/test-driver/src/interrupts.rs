//! MSI-X interrupts that arrived from the device.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// MSI address and the data of vector 0, as on a PC.
pub(crate) const MESSAGE_ADDRESS: u64 = 0xfee0_0000;
pub(crate) const MESSAGE_DATA: u32 = 0x4000;

/// Interrupts received, by vector.
#[derive(Debug, Default)]
pub struct Interrupts {
    received: Mutex<BTreeMap<u16, u64>>,
    changed: Condvar,
}

impl Interrupts {
    /// Receives the MSI-X message of a vector, which must be the one in the table.
    pub fn deliver(&self, vector: u16, address: u64, data: u32) {
        assert_eq!((address, data), (MESSAGE_ADDRESS, MESSAGE_DATA | u32::from(vector)));
        self.signal(vector);
    }

    /// Receives the interrupt of a vector from a device that keeps its MSI-X messages to itself.
    pub fn signal(&self, vector: u16) {
        *self.received.lock().entry(vector).or_default() += 1;
        self.changed.notify_all();
    }

    /// Number of interrupts received on a vector.
    pub fn count(&self, vector: u16) -> u64 {
        self.received.lock().get(&vector).copied().unwrap_or(0)
    }

    /// Waits until a vector has received more than `seen` interrupts; false after `time`.
    pub fn wait(&self, vector: u16, seen: u64, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut received = self.received.lock();
        while received.get(&vector).copied().unwrap_or(0) <= seen {
            if self.changed.wait_until(&mut received, end).timed_out() {
                return false;
            }
        }
        true
    }
}
