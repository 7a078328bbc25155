//! Priorities of frames, by which the port counts them.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::frame::view::{FrameView, Network};
use crate::net::Frame;
use crate::roce::path::{Addresses, Path};

/// Number of priorities (IEEE 802.1Q).
pub const PRIORITIES: usize = 8;
/// Number of DSCPs.
pub const DSCPS: usize = 64;

/// Source of a frame's priority: its VLAN tag, or its DSCP by a table.
#[derive(Debug)]
pub struct Priorities {
    by_dscp: AtomicBool,
    of_dscp: [AtomicU8; DSCPS],
}

impl Default for Priorities {
    fn default() -> Self {
        Self {
            by_dscp: AtomicBool::new(false),
            of_dscp: std::array::from_fn(|dscp| AtomicU8::new(class_selector(dscp))),
        }
    }
}

/// Returns the class selector of a DSCP (RFC 2474).
fn class_selector(dscp: usize) -> u8 {
    (dscp >> 3) as u8
}

impl Priorities {
    /// Returns the settings to their state after reset.
    pub fn reset(&self) {
        self.set_by_dscp(false);
        self.map(std::array::from_fn(class_selector));
    }

    /// Whether the DSCP counts, not the tag.
    pub fn by_dscp(&self) -> bool {
        self.by_dscp.load(Ordering::Relaxed)
    }

    /// Sets whether the DSCP counts.
    pub fn set_by_dscp(&self, by_dscp: bool) {
        self.by_dscp.store(by_dscp, Ordering::Relaxed);
    }

    /// Priority of each DSCP.
    pub fn of_dscp(&self) -> [u8; DSCPS] {
        std::array::from_fn(|dscp| self.of_dscp[dscp].load(Ordering::Relaxed))
    }

    /// Sets the priority of each DSCP, below [`PRIORITIES`].
    pub fn map(&self, priorities: [u8; DSCPS]) {
        for (to, priority) in self.of_dscp.iter().zip(priorities) {
            to.store(priority, Ordering::Relaxed);
        }
    }

    /// Returns the priority of a frame; 0 if it has neither a tag nor, where that counts, a DSCP.
    #[inline]
    pub fn of(&self, frame: &Frame<'_>) -> usize {
        let priority = match (frame, self.by_dscp()) {
            (Frame::SuperPacket(packet), false) => packet.head.path.vlan.map_or(0, |vlan| vlan.priority),
            (Frame::SuperPacket(packet), true) => self.of_packet(&packet.head.path),
            (Frame::Bytes([_, _, _, _, _, _, _, _, _, _, _, _, 0x81, 0x00, tci, ..]), false) => tci >> 5,
            (Frame::Bytes(_), false) => 0,
            (Frame::Bytes(bytes), true) => match FrameView::new(bytes).map(|view| view.network) {
                Some(Network::Ipv4(header)) => self.mapped(header.tos),
                Some(Network::Ipv6(header)) => self.mapped(header.traffic_class),
                _ => 0,
            },
        };
        usize::from(priority) % PRIORITIES
    }

    /// Returns the priority of a RoCE packet; that of version 1 has no DSCP.
    fn of_packet(&self, path: &Path) -> u8 {
        match path.addresses {
            Addresses::Ipv4 { .. } | Addresses::Ipv6 { .. } => self.mapped(path.traffic_class),
            Addresses::Grh { .. } => 0,
        }
    }

    /// Returns the priority of a traffic class, whose DSCP is in bits 7:2.
    fn mapped(&self, traffic_class: u8) -> u8 {
        self.of_dscp[usize::from(traffic_class >> 2)].load(Ordering::Relaxed)
    }
}
