//! PNETIDs: names of physical networks, by which SMC-R finds the devices of one network (net/smc/smc_pnet.c).

use std::str::FromStr;

use netlink_packet_core::DefaultNla;

use super::NetlinkError;
use super::family::SmcFamily;

/// `SMCR_GENL_FAMILY_NAME`.
const FAMILY: &str = "SMC_PNETID";
/// `SMC_PNETID_ADD`.
const ADD: u8 = 2;
/// `SMC_PNETID_NAME`, `SMC_PNETID_ETHNAME`, `SMC_PNETID_IBNAME`, `SMC_PNETID_IBPORT`.
mod attribute {
    pub(super) const NAME: u16 = 1;
    pub(super) const INTERFACE: u16 = 2;
    pub(super) const DEVICE: u16 = 3;
    pub(super) const PORT: u16 = 4;
}
/// `SMC_MAX_PNETID_LEN`.
const LENGTH: usize = 16;

/// An invalid PNETID.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a PNETID: 1 to 16 characters A-Z and 0-9")]
pub struct BadPnetid(String);

/// A PNETID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pnetid(String);

impl FromStr for Pnetid {
    type Err = BadPnetid;

    fn from_str(text: &str) -> Result<Self, BadPnetid> {
        let good = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        if (1..=LENGTH).contains(&text.len()) && text.bytes().all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadPnetid(text.to_owned()))
        }
    }
}

fn text(number: u16, text: &str) -> DefaultNla {
    DefaultNla::new(number, format!("{text}\0").into_bytes())
}

/// Says that an interface is on a network.
///
/// # Errors
///
/// Fails without CAP_NET_ADMIN, and when the interface has a PNETID already.
pub fn add_interface(pnetid: &Pnetid, interface: &str) -> Result<(), NetlinkError> {
    let attributes = [text(attribute::NAME, &pnetid.0), text(attribute::INTERFACE, interface)];
    SmcFamily::open_named(FAMILY)?.execute(ADD, "AddPnetid", &attributes)
}

/// Says that a port of an RDMA device is on a network.
///
/// # Errors
///
/// Fails without CAP_NET_ADMIN, and when the port has a PNETID already.
pub fn add_device(pnetid: &Pnetid, device: &str, port: u8) -> Result<(), NetlinkError> {
    let attributes = [
        text(attribute::NAME, &pnetid.0),
        text(attribute::DEVICE, device),
        DefaultNla::new(attribute::PORT, vec![port]),
    ];
    SmcFamily::open_named(FAMILY)?.execute(ADD, "AddPnetid", &attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_characters_of_the_kernel_are_accepted() {
        assert!("NET1".parse::<Pnetid>().is_ok());
        for bad in ["", "net1", "NET 1", "NET-1", "ABCDEFGHIJKLMNOPQ"] {
            assert!(bad.parse::<Pnetid>().is_err(), "{bad}");
        }
    }
}
