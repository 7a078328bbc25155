//! Feature bits of the device (virtio 1.2, section 5.1.3).

use vhost::vhost_user::message::VhostUserVirtioFeatures;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::external_port::join::Offloads;
use crate::external_port::vnet_header::VnetHeader;

/// Bits that a device with one pair of queues offers. The control queue is the front-end's.
const OFFERED: [u32; 13] = [
    VIRTIO_F_VERSION_1,
    VIRTIO_RING_F_INDIRECT_DESC,
    VIRTIO_RING_F_EVENT_IDX,
    VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_HOST_USO,
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_GUEST_ECN,
];

/// Features that a device has, or a driver has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features(pub u64);

impl Features {
    /// Features that a device with `pairs` pairs of queues offers.
    ///
    /// QEMU enables queues before it accepts features (`vhost_net_start`, hw/net/vhost_net.c), and vhost-user-backend
    /// 0.24 ends the connection then, unless the protocol features are not offered. Without them there is one pair.
    pub fn offered(pairs: usize) -> Self {
        let bits = OFFERED.iter().fold(0, |bits, bit| bits | 1 << bit);
        let several = 1 << VIRTIO_NET_F_MQ | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        Self(if pairs > 1 { bits | several } else { bits })
    }

    fn has(self, bit: u32) -> bool {
        self.0 & 1 << bit != 0
    }

    /// Whether a frame may have several receive buffers.
    pub fn merges_buffers(self) -> bool {
        self.has(VIRTIO_NET_F_MRG_RXBUF)
    }

    /// Length of the header in front of each frame: without `num_buffers` for a legacy driver.
    pub fn header_length(self) -> usize {
        let has_count = self.has(VIRTIO_F_VERSION_1) || self.merges_buffers();
        size_of::<VnetHeader>() + if has_count { 2 } else { 0 }
    }

    /// Work on received frames that the driver takes over.
    pub fn offloads(self) -> Offloads {
        Offloads {
            checksum: self.has(VIRTIO_NET_F_GUEST_CSUM),
            tcp_v4: self.has(VIRTIO_NET_F_GUEST_TSO4),
            tcp_v6: self.has(VIRTIO_NET_F_GUEST_TSO6),
        }
    }
}
