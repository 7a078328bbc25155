//! The address of an ISM device: 16 bytes, stored by SMC as two integers.

use std::fmt;

use serde::{Serialize, Serializer};

/// A GID, displayed as a UUID as in `/sys/class/dibs/*/gid`.
///
/// SMC stores the first eight bytes as the integer `gid` and the last eight as `gid_ext`, both big-endian
/// (`copy_to_smcdgid` in net/smc/smc_ism.h). Native ISM devices have only the first half.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Gid(u128);

impl Gid {
    /// Combines the two integers of the kernel.
    pub fn from_halves(gid: u64, gid_ext: u64) -> Self {
        Self(u128::from(gid) << 64 | u128::from(gid_ext))
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(
            formatter,
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Gid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_as_uuid() {
        let gid = Gid::from_halves(0x0011_2233_4455_6677, 0x8899_aabb_ccdd_eeff);
        assert_eq!(gid.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(
            serde_json::to_string(&gid).unwrap(),
            "\"00112233-4455-6677-8899-aabbccddeeff\""
        );
    }
}
