//! Counters of the physical port.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::priority::{PRIORITIES, Priorities};
use crate::frame::mac::CastType;
use crate::net::Burst;

/// Number of packets and of their bytes.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Number of packets.
    pub packets: AtomicU64,
    /// Number of bytes from the destination address on, without the frame check sequence.
    pub octets: AtomicU64,
}

impl Traffic {
    /// Counts frames.
    pub fn count(&self, burst: &Burst<'_>) {
        self.add(burst.count(), burst.bytes());
    }

    fn add(&self, packets: u64, octets: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.octets.fetch_add(octets, Ordering::Relaxed);
    }

    /// Returns packets and bytes.
    pub fn get(&self) -> (u64, u64) {
        (
            self.packets.load(Ordering::Relaxed),
            self.octets.load(Ordering::Relaxed),
        )
    }

    /// Sets the counters to zero.
    pub fn clear(&self) {
        self.packets.store(0, Ordering::Relaxed);
        self.octets.store(0, Ordering::Relaxed);
    }
}

/// Traffic in one direction, by cast type.
#[derive(Debug, Default)]
pub struct Direction {
    unicast: Traffic,
    multicast: Traffic,
    broadcast: Traffic,
    /// Frames by size class (RFC 2819, extended); see [`SIZES`](Self::SIZES).
    sizes: [AtomicU64; Self::SIZES.len()],
    /// Frames of the priorities from 1 on.
    prioritized: [Traffic; PRIORITIES - 1],
    /// Most that was reported of priority 0, which is what the other priorities leave of all frames.
    unprioritized: Traffic,
}

impl Direction {
    /// Upper bounds of the size classes in bytes, with the frame check sequence.
    pub const SIZES: [usize; 10] = [64, 127, 255, 511, 1023, 1518, 2047, 4095, 8191, 10239];

    /// Counts frames.
    pub fn count(&self, burst: &Burst<'_>, priorities: &Priorities) {
        // Before the total, which is thus never less.
        self.count_priorities(burst, priorities);
        self.of(burst.cast()).count(burst);
        for (length, equal) in burst.lengths() {
            let class = Self::SIZES
                .partition_point(|&end| end < length + 4)
                .min(Self::SIZES.len() - 1);
            self.sizes[class].fetch_add(*equal, Ordering::Relaxed);
        }
    }

    fn count_priorities(&self, burst: &Burst<'_>, priorities: &Priorities) {
        let Some((first, others)) = burst.frames().split_first() else {
            return;
        };
        let priority = priorities.of(first);
        if others.iter().any(|frame| priorities.of(frame) != priority) {
            for frame in burst.frames() {
                let add = |(packets, octets), (length, equal)| (packets + equal, octets + length as u64 * equal);
                self.count_priority(priorities.of(frame), frame.lengths().fold((0, 0), add));
            }
        } else {
            self.count_priority(priority, (burst.count(), burst.bytes()));
        }
    }

    #[inline]
    fn count_priority(&self, priority: usize, (packets, octets): (u64, u64)) {
        if let Some(traffic) = priority.checked_sub(1).and_then(|index| self.prioritized.get(index)) {
            traffic.add(packets, octets);
        }
    }

    /// Returns the traffic of one cast type.
    pub fn of(&self, cast: CastType) -> &Traffic {
        match cast {
            CastType::Unicast => &self.unicast,
            CastType::Multicast => &self.multicast,
            CastType::Broadcast => &self.broadcast,
        }
    }

    /// Returns packets and bytes of a priority, if there is such a priority.
    pub fn of_priority(&self, priority: usize) -> Option<(u64, u64)> {
        match priority.checked_sub(1) {
            Some(index) => self.prioritized.get(index).map(Traffic::get),
            None => Some(self.of_no_priority()),
        }
    }

    /// Returns packets and bytes of priority 0. Frames that arrive between the looks at the total and at the other
    /// priorities never make it less than it was.
    fn of_no_priority(&self) -> (u64, u64) {
        let (packets, octets) = self.total();
        let others = self.prioritized.iter().map(Traffic::get);
        let (other_packets, other_octets) = others.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let most = |reported: &AtomicU64, all: u64, others: u64| {
            let now = all.saturating_sub(others);
            reported.fetch_max(now, Ordering::Relaxed).max(now)
        };
        (
            most(&self.unprioritized.packets, packets, other_packets),
            most(&self.unprioritized.octets, octets, other_octets),
        )
    }

    /// Returns the number of frames of a size class.
    pub fn size_class(&self, class: usize) -> u64 {
        self.sizes[class].load(Ordering::Relaxed)
    }

    /// Returns packets and bytes of all cast types.
    pub fn total(&self) -> (u64, u64) {
        [&self.unicast, &self.multicast, &self.broadcast]
            .map(Traffic::get)
            .into_iter()
            .fold((0, 0), |(packets, octets), (more, bytes)| {
                (packets + more, octets + bytes)
            })
    }

