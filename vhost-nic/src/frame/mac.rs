//! MAC addresses.
//!
//! A newtype, not the `macaddr` crate: frames and contexts are parsed with zerocopy, whose traits that crate does not
//! implement for its `MacAddr6`; and it does not parse the single hexadecimal digits that `--guest mac=` accepts.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A 48-bit MAC address, in transmission order.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

/// Text that is not a MAC address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a MAC address like 02:00:00:00:00:01")]
pub struct ParseMacError(String);

impl Mac {
    /// All zeros: no station has it.
    pub const ZERO: Self = Self([0; 6]);
    /// All ones: every station.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Joins bits 47:32 and 31:0, as contexts and commands carry them.
    pub const fn from_halves(high: u16, low: u32) -> Self {
        let ([a, b], [c, d, e, f]) = (high.to_be_bytes(), low.to_be_bytes());
        Self([a, b, c, d, e, f])
    }

    /// Splits into bits 47:32 and 31:0.
    pub const fn halves(self) -> (u16, u32) {
        let [a, b, c, d, e, f] = self.0;
        (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]))
    }

    /// Whether this is a group address (I/G bit), broadcast included.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether this is the broadcast address.
    pub const fn is_broadcast(self) -> bool {
        matches!(self.halves(), (0xffff, 0xffff_ffff))
    }

    /// Whether a station can have this address: neither a group address nor zero.
    pub const fn is_station(self) -> bool {
        !self.is_multicast() && !matches!(self.halves(), (0, 0))
    }

    /// EUI-64 made from the address by inserting `ff:fe`.
    pub const fn to_eui64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([a, b, c, 0xff, 0xfe, d, e, f])
    }

    /// Modified EUI-64, with the U/L bit inverted (RFC 4291, appendix A).
    pub const fn to_modified_eui64(self) -> u64 {
        self.to_eui64() ^ 2 << 56
    }
}

/// Kind of a destination address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CastType {
    /// One station.
    Unicast,
    /// A group of stations.
    Multicast,
    /// Every station.
    Broadcast,
}

impl CastType {
    /// Kind of a destination address.
    pub const fn of(destination: Mac) -> Self {
        if destination.is_broadcast() {
            Self::Broadcast
        } else if destination.is_multicast() {
            Self::Multicast
        } else {
            Self::Unicast
        }
    }
}

impl From<[u8; 6]> for Mac {
    fn from(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }
}

impl From<Mac> for [u8; 6] {
    fn from(mac: Mac) -> Self {
        mac.0
    }
}

impl AsRef<[u8]> for Mac {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Mac {
    type Err = ParseMacError;

    /// Parses six bytes of one or two hexadecimal digits, separated by colons.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(':');
        let mut mac = Self::ZERO;
        let complete = mac.0.iter_mut().all(|byte| {
            let part = parts
                .next()
                .filter(|part| matches!(part.len(), 1 | 2) && part.bytes().all(|c| c.is_ascii_hexdigit()));
            let parsed = part.and_then(|part| u8::from_str_radix(part, 16).ok());
            parsed.map(|value| *byte = value).is_some()
        });
        if complete && parts.next().is_none() {
            Ok(mac)
        } else {
            Err(ParseMacError(text.to_owned()))
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_parsed_and_formatted() {
        let mac = Mac([0x52, 0x54, 0, 0xaa, 0xc5, 0x10]);
        assert_eq!("52:54:0:Aa:c5:10".parse(), Ok(mac));
        assert_eq!(mac.to_string(), "52:54:00:aa:c5:10");
        assert_eq!(mac.to_string().parse(), Ok(mac));
        for bad in [
            "",
            "52",
            "52:54:00:00:c5",
            "52:54:00:00:c5:01:02",
            "52:54:00:00:c5:+1",
            "52:54:00:00:c5:",
            "52:54:00:00:c5:001",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_of_stations_groups_or_everybody() {
        let station = Mac([2, 0, 0, 0, 0, 1]);
        assert!(station.is_station() && !station.is_multicast() && !station.is_broadcast());
        let group = Mac([0x33, 0x33, 0, 0, 0, 1]);
        assert!(!group.is_station() && group.is_multicast() && !group.is_broadcast());
        assert!(!Mac::BROADCAST.is_station() && Mac::BROADCAST.is_multicast() && Mac::BROADCAST.is_broadcast());
        assert!(!Mac::ZERO.is_station() && !Mac::ZERO.is_multicast());
        let kinds = [station, group, Mac::BROADCAST].map(CastType::of);
        assert_eq!(kinds, [CastType::Unicast, CastType::Multicast, CastType::Broadcast]);
    }

    #[test]
    fn numbers_have_the_first_byte_on_top() {
        let mac = Mac([0x52, 0x54, 0, 0, 0xc5, 1]);
        assert_eq!(mac.halves(), (0x5254, 0x0000_c501));
        assert_eq!(Mac::from_halves(0x5254, 0x0000_c501), mac);
        assert_eq!(mac.to_eui64(), 0x5254_00ff_fe00_c501);
        assert_eq!(mac.to_modified_eui64(), 0x5054_00ff_fe00_c501);
    }
}
