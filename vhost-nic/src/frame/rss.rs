//! Receive side scaling: a hash of addresses and ports selects the receive queue of a frame.

use super::view::{FrameView, Network, Transport};

/// Length of the Toeplitz key, `rx_hash_toeplitz_key` of the TIR context, in bytes.
pub const KEY_LENGTH: usize = 40;
/// Longest input: two IPv6 addresses and two ports.
const MAX_INPUT: usize = 36;

/// Bits of `selected_fields` of `rx_hash_field_select` (`MLX5_HASH_FIELD_SEL_*`, `include/linux/mlx5/device.h`).
pub mod selected {
    /// Source address.
    pub const SRC_IP: u32 = 1;
    /// Destination address.
    pub const DST_IP: u32 = 1 << 1;
    /// Source port.
    pub const L4_SPORT: u32 = 1 << 2;
    /// Destination port.
    pub const L4_DPORT: u32 = 1 << 3;
    /// Security parameter index of ESP or AH.
    pub const IPSEC_SPI: u32 = 1 << 4;
}

/// Toeplitz hash of one key: a table of contributions to the hash for every half byte of the input.
#[derive(Clone)]
pub struct Toeplitz {
    tables: Box<[[u32; 16]; 2 * MAX_INPUT]>,
}

impl std::fmt::Debug for Toeplitz {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Toeplitz").finish_non_exhaustive()
    }
}

impl Toeplitz {
    /// Computes the tables of a key.
    pub fn new(key: &[u8; KEY_LENGTH]) -> Self {
        let mut tables = Box::new([[0; 16]; 2 * MAX_INPUT]);
        for (position, table) in tables.iter_mut().enumerate() {
            // Bit n of the input, if set, contributes the 32 bits of the key from bit n on; those of a half byte are
            // within these 40.
            let byte = position / 2;
            let window = key[byte..byte + 5]
                .iter()
                .fold(0u64, |window, &byte| window << 8 | u64::from(byte));
            let first_bit = position % 2 * 4;
            for (value, sum) in table.iter_mut().enumerate() {
                for bit in 0..4 {
                    if value & (8 >> bit) != 0 {
                        *sum ^= (window >> (8 - first_bit - bit)) as u32;
                    }
                }
            }
        }
        Self { tables }
    }

    /// Hashes at most 36 bytes of `input`.
    pub fn hash(&self, input: &[u8]) -> u32 {
        let (pairs, _) = self.tables.as_chunks::<2>();
        input.iter().zip(pairs).fold(0, |hash, (&byte, [high, low])| {
            hash ^ high[usize::from(byte >> 4)] ^ low[usize::from(byte & 0xf)]
        })
    }
}

/// `rx_hash_fn` of the TIR context.
#[derive(Debug, Clone)]
pub enum HashFunction {
    /// `MLX5_RX_HASH_FN_INVERTED_XOR8`: exclusive or of all bytes, with the order of the bits inverted, which the
    /// driver undoes in the indirection table (`mlx5e_bits_invert`,
    /// `drivers/net/ethernet/mellanox/mlx5/core/en/rqt.c`).
    InvertedXor8,
    /// `MLX5_RX_HASH_FN_TOEPLITZ`.
    Toeplitz(Toeplitz),
}

/// `l3_prot_type` of `rx_hash_field_select`: protocol whose addresses are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L3Protocol {
    /// Value 0.
    Ipv4,
    /// Value 1.
    Ipv6,
}

/// `l4_prot_type` of `rx_hash_field_select`: protocol whose ports are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L4Protocol {
    /// Value 0.
    Tcp,
    /// Value 1.
    Udp,
}

/// RSS configuration of a TIR context: hash function and input.
#[derive(Debug, Clone)]
pub struct RssHash {
    /// Hash function.
    pub function: HashFunction,
    /// `rx_hash_symmetric`: both directions of a flow have the same hash. In each pair the source is replaced by the OR
    /// of both, and the destination by their XOR (`RXH_XFRM_SYM_OR_XOR`, `include/uapi/linux/ethtool.h`).
    pub symmetric: bool,
    /// Protocol whose addresses are hashed.
    pub l3: L3Protocol,
    /// Protocol whose ports are hashed.
    pub l4: L4Protocol,
    /// Bits of [`selected`].
    pub fields: u32,
}

/// Hash of a frame, as reported in the completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HashResult {
    /// `rss_hash_result`.
    pub value: u32,
    /// `rss_hash_type`: hashed headers (`CQE_RSS_*`, `include/linux/mlx5/device.h`). 0 if none.
    pub kind: u8,
}