    /// Sets the counters to zero.
    pub fn clear(&self) {
        for traffic in [&self.unicast, &self.multicast, &self.broadcast] {
            traffic.clear();
        }
        self.prioritized.iter().for_each(Traffic::clear);
        self.unprioritized.clear();
        self.sizes.iter().for_each(|class| class.store(0, Ordering::Relaxed));
    }
}

/// Completions, by destination of their messages' data.
#[derive(Debug, Default)]
pub struct CompletionCounters {
    /// To memory, or messages without data.
    pub plain: AtomicU64,
    /// Into the CQE, up to 32 bytes (`MLX5_INLINE_SCATTER_32`, device.h).
    pub inline_32: AtomicU64,
    /// Into the lower half of a 128-byte CQE, up to 64 bytes (`MLX5_INLINE_SCATTER_64`).
    pub inline_64: AtomicU64,
    /// Of the plain ones, those of compressed sessions.
    pub compressed: AtomicU64,
    /// Compressed sessions.
    pub sessions: AtomicU64,
    /// CQs that failed for lack of room since power-on.
    pub overruns: AtomicU32,
}

/// RoCE packets in one direction, by cast type.
#[derive(Debug, Default)]
pub struct RdmaTraffic {
    /// Unicast packets.
    pub unicast: Traffic,
    /// Multicast packets, broadcast included.
    pub multicast: Traffic,
}

impl RdmaTraffic {
    /// Counts packets.
    pub fn count(&self, burst: &Burst<'_>) {
        self.of(burst.cast()).count(burst);
    }

    /// Returns the traffic of one cast type; broadcast counts as multicast.
    pub fn of(&self, cast: CastType) -> &Traffic {
        match cast {
            CastType::Unicast => &self.unicast,
            CastType::Multicast | CastType::Broadcast => &self.multicast,
        }
    }

    /// Sets the counters to zero.
    pub fn clear(&self) {
        self.unicast.clear();
        self.multicast.clear();
    }
}

/// Traffic of the port and drops.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// Frames from the wire.
    pub received: Direction,
    /// Frames to the wire.
    pub sent: Direction,
    /// RoCE packets among the received frames.
    pub rdma_received: RdmaTraffic,
    /// RoCE packets among the sent frames.
    pub rdma_sent: RdmaTraffic,
    /// Frames looped back to the function.
    pub loopback: Traffic,
    /// Frames from the wire that matched no flow table entry.
    pub unmatched: AtomicU64,
    /// Frames from the wire while the link was down or the HCA was not initialized, and frames longer than the port's
    /// MTU.
    pub refused: AtomicU64,
    /// Frames dropped for lack of a receive WQE.
    pub out_of_buffer: AtomicU64,
    /// Frames for receive queues that are not ready.
    pub not_ready: AtomicU64,
    /// Frames that could not be sent.
    pub send_errors: AtomicU64,
}

impl PortCounters {
    /// Sets the counters to zero.
    pub fn clear(&self) {
        [&self.received, &self.sent].into_iter().for_each(Direction::clear);
        let rdma = [&self.rdma_received, &self.rdma_sent];
        rdma.into_iter().for_each(RdmaTraffic::clear);
        self.loopback.clear();
        let drops = [
            &self.unmatched,
            &self.refused,
            &self.out_of_buffer,
            &self.not_ready,
            &self.send_errors,
        ];
        drops.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Frame;

    /// Builds a frame to the broadcast address, with a tag of VLAN 0 if it has a priority.
    fn frame(priority: Option<u8>, length: usize) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 1]);
        if let Some(priority) = priority {
            frame.extend([0x81, 0x00, priority << 5, 0]);
        }
        frame.extend([0x88, 0xb5]);
        frame.resize(length, 0);
        frame
    }

    #[test]
    fn each_frame_of_a_burst_has_its_own_priority() {
        let (direction, priorities) = (Direction::default(), Priorities::default());
        let frames = [
            (Some(5), 100),
            (None, 60),
            (Some(5), 200),
            (Some(7), 300),
            (Some(0), 70),
        ];
        let frames = frames.map(|(priority, length)| frame(priority, length));
        direction.count(
            &Burst::new(&[0, 1, 2, 3, 4].map(|index| Frame::new(&frames[index]))),
            &priorities,
        );
        direction.count(
            &Burst::new(&[0, 2].map(|index| Frame::new(&frames[index]))),
            &priorities,
        );
        direction.count(&Burst::new(&[Frame::new(&frames[1])]), &priorities);
        let counted: Vec<_> = (0..PRIORITIES)
            .filter_map(|priority| direction.of_priority(priority))
            .collect();
        let mut expected = [(0, 0); PRIORITIES];
        (expected[0], expected[5], expected[7]) = ((3, 190), (4, 600), (1, 300));
        assert_eq!(counted, expected);
        assert_eq!(direction.of_priority(PRIORITIES), None);
        direction.clear();
        assert!((0..PRIORITIES).all(|priority| direction.of_priority(priority) == Some((0, 0))));
    }
}
