//! Internet checksums (RFC 1071): computing them, filling them in on transmit, verifying them on receive.

use super::view::{FrameView, Network, Transport, protocol};

/// One's complement sum over bytes, added in parts of any length.
///
/// Computed in native byte order, as RFC 1071 section 2 allows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum {
    value: u64,
    odd: bool,
}

impl Sum {
    /// Sum of no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sum of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = Self::new();
        sum.add(bytes);
        sum
    }

    /// Appends `bytes`.
    pub fn add(&mut self, bytes: &[u8]) {
        self.join(Self {
            value: sum_words(bytes),
            odd: bytes.len() % 2 == 1,
        });
    }

    /// Appends a big-endian 16-bit number.
    pub fn add_u16(&mut self, value: u16) {
        self.add(&value.to_be_bytes());
    }

    /// Appends the bytes that `other` is the sum of.
    pub fn join(&mut self, other: Self) {
        // At an odd offset every byte is in the other half of its word.
        let value = if self.odd {
            u64::from(fold(other.value).swap_bytes())
        } else {
            other.value
        };
        let (sum, carry) = self.value.overflowing_add(value);
        self.value = sum + u64::from(carry);
        self.odd ^= other.odd;
    }

    /// Folds the sum to 16 bits, not inverted. It is 0 only if all bytes are 0.
    pub fn fold(self) -> u16 {
        u16::from_be(fold(self.value))
    }

    /// Returns the checksum: the inverted sum.
    pub fn checksum(self) -> u16 {
        !self.fold()
    }
}

/// Sums words in native byte order; an incomplete last word is padded with 0.
fn sum_words(bytes: &[u8]) -> u64 {
    // Four sums of words split into halves, so that there is no carry: the compiler vectorizes them.
    let (blocks, rest) = bytes.as_chunks::<32>();
    let mut sums = [0; 4];
    for block in blocks {
        for (sum, word) in sums.iter_mut().zip(block.as_chunks::<8>().0) {
            let word = u64::from_ne_bytes(*word);
            *sum += (word & 0xffff_ffff) + (word >> 32);
        }
    }
    let (words, rest) = rest.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let tail: u64 = words
        .iter()
        .chain([&last])
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum();
    sums.iter().sum::<u64>() + tail
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Checksums that a send requests: `cs_flags` of the Ethernet segment (`MLX5_ETH_WQE_L3_CSUM` and
/// `MLX5_ETH_WQE_L4_CSUM`, `include/linux/mlx5/qp.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fill {
    /// Checksum of the IPv4 header.
    pub l3: bool,
    /// Checksum of TCP or UDP.
    pub l4: bool,
}

impl Fill {
    /// Decodes `cs_flags`.
    pub fn from_cs_flags(cs_flags: u8) -> Self {
        Self {
            l3: cs_flags & 0x40 != 0,
            l4: cs_flags & 0x80 != 0,
        }
    }
}

/// Offset and value of a checksum field, which counts as 0 in the sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    offset: usize,
    value: u16,
}

impl Field {
    fn store(self, frame: &mut [u8]) {
        frame[self.offset..self.offset + 2].copy_from_slice(&self.value.to_be_bytes());
    }
}

/// Fills in the checksums of a frame, whatever the fields contain. A frame without such a field stays unchanged.
pub fn fill(frame: &mut [u8], which: Fill) {
    let Some(view) = FrameView::new(frame) else { return };
    let l3 = if which.l3 { ipv4_header(&view) } else { None };
    let l4 = if which.l4 { transport(&view) } else { None };
    for field in [l3, l4].into_iter().flatten() {
        field.store(frame);
    }
}

fn ipv4_header(view: &FrameView<'_>) -> Option<Field> {
    let Network::Ipv4(header) = view.network else {
        return None;
    };
    let header = &view.bytes()[view.network_offset..][..header.header_length];
    Some(Field {
        offset: view.network_offset + 10,
        value: sum_without(header, 10).checksum(),
    })
}

