//! Reasons of a fallback to TCP: the codes of the handshake with names (`SMC_CLC_DECL_*` in net/smc/smc_clc.h).

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// A code of the handshake; 0 is no fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FallbackReason(pub u32);

/// Codes, names without `SMC_CLC_DECL_`, and meanings.
const KNOWN: [(u32, &str, &str); 37] = [
    (
        0x0101_0000,
        "MEM",
        "not enough memory, or a buffer could not be registered or attached",
    ),
    (0x0201_0000, "TIMEOUT_CL", "SMC-R: no answer while confirming a link"),
    (0x0202_0000, "TIMEOUT_AL", "SMC-R: no answer while adding a link"),
    (0x0300_0000, "CNFERR", "configuration error"),
    (0x0301_0000, "PEERNOSMC", "the peer's socket is not an SMC socket"),
    (0x0302_0000, "IPSEC", "IPsec is in use"),
    (0x0303_0000, "NOSMCDEV", "no SMC device, neither D nor R"),
    (0x0303_0001, "NOSMCDDEV", "no SMC-D device"),
    (0x0303_0002, "NOSMCRDEV", "no SMC-R device"),
    (0x0303_0003, "NOISM2SUPP", "no device supports SMC-D version 2"),
    (0x0303_0004, "NOV2EXT", "the peer sent no part for version 2"),
    (0x0303_0005, "NOV2DEXT", "the peer sent no part for SMC-D version 2"),
    (0x0303_0006, "NOSEID", "the peer sent no system EID"),
    (
        0x0303_0007,
        "NOSMCD2DEV",
        "no common SMC-D version 2 device: fabric differs or peer not reachable",
    ),
    (0x0303_0008, "NOUEID", "no common user-defined EID"),
    (0x0303_0009, "RELEASEERR", "no common release"),
    (0x0303_000a, "MAXCONNERR", "no common maximum of connections"),
    (0x0303_000b, "MAXLINKERR", "no common maximum of links"),
    (0x0304_0000, "MODEUNSUPP", "the modes of the two sides do not match"),
    (0x0305_0000, "RMBE_EC", "the peer has an eye catcher in its buffer"),
    (
        0x0306_0000,
        "OPTUNSUPP",
        "a socket option that SMC cannot do, such as TCP fast open",
    ),
    (0x0307_0000, "DIFFPREFIX", "different IP prefixes"),
    (0x0308_0000, "GETVLANERR", "the VLAN of the IP device cannot be found"),
    (
        0x0309_0000,
        "ISMVLANERR",
        "the VLAN cannot be registered with the ISM device",
    ),
    (0x030a_0000, "NOACTLINK", "SMC-R: no active link"),
    (
        0x030b_0000,
        "NOSRVLINK",
        "SMC-R: the link the server names is not there",
    ),
    (0x030c_0000, "VERSMISMAT", "the versions do not match"),
    (0x030d_0000, "MAX_DMB", "the device has no room for another buffer"),
    (0x030e_0000, "NOROUTE", "SMC-R: no route to the peer"),
    (0x030f_0000, "NOINDIRECT", "SMC-R: direct and indirect do not match"),
    (
        0x0400_0000,
        "SYNCERR",
        "the two sides do not agree about the link group",
    ),
    (0x0500_0000, "PEERDECL", "the peer declined; its diagnosis says why"),
    (0x0999_0000, "INTERR", "internal error"),
    (0x0999_0001, "ERR_RTOK", "SMC-R: remote token"),
    (0x0999_0002, "ERR_RDYLNK", "SMC-R: link not ready"),
    (0x0999_0003, "ERR_REGBUF", "SMC-R: buffers could not be registered"),
    (0, "NONE", "no fallback"),
];

impl FallbackReason {
    fn known(self) -> Option<(&'static str, &'static str)> {
        KNOWN
            .iter()
            .find(|(code, ..)| *code == self.0)
            .map(|(_, name, meaning)| (*name, *meaning))
    }

    /// Returns the kernel's name without its prefix.
    pub fn name(self) -> Option<&'static str> {
        self.known().map(|(name, _)| name)
    }

    /// Returns the meaning of the code.
    pub fn meaning(self) -> Option<&'static str> {
        self.known().map(|(_, meaning)| meaning)
    }
}

impl fmt::Display for FallbackReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some(_) if self.0 == 0 => formatter.write_str("none"),
            Some((name, meaning)) => write!(formatter, "{:#010x} {name} ({meaning})", self.0),
            None => write!(formatter, "{:#010x}", self.0),
        }
    }
}

impl Serialize for FallbackReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("FallbackReason", 2)?;
        fields.serialize_field("code", &format!("{:#010x}", self.0))?;
        fields.serialize_field("name", &self.name())?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_codes_have_names() {
        assert_eq!(FallbackReason(0x0303_0007).name(), Some("NOSMCD2DEV"));
        assert!(
            FallbackReason(0x0303_0008)
                .to_string()
                .starts_with("0x03030008 NOUEID (")
        );
        assert_eq!(FallbackReason(0).to_string(), "none");
    }

    #[test]
    fn unknown_codes_are_numbers() {
        assert_eq!(FallbackReason(0x1234).name(), None);
        assert_eq!(FallbackReason(0x1234).to_string(), "0x00001234");
    }

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<u32> = KNOWN.iter().map(|(code, ..)| *code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), KNOWN.len());
    }
}
