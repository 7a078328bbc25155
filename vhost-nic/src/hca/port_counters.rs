//! Counters of the port.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::frame::mac::CastType;
use crate::net::Burst;

/// Packets and bytes.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Packets.
    pub packets: AtomicU64,
    /// Bytes from the destination address on, without the frame check sequence.
    pub octets: AtomicU64,
}

impl Traffic {
    /// Counts frames.
    pub fn count(&self, burst: &Burst<'_>) {
        self.packets.fetch_add(burst.count(), Ordering::Relaxed);
        self.octets.fetch_add(burst.bytes(), Ordering::Relaxed);
    }

    /// Packets and bytes so far.
    pub fn get(&self) -> (u64, u64) {
        (
            self.packets.load(Ordering::Relaxed),
            self.octets.load(Ordering::Relaxed),
        )
    }

    /// Starts at zero again.
    pub fn clear(&self) {
        self.packets.store(0, Ordering::Relaxed);
        self.octets.store(0, Ordering::Relaxed);
    }
}

/// Traffic in one direction, by kind of destination.
#[derive(Debug, Default)]
pub struct Direction {
    unicast: Traffic,
    multicast: Traffic,
    broadcast: Traffic,
    /// By length of the frame with its check sequence: up to 64, 127, 255, 511, 1023, 1518, 2047, 4095, 8191, 10239 (RFC 2819, extended).
    sizes: [AtomicU64; Self::SIZES.len()],
}

impl Direction {
    /// Upper ends of the size classes, in bytes with the frame check sequence.
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

    /// The traffic to one kind of destination.
    pub fn of(&self, cast: CastType) -> &Traffic {
        match cast {
            CastType::Unicast => &self.unicast,
            CastType::Multicast => &self.multicast,
            CastType::Broadcast => &self.broadcast,
        }
    }

    /// Frames of a size class.
    pub fn size_class(&self, class: usize) -> u64 {
        self.sizes[class].load(Ordering::Relaxed)
    }

    /// All packets and bytes.
    pub fn total(&self) -> (u64, u64) {
        [&self.unicast, &self.multicast, &self.broadcast]
            .map(Traffic::get)
            .into_iter()
            .fold((0, 0), |(packets, octets), (more, bytes)| {
                (packets + more, octets + bytes)
            })
    }

    /// Starts at zero again.
    pub fn clear(&self) {
        for traffic in [&self.unicast, &self.multicast, &self.broadcast] {
            traffic.clear();
        }
        self.sizes.iter().for_each(|class| class.store(0, Ordering::Relaxed));
    }
}

/// Completions, by where the data of their messages went.
#[derive(Debug, Default)]
pub struct CompletionCounters {
    /// To memory, or there were none.
    pub plain: AtomicU64,
    /// Into the completion itself (`MLX5_INLINE_SCATTER_32`, device.h).
    pub inline_32: AtomicU64,
    /// Into the lower half of a completion of 128 bytes (`MLX5_INLINE_SCATTER_64`).
    pub inline_64: AtomicU64,
}

/// RoCE packets in one direction, by kind of destination.
#[derive(Debug, Default)]
pub struct RdmaTraffic {
    /// To one.
    pub unicast: Traffic,
    /// To a group.
    pub multicast: Traffic,
}

impl RdmaTraffic {
    /// Counts packets.
    pub fn count(&self, burst: &Burst<'_>) {
        self.of(burst.cast()).count(burst);
    }

    /// The traffic to one kind of destination; all are a group's but one's own.
    pub fn of(&self, cast: CastType) -> &Traffic {
        match cast {
            CastType::Unicast => &self.unicast,
            CastType::Multicast | CastType::Broadcast => &self.multicast,
        }
    }

    /// Starts at zero again.
    pub fn clear(&self) {
        self.unicast.clear();
        self.multicast.clear();
    }
}

/// What went through the port.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// From the wire.
    pub received: Direction,
    /// To the wire.
    pub sent: Direction,
    /// Of what came from the wire, what was RDMA's.
    pub rdma_received: RdmaTraffic,
    /// Of what went to the wire, what was RDMA's.
    pub rdma_sent: RdmaTraffic,
    /// From the function to itself.
    pub loopback: Traffic,
    /// Frames from the wire that no rule of the guest took.
    pub unmatched: AtomicU64,
    /// Frames from the wire while the link was down or the function was off.
    pub refused: AtomicU64,
    /// Frames that no receive WQE was there for.
    pub out_of_buffer: AtomicU64,
    /// Frames for receive queues that are not ready.
    pub not_ready: AtomicU64,
    /// Frames of the guest that could not be sent.
    pub send_errors: AtomicU64,
}
