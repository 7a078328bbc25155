//! Counters of a switch and its ports.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::burst::Burst;
use crate::frame::mac::CastType;

/// Frames in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TrafficStats {
    /// All frames.
    pub frames: u64,
    /// Bytes of the frames, without preamble, frame check sequence and interpacket gap.
    pub bytes: u64,
    /// Unicast frames.
    pub unicast: u64,
    /// Multicast frames, without broadcasts.
    pub multicast: u64,
    /// Broadcast frames.
    pub broadcast: u64,
}

/// Frames from a port, or to it, that the switch dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DropStats {
    /// Sent while the port's link was down.
    pub link_down: u64,
    /// Shorter than an Ethernet header.
    pub too_short: u64,
    /// Longer than any MTU allows.
    pub too_long: u64,
    /// From a group address or from address zero.
    pub bad_source: u64,
    /// From an address that the port may not use.
    pub spoofed: u64,
    /// MAC control (pause), which is local to a link.
    pub mac_control: u64,
    /// To a station that is behind the sending port.
    pub same_port: u64,
    /// Without another port whose link is up.
    pub no_destination: u64,
    /// Sent from within deliveries that were nested too deep.
    pub nested: u64,
    /// To the port, while its link was down.
    pub undeliverable: u64,
    /// To the port, whose receiver panicked.
    pub panicked: u64,
}

/// Snapshot of a port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PortStats {
    /// Name of the port.
    pub name: String,
    /// Whether the link is up.
    pub link_up: bool,
    /// Stations that the switch has learned behind the port.
    pub stations: usize,
    /// Frames from the port, without dropped ones.
    pub sent: TrafficStats,
    /// Frames to the port.
    pub received: TrafficStats,
    /// Dropped frames.
    pub dropped: DropStats,
    /// Frames of stations that were not learned because the port has too many.
    pub not_learned: u64,
    /// Unicast frames from the port to unknown stations, which were flooded to all ports.
    pub flooded: u64,
}

/// Snapshot of a switch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SwitchStats {
    /// Ports in the order in which they were attached.
    pub ports: Vec<PortStats>,
}

/// A station that the switch has learned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StationInfo {
    /// Name of the port that it is behind.
    pub port: String,
    /// VLAN ID; 0 for untagged frames.
    pub vlan: u16,
    /// MAC address.
    pub mac: String,
    /// Seconds since its last frame.
    pub age_seconds: u32,
}

/// A monotonic counter, shared by threads.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Traffic {
    bytes: Counter,
    unicast: Counter,
    multicast: Counter,
    broadcast: Counter,
}

impl Traffic {
    pub fn count(&self, burst: &Burst<'_>) {
        self.bytes.add(burst.bytes());
        let by_cast = match burst.cast() {
            CastType::Unicast => &self.unicast,
            CastType::Multicast => &self.multicast,
            CastType::Broadcast => &self.broadcast,
        };
        by_cast.add(burst.count());
    }

    pub fn snapshot(&self) -> TrafficStats {
        let (unicast, multicast, broadcast) = (self.unicast.get(), self.multicast.get(), self.broadcast.get());
        TrafficStats {
            frames: unicast + multicast + broadcast,
            bytes: self.bytes.get(),
            unicast,
            multicast,
            broadcast,
        }
    }
}

/// Counters of [`DropStats`].
#[derive(Debug, Default)]
pub(super) struct Drops {
    pub link_down: Counter,
    pub too_short: Counter,
    pub too_long: Counter,
    pub bad_source: Counter,
    pub spoofed: Counter,
    pub mac_control: Counter,
    pub same_port: Counter,
    pub no_destination: Counter,
    pub nested: Counter,
    pub undeliverable: Counter,
    pub panicked: Counter,
}

impl Drops {
    pub fn snapshot(&self) -> DropStats {
        DropStats {
            link_down: self.link_down.get(),
            too_short: self.too_short.get(),
            too_long: self.too_long.get(),
            bad_source: self.bad_source.get(),
            spoofed: self.spoofed.get(),
            mac_control: self.mac_control.get(),
            same_port: self.same_port.get(),
            no_destination: self.no_destination.get(),
            nested: self.nested.get(),
            undeliverable: self.undeliverable.get(),
            panicked: self.panicked.get(),
        }
    }
}
