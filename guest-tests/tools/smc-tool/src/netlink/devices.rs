//! Devices of SMC-D and SMC-R.

use serde::Serialize;

use super::NetlinkError;
use super::attributes::Attributes;
use super::family::{Command, Nest, SmcFamily};

/// `SMC_NLA_DEV_USE_CNT`.
const USE_COUNT: u16 = 1;
/// `SMC_NLA_DEV_IS_CRIT`.
const CRITICAL: u16 = 2;
/// `SMC_NLA_DEV_PCI_FID`.
const PCI_FUNCTION: u16 = 3;
/// `SMC_NLA_DEV_PCI_CHID`.
const PCI_CHID: u16 = 4;
/// `SMC_NLA_DEV_PCI_VENDOR`.
const PCI_VENDOR: u16 = 5;
/// `SMC_NLA_DEV_PCI_DEVICE`.
const PCI_DEVICE: u16 = 6;
/// `SMC_NLA_DEV_PCI_ID`.
const PCI_ID: u16 = 7;
/// `SMC_NLA_DEV_PORT`.
const PORT: u16 = 8;
/// `SMC_NLA_DEV_IB_NAME`.
const IB_NAME: u16 = 10;
/// `SMC_NLA_DEV_PORT_PNET_USR`.
const PORT_PNET_BY_USER: u16 = 1;
/// `SMC_NLA_DEV_PORT_PNETID`.
const PORT_PNETID: u16 = 2;

/// A device of SMC-D or SMC-R. The kernel does not list the dibs loopback device here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Device {
    /// PCI address.
    pub pci_id: Option<String>,
    /// Name of the RDMA device.
    pub ib_name: Option<String>,
    /// PCI vendor ID.
    pub pci_vendor: u64,
    /// PCI device ID.
    pub pci_device: u64,
    /// PCI function ID; s390x only.
    pub pci_function: u64,
    /// PCHID of the PCI function; s390x only. Not the CHID of SMC-D.
    pub pci_chid: u64,
    /// Number of link groups on the device.
    pub link_groups: u64,
    /// Whether connections depend on the device.
    pub critical: bool,
    /// PNETID of the first port.
    pub pnetid: Option<String>,
    /// Whether the PNETID comes from the user-defined table.
    pub pnetid_by_user: bool,
}

impl Device {
    fn decode(attributes: &Attributes<'_>) -> Result<Self, NetlinkError> {
        let port = attributes.nest(PORT)?;
        Ok(Self {
            pci_id: attributes.text(PCI_ID),
            ib_name: attributes.text(IB_NAME),
            pci_vendor: attributes.counter(PCI_VENDOR)?,
            pci_device: attributes.counter(PCI_DEVICE)?,
            pci_function: attributes.counter(PCI_FUNCTION)?,
            pci_chid: attributes.counter(PCI_CHID)?,
            link_groups: attributes.counter(USE_COUNT)?,
            critical: attributes.flag(CRITICAL)?,
            pnetid: port.text(PORT_PNETID),
            pnetid_by_user: port.flag(PORT_PNET_BY_USER)?,
        })
    }
}

/// Lists the SMC-D devices, loopback excluded.
///
/// # Errors
///
/// Returns the error of the netlink exchange.
pub fn smcd(family: &mut SmcFamily) -> Result<Vec<Device>, NetlinkError> {
    list(family, Command::GetDevicesSmcd, Nest::DeviceSmcd)
}

/// Lists the SMC-R devices.
///
/// # Errors
///
/// Returns the error of the netlink exchange.
pub fn smcr(family: &mut SmcFamily) -> Result<Vec<Device>, NetlinkError> {
    list(family, Command::GetDevicesSmcr, Nest::DeviceSmcr)
}

fn list(family: &mut SmcFamily, command: Command, nest: Nest) -> Result<Vec<Device>, NetlinkError> {
    family
        .list(command)?
        .iter()
        .map(|body| Device::decode(&Attributes::parse(body)?.nest(nest as u16)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::attributes::emit::{attribute, text_attribute};
    use super::*;

    #[test]
    fn answer_is_decoded() {
        let mut bytes = attribute(USE_COUNT, &2_u32.to_ne_bytes());
        bytes.extend(attribute(CRITICAL, &[1]));
        bytes.extend(attribute(PCI_VENDOR, &0x1af4_u16.to_ne_bytes()));
        bytes.extend(attribute(PCI_DEVICE, &0x1065_u16.to_ne_bytes()));
        bytes.extend(text_attribute(PCI_ID, "0000:00:04.0"));
        let mut port = attribute(PORT_PNET_BY_USER, &[0]);
        port.extend(text_attribute(PORT_PNETID, ""));
        bytes.extend(attribute(PORT, &port));
        let device = Device::decode(&Attributes::parse(&bytes).unwrap()).unwrap();
        assert_eq!(device.pci_id.as_deref(), Some("0000:00:04.0"));
        assert_eq!((device.pci_vendor, device.pci_device), (0x1af4, 0x1065));
        assert_eq!(device.link_groups, 2);
        assert!(device.critical);
        assert_eq!(device.pnetid, None);
    }
}
