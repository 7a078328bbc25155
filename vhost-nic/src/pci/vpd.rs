//! Vital product data of an adapter (PCI Local Bus Specification 3.0, appendix I).

use super::identity::Identity;
use crate::frame::mac::Mac;

/// Tags of resources: identifier string, read-only fields, end.
const IDENTIFIER: u8 = 0x82;
const READ_ONLY: u8 = 0x90;
const END: u8 = 0x78;

/// Returns the data of an adapter with this MAC address, which is its serial number.
pub(super) fn vital_product_data(identity: Identity, mac: Mac) -> Vec<u8> {
    let product = format!("{} (vhost-nic)", identity.product());
    let serial: String = mac.0.iter().map(|byte| format!("{byte:02X}")).collect();
    let mut fields = Vec::new();
    let mut field = |keyword: &[u8; 2], value: &[u8]| {
        fields.extend_from_slice(keyword);
        fields.push(value.len() as u8);
        fields.extend_from_slice(value);
    };
    field(b"PN", b"VHOST-NIC");
    field(b"EC", b"A1");
    field(b"SN", serial.as_bytes());
    // Serial number of the adapter, and its PCIe interface.
    field(b"V3", format!("{:016x}", mac.to_eui64()).as_bytes());
    field(b"V0", b"PCIeGen4 x16");
    let mut data = Vec::new();
    resource(&mut data, IDENTIFIER, product.as_bytes());
    // The checksum covers all bytes to itself.
    fields.extend_from_slice(b"RV\x01\x00");
    resource(&mut data, READ_ONLY, &fields);
    let sum = data.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = data.last_mut() {
        *checksum = sum.wrapping_neg();
    }
    data.push(END);
    data
}

fn resource(data: &mut Vec<u8>, tag: u8, content: &[u8]) {
    data.push(tag);
    data.extend_from_slice(&(content.len() as u16).to_le_bytes());
    data.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_named_and_add_up() {
        let data = vital_product_data(Identity::ConnectX5, Mac([2, 0, 0, 0, 0xc5, 1]));
        let name = usize::from(u16::from_le_bytes([data[1], data[2]]));
        assert_eq!(
            (data[0], &data[3..3 + name]),
            (IDENTIFIER, &b"ConnectX-5 (vhost-nic)"[..])
        );
        assert_eq!(data[3 + name], READ_ONLY);
        assert_eq!(data.last(), Some(&END));
        let text = String::from_utf8_lossy(&data);
        assert!(
            text.contains("SN\u{c}02000000C501") && text.contains("V3\u{10}020000fffe00c501"),
            "{text:?}"
        );
        let sum = data[..data.len() - 1]
            .iter()
            .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, 0);
    }
}