impl HashResult {
    /// Index into an indirection table of `size` entries.
    pub fn entry(&self, size: usize) -> usize {
        (self.value as usize).checked_rem(size).unwrap_or(0)
    }
}

/// `rss_hash_type`: four 2-bit fields with the header that source address, destination address, source port and
/// destination port were hashed from; 0 is none.
mod kind {
    pub const SRC_IP_SHIFT: u32 = 0;
    pub const DST_IP_SHIFT: u32 = 2;
    pub const SPORT_SHIFT: u32 = 4;
    pub const DPORT_SHIFT: u32 = 6;
    pub const IPV4: u8 = 1;
    pub const IPV6: u8 = 2;
    pub const TCP: u8 = 1;
    pub const UDP: u8 = 2;
    pub const IPSEC: u8 = 3;
}

/// Input of the hash function.
struct Input {
    bytes: [u8; MAX_INPUT],
    length: usize,
    kind: u8,
}

impl Input {
    fn push(&mut self, field: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.length..self.length + field.len()) {
            room.copy_from_slice(field);
            self.length += field.len();
        }
    }

    /// Appends the selected ones of two fields.
    fn push_pair<const N: usize>(&mut self, symmetric: bool, source: Option<[u8; N]>, destination: Option<[u8; N]>) {
        if let (true, Some(a), Some(b)) = (symmetric, source, destination) {
            self.push(&std::array::from_fn::<u8, N, _>(|i| a[i] | b[i]));
            self.push(&std::array::from_fn::<u8, N, _>(|i| a[i] ^ b[i]));
        } else {
            for field in [source, destination].into_iter().flatten() {
                self.push(&field);
            }
        }
    }
}

impl RssHash {
    /// Hashes the selected fields that the frame has.
    pub fn hash(&self, view: &FrameView<'_>) -> HashResult {
        let mut input = Input {
            bytes: [0; MAX_INPUT],
            length: 0,
            kind: 0,
        };
        match (self.l3, view.network) {
            (L3Protocol::Ipv4, Network::Ipv4(header)) => {
                self.push_addresses(&mut input, kind::IPV4, header.source, header.destination);
            }
            (L3Protocol::Ipv6, Network::Ipv6(header)) => {
                self.push_addresses(&mut input, kind::IPV6, header.source, header.destination);
            }
            _ => return HashResult::default(),
        }
        match (self.l4, view.transport) {
            (L4Protocol::Tcp, Transport::Tcp(header)) => {
                self.push_ports(&mut input, kind::TCP, header.source_port, header.destination_port);
            }
            (L4Protocol::Udp, Transport::Udp(header)) => {
                self.push_ports(&mut input, kind::UDP, header.source_port, header.destination_port);
            }
            (_, Transport::Ipsec { spi }) if self.fields & selected::IPSEC_SPI != 0 => {
                input.push(&spi.to_be_bytes());
                input.kind |= kind::IPSEC << kind::DPORT_SHIFT;
            }
            _ => {}
        }
        if input.length == 0 {
            return HashResult::default();
        }
        let bytes = &input.bytes[..input.length];
        let value = match &self.function {
            HashFunction::InvertedXor8 => u32::from(bytes.iter().fold(0u8, |sum, byte| sum ^ byte).reverse_bits()),
            HashFunction::Toeplitz(toeplitz) => toeplitz.hash(bytes),
        };
        HashResult {
            value,
            kind: input.kind,
        }
    }

    fn push_addresses<const N: usize>(&self, input: &mut Input, version: u8, source: [u8; N], destination: [u8; N]) {
        let source = (self.fields & selected::SRC_IP != 0).then_some(source);
        let destination = (self.fields & selected::DST_IP != 0).then_some(destination);
        input.kind |= source.map_or(0, |_| version << kind::SRC_IP_SHIFT);
        input.kind |= destination.map_or(0, |_| version << kind::DST_IP_SHIFT);
        input.push_pair(self.symmetric, source, destination);
    }

    fn push_ports(&self, input: &mut Input, protocol: u8, source: u16, destination: u16) {
        let source = (self.fields & selected::L4_SPORT != 0).then_some(source.to_be_bytes());
        let destination = (self.fields & selected::L4_DPORT != 0).then_some(destination.to_be_bytes());
        input.kind |= source.map_or(0, |_| protocol << kind::SPORT_SHIFT);
        input.kind |= destination.map_or(0, |_| protocol << kind::DPORT_SHIFT);
        input.push_pair(self.symmetric, source, destination);
    }
}

#[cfg(test)]
mod tests;
