//! Counters of the physical port.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

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
        self.packets.fetch_add(burst.count(), Ordering::Relaxed);
        self.octets.fetch_add(burst.bytes(), Ordering::Relaxed);
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
}

impl Direction {
    /// Upper bounds of the size classes in bytes, with the frame check sequence.
    pub const SIZES: [usize; 10] = [64, 127, 255, 511, 1023, 1518, 2047, 4095, 8191, 10239];

    /// Counts frames.
    pub fn count(&self, burst: &Burst<'_>) {
        self.of(burst.cast()).count(burst);
        for (length, equal) in burst.lengths() {
            let class = Self::SIZES
                .partition_point(|&end| end < length + 4)
                .min(Self::SIZES.len() - 1);
            self.sizes[class].fetch_add(*equal, Ordering::Relaxed);
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
