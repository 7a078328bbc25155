//! Netlink attributes of the kernel's answers, by number.

use std::collections::BTreeMap;

use netlink_packet_core::{NLA_HEADER_SIZE, NlasIterator};

use super::NetlinkError;

/// The attributes of one message or of one nest, by number.
///
/// A repeated number keeps its last value; in the answers of SMC only padding repeats. Numbers unknown to this program
/// are kept and ignored: later kernels may add some.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a> {
    values: BTreeMap<u16, &'a [u8]>,
}

impl<'a> Attributes<'a> {
    /// Parses the bytes of a message after its fixed headers, or of a nest.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, NetlinkError> {
        let mut values = BTreeMap::new();
        for attribute in NlasIterator::new(bytes) {
            let attribute = attribute.map_err(NetlinkError::malformed)?;
            let end = usize::from(attribute.length());
            values.insert(attribute.kind(), &attribute.into_inner()[NLA_HEADER_SIZE..end]);
        }
        Ok(Self { values })
    }

    /// Returns the payload of an attribute.
    pub(super) fn bytes(&self, number: u16) -> Option<&'a [u8]> {
        self.values.get(&number).copied()
    }

    /// Parses the attributes inside a nest; a missing nest has none.
    pub(super) fn nest(&self, number: u16) -> Result<Attributes<'a>, NetlinkError> {
        self.bytes(number)
            .map_or_else(|| Ok(Attributes::default()), Attributes::parse)
    }

    /// Reads an integer of 1, 2, 4 or 8 bytes.
    ///
    /// The attribute number does not determine the width: the kernel writes the CHID of a link group with four bytes
    /// although its header says two (net/smc/smc_core.c), and some counters with four or eight.
    pub(super) fn number(&self, number: u16) -> Result<Option<u64>, NetlinkError> {
        let Some(bytes) = self.bytes(number) else {
            return Ok(None);
        };
        let value = match *bytes {
            [a] => u64::from(a),
            [a, b] => u64::from(u16::from_ne_bytes([a, b])),
            [a, b, c, d] => u64::from(u32::from_ne_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            _ => {
                return Err(NetlinkError::malformed(format!(
                    "attribute {number} has {} bytes",
                    bytes.len()
                )));
            }
        };
        Ok(Some(value))
    }

    /// Reads an integer; a missing attribute counts as 0.
    pub(super) fn counter(&self, number: u16) -> Result<u64, NetlinkError> {
        Ok(self.number(number)?.unwrap_or(0))
    }

    /// Reads a boolean; a missing attribute counts as false.
    pub(super) fn flag(&self, number: u16) -> Result<bool, NetlinkError> {
        Ok(self.counter(number)? != 0)
    }

    /// Reads text up to its first zero byte, without trailing blanks. Missing or empty text is `None`.
    pub(super) fn text(&self, number: u16) -> Option<String> {
        let bytes = self.bytes(number)?;
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        let text = String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned();
        (!text.is_empty()).then_some(text)
    }
}

/// Attributes as the kernel writes them.
#[cfg(test)]
pub(super) mod emit {
    use netlink_packet_core::{DefaultNla, Emitable};

    /// Returns one attribute with its padding.
    pub(crate) fn attribute(number: u16, value: &[u8]) -> Vec<u8> {
        let attribute = DefaultNla::new(number, value.to_vec());
        let mut bytes = vec![0; attribute.buffer_len()];
        attribute.emit(&mut bytes);
        bytes
    }

    /// Returns a text attribute with its terminating zero byte.
    pub(crate) fn text_attribute(number: u16, text: &str) -> Vec<u8> {
        attribute(number, &[text.as_bytes(), &[0]].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::emit::{attribute, text_attribute};
    use super::*;

    #[test]
    fn numbers_and_text_come_back() {
        let mut bytes = attribute(1, &[7]);
        bytes.extend(attribute(2, &0x1234_u16.to_ne_bytes()));
        bytes.extend(attribute(3, &5_u32.to_ne_bytes()));
        bytes.extend(attribute(4, &u64::MAX.to_ne_bytes()));
        bytes.extend(text_attribute(5, "HELLO  "));
        bytes.extend(text_attribute(6, ""));
        let attributes = Attributes::parse(&bytes).unwrap();
        assert_eq!(attributes.number(1).unwrap(), Some(7));
        assert_eq!(attributes.number(2).unwrap(), Some(0x1234));
        assert_eq!(attributes.number(3).unwrap(), Some(5));
        assert_eq!(attributes.number(4).unwrap(), Some(u64::MAX));
        assert_eq!(attributes.text(5).as_deref(), Some("HELLO"));
        assert_eq!(attributes.text(6), None);
        assert_eq!(attributes.number(9).unwrap(), None);
    }

    #[test]
    fn nests_open_with_and_without_the_nested_flag() {
        let inner = attribute(1, &[7]);
        for number in [3, 3 | netlink_packet_core::NLA_F_NESTED] {
            let outer = attribute(number, &inner);
            let attributes = Attributes::parse(&outer).unwrap();
            assert_eq!(attributes.nest(3).unwrap().number(1).unwrap(), Some(7));
            assert!(attributes.nest(4).unwrap().bytes(1).is_none());
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let bytes = attribute(1, &[1, 2, 3]);
        assert!(Attributes::parse(&bytes).unwrap().number(1).is_err());
        assert!(Attributes::parse(&bytes[..6]).is_err());
    }
}
