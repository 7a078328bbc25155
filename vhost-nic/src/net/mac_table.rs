//! Which station is behind which port, learned from the source addresses of frames (IEEE 802.1Q section 8.7).
//!
//! Each VLAN has its own: a station is a VLAN id with an address. Untagged frames are in VLAN 0.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::RandomState;

/// A port's number in its switch.
pub(super) type PortId = u32;

/// A VLAN id and an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Station(u64);

impl Station {
    pub fn new(vlan: u16, address: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = address;
        let [v, w] = vlan.to_be_bytes();
        Self(u64::from_be_bytes([v, w, a, b, c, d, e, f]))
    }
}

#[derive(Debug)]
struct Entry {
    port: PortId,
    seen: AtomicU32,
}

/// What has to happen for the table to know a station.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// Nothing: it does.
    Current,
    /// [`Table::learn`].
    Missing,
}

/// Times are in seconds.
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

    /// The port a station is behind, if it was seen not too long ago.
    pub fn find(&self, station: Station, now: u32) -> Option<PortId> {
        self.entries
            .get(&station)
            .filter(|entry| !self.is_old(entry, now))
            .map(|entry| entry.port)
    }

    /// Notes that a frame of the station came in through the port, if it is known there.
    pub fn refresh(&self, station: Station, port: PortId, now: u32) -> Knowledge {
        match self.entries.get(&station) {
            Some(entry) if entry.port == port => {
                // Only one write in a second, so that senders do not fight for the line.
                if entry.seen.load(Ordering::Relaxed) != now {
                    entry.seen.store(now, Ordering::Relaxed);
                }
                Knowledge::Current
            }
            _ => Knowledge::Missing,
        }
    }

    /// Puts the station behind the port. False if the port has too many stations; the station is forgotten then.
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

    /// Forgets all stations behind a port.
    pub fn forget_port(&mut self, port: PortId) {
        self.entries.retain(|_, entry| entry.port != port);
        self.stations.remove(&port);
    }

    /// How many stations are behind a port.
    pub fn stations(&self, port: PortId) -> usize {
        self.stations.get(&port).copied().unwrap_or(0)
    }

    fn forget(&mut self, station: Station) {
        if let Some(entry) = self.entries.remove(&station) {
            self.discount(entry.port, 1);
        }
    }

    /// Forgets the stations not seen for long; at most once in a second, for a port that sends from many addresses must not slow the
    /// others down.
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
