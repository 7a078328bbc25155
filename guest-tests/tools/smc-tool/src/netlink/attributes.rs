//! Netlink attributes: reading the ones of an answer, writing the ones of a request.

use std::collections::BTreeMap;

use netlink_packet_core::{DefaultNla, Emitable, NlasIterator};

use super::NetlinkError;

/// The attributes of one message or of one nest, by number.
///
/// A number that comes more than once keeps its last value; only padding does that in the answers of SMC. Numbers that
/// this program does not know are kept and never looked at: later kernels may add some.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a> {
    values: BTreeMap<u16, &'a [u8]>,
}

impl<'a> Attributes<'a> {
    /// Splits the bytes of a message behind its fixed headers, or of a nest.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, NetlinkError> {
        let mut values = BTreeMap::new();
        let mut position = 0_usize;
        for attribute in NlasIterator::new(bytes) {
            let attribute = attribute.map_err(NetlinkError::malformed)?;
            let start = position + 4;
            let end = position + usize::from(attribute.length());
            let value = bytes
                .get(start..end)
                .ok_or_else(|| NetlinkError::malformed("attribute past the end"))?;
            values.insert(attribute.kind(), value);
            position = end.next_multiple_of(4);
        }
        Ok(Self { values })
    }

    /// The bytes of an attribute.
    pub(super) fn bytes(&self, number: u16) -> Option<&'a [u8]> {
        self.values.get(&number).copied()
    }

    /// The attributes inside a nest. A missing nest has none.
    pub(super) fn nest(&self, number: u16) -> Result<Attributes<'a>, NetlinkError> {
        self.bytes(number)
            .map_or_else(|| Ok(Attributes::default()), Attributes::parse)
    }

    /// A number of 1, 2, 4 or 8 bytes.
    ///
    /// The width is not fixed by the attribute: the kernel writes the CHID of a link group with four bytes although
    /// its header says two (net/smc/smc_core.c), and some counters with four or eight as they need.
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

    /// A number that is 0 when the kernel does not send it.
    pub(super) fn counter(&self, number: u16) -> Result<u64, NetlinkError> {
        Ok(self.number(number)?.unwrap_or(0))
    }

    /// A yes or no that is "no" when the kernel does not send it.
    pub(super) fn flag(&self, number: u16) -> Result<bool, NetlinkError> {
        Ok(self.counter(number)? != 0)
    }

    /// A text attribute up to its first zero byte, without blanks at its end. Missing or empty text is `None`.
    pub(super) fn text(&self, number: u16) -> Option<String> {
        let bytes = self.bytes(number)?;
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        let text = String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned();
        (!text.is_empty()).then_some(text)
    }
}

/// The bytes of one attribute of a request, with padding.
pub(super) fn attribute(number: u16, value: &[u8]) -> Vec<u8> {
    let attribute = DefaultNla::new(number, value.to_vec());
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

/// The bytes of a text attribute, with the zero byte that ends it.
pub(super) fn text_attribute(number: u16, text: &str) -> Vec<u8> {
    let mut value = text.as_bytes().to_vec();
    value.push(0);
    attribute(number, &value)
}

#[cfg(test)]
mod tests {
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
