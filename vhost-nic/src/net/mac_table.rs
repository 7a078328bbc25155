//! MAC address table: the port of each station, learned from the source addresses of frames (IEEE 802.1Q section 8.7).
//!
//! Learning is independent per VLAN: a station is a VLAN ID and an address. Untagged frames are in VLAN 0.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::RandomState;

use crate::frame::mac::Mac;

/// Number of a port in its switch.
pub(super) type PortId = u32;

/// A VLAN ID and an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Station(u64);

impl Station {
    pub fn new(vlan: u16, address: Mac) -> Self {
        let Mac([a, b, c, d, e, f]) = address;
        let [v, w] = vlan.to_be_bytes();
        Self(u64::from_be_bytes([v, w, a, b, c, d, e, f]))
    }

    pub fn vlan(self) -> u16 {
        (self.0 >> 48) as u16
    }

    pub fn address(self) -> Mac {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        Mac([a, b, c, d, e, f])
    }
}

#[derive(Debug)]
struct Entry {
    port: PortId,
    seen: AtomicU32,
}

/// Result of [`Table::refresh`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// The station is known behind the port.
    Current,
    /// The station must be [learned](Table::learn): it is unknown, or known behind another port.
    Missing,
}

/// The table. Times are in seconds.
#[derive(Debug)]
pub(super) struct Table {
    entries: HashMap<Station, Entry, RandomState>,
    stations: HashMap<PortId, usize>,
    per_port: usize,
    age: u32,
    swept: u32,
}

impl Table {
    pub fn new(per_port: usize, age: u32) -> Self {
        Self {
            entries: HashMap::default(),
            stations: HashMap::new(),
            per_port,
            age,
            swept: 0,
        }
    }

    /// Finds the port of a station, unless its entry is too old.
    pub fn find(&self, station: Station, now: u32) -> Option<PortId> {
        self.entries
            .get(&station)
            .filter(|entry| !self.is_old(entry, now))
            .map(|entry| entry.port)
    }

    /// Updates the age of a station that is known behind the port.
    pub fn refresh(&self, station: Station, port: PortId, now: u32) -> Knowledge {
        match self.entries.get(&station) {
            Some(entry) if entry.port == port => {
                // One write per second, so that senders do not contend for the cache line.
                if entry.seen.load(Ordering::Relaxed) != now {
                    entry.seen.store(now, Ordering::Relaxed);
                }
                Knowledge::Current
            }
            _ => Knowledge::Missing,
        }
    }

    /// Learns that the station is behind the port. Returns false if the port has too many stations; then the station is
    /// removed.
    pub fn learn(&mut self, station: Station, port: PortId, now: u32) -> bool {
        self.forget(station);
        if self.stations(port) >= self.per_port {
            self.sweep(now);
        }
        if self.stations(port) >= self.per_port {
            return false;
        }
        self.entries.insert(
            station,
            Entry {
                port,
                seen: AtomicU32::new(now),
            },
        );
        *self.stations.entry(port).or_default() += 1;
        true
    }

    /// Removes all stations behind a port.
    pub fn forget_port(&mut self, port: PortId) {
        self.entries.retain(|_, entry| entry.port != port);
        self.stations.remove(&port);
    }

    /// Number of stations behind a port.
    pub fn stations(&self, port: PortId) -> usize {
        self.stations.get(&port).copied().unwrap_or(0)
    }

    /// Returns the stations that are not too old: VLAN ID and address, port, and seconds since the last frame.
    pub fn list(&self, now: u32) -> Vec<(Station, PortId, u32)> {
        self.entries
            .iter()
            .filter(|(_, entry)| !self.is_old(entry, now))
            .map(|(station, entry)| {
                let age = now.wrapping_sub(entry.seen.load(Ordering::Relaxed));
                (*station, entry.port, age)
            })
            .collect()
    }

    fn forget(&mut self, station: Station) {
        if let Some(entry) = self.entries.remove(&station) {
            self.discount(entry.port, 1);
        }
    }

    /// Removes old entries, at most once per second: a port that sends from many addresses must not slow down the
    /// others.
    fn sweep(&mut self, now: u32) {
        if self.swept == now {
            return;
        }
        self.swept = now;
        let age = self.age;
        let stations = &mut self.stations;
        self.entries.retain(|_, entry| {
            let keep = now.wrapping_sub(entry.seen.load(Ordering::Relaxed)) <= age;
            if !keep && let Some(count) = stations.get_mut(&entry.port) {
                *count -= 1;
            }
            keep
        });
    }

    fn discount(&mut self, port: PortId, count: usize) {
        if let Some(stations) = self.stations.get_mut(&port) {
            *stations -= count;
        }
    }

    fn is_old(&self, entry: &Entry, now: u32) -> bool {
        now.wrapping_sub(entry.seen.load(Ordering::Relaxed)) > self.age
    }
}

#[cfg(test)]
mod tests;