fn transport(view: &FrameView<'_>) -> Option<Field> {
    let at = match view.transport {
        Transport::Tcp(_) => 16,
        Transport::Udp(_) => 6,
        Transport::None | Transport::Ipsec { .. } => return None,
    };
    let mut sum = pseudo_header(view);
    sum.join(sum_without(&view.bytes()[view.transport_range()], at));
    let value = match (view.transport, sum.checksum()) {
        // 0 means no checksum (RFC 768).
        (Transport::Udp(_), 0) => 0xffff,
        (_, checksum) => checksum,
    };
    Some(Field {
        offset: view.transport_offset + at,
        value,
    })
}

/// Sum of `bytes` with the 16 bits at `offset`, which must be even, as 0.
fn sum_without(bytes: &[u8], offset: usize) -> Sum {
    let mut sum = Sum::of(&bytes[..offset]);
    sum.add(&bytes[offset + 2..]);
    sum
}

/// Sum of the pseudo header of TCP or UDP, not inverted: what the checksum field has until the checksum is filled in.
pub fn pseudo_header_sum(view: &FrameView<'_>) -> u16 {
    pseudo_header(view).fold()
}

/// Sum of the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1).
fn pseudo_header(view: &FrameView<'_>) -> Sum {
    let mut sum = Sum::new();
    match view.network {
        Network::None => {}
        Network::Ipv4(header) => {
            sum.add(&header.source);
            sum.add(&header.destination);
        }
        Network::Ipv6(header) => {
            sum.add(&header.source);
            sum.add(&header.destination);
        }
    }
    sum.add_u16(match view.transport {
        Transport::Tcp(_) => protocol::TCP.into(),
        Transport::Udp(_) => protocol::UDP.into(),
        Transport::None | Transport::Ipsec { .. } => 0,
    });
    sum.add(&(view.transport_range().len() as u32).to_be_bytes());
    sum
}

/// Checksum fields of a completion, for a received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// `check_sum` of the CQE: one's complement sum of the bytes behind the Ethernet header, not inverted.
    pub check_sum: u16,
    /// `CQE_L3_OK`: an IP header with a correct checksum, if it has one.
    pub l3_ok: bool,
    /// `CQE_L4_OK`: TCP or UDP with a correct checksum. False for fragments, whose checksum no NIC can verify.
    pub l4_ok: bool,
}

/// Bytes that [`Verified::check_sum`] covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// The IP packet, without VLAN tags and padding, which the driver adds (`mlx5e_skb_csum_fixup`,
    /// `drivers/net/ethernet/mellanox/mlx5/core/en_rx.c`).
    Packet,
    /// All bytes behind the 14 of the Ethernet header: capability `cqe_checksum_full`.
    Full,
}

/// Verifies the checksums of a received frame, in one pass over its bytes.
pub fn verify(view: &FrameView<'_>, coverage: Coverage) -> Verified {
    let bytes = view.bytes();
    let header = Sum::of(&bytes[view.network_offset..view.transport_offset]);
    let payload = Sum::of(&bytes[view.transport_range()]);
    let mut check_sum = match coverage {
        Coverage::Packet => Sum::new(),
        Coverage::Full => Sum::of(&bytes[super::view::ETHERNET_HEADER..view.network_offset]),
    };
    check_sum.join(header);
    check_sum.join(payload);
    if coverage == Coverage::Full {
        check_sum.add(&bytes[view.network_end..]);
    }
    Verified {
        check_sum: check_sum.fold(),
        l3_ok: match view.network {
            Network::None => false,
            // The sum over a correct header, its checksum included, is all ones.
            Network::Ipv4(_) => !view.truncated && header.checksum() == 0,
            Network::Ipv6(_) => !view.truncated,
        },
        l4_ok: !view.truncated && transport_ok(view, payload),
    }
}

fn transport_ok(view: &FrameView<'_>, payload: Sum) -> bool {
    match view.transport {
        Transport::None | Transport::Ipsec { .. } => return false,
        Transport::Tcp(_) => {}
        Transport::Udp(udp) => {
            if usize::from(udp.length) != view.transport_range().len() {
                return false;
            }
            let field = &view.bytes()[view.transport_offset + 6..][..2];
            if field == [0, 0] {
                // No checksum, which is valid for IPv4 only.
                return matches!(view.network, Network::Ipv4(_));
            }
        }
    }
    let mut sum = pseudo_header(view);
    sum.join(payload);
    sum.checksum() == 0
}

#[cfg(test)]
mod tests;
