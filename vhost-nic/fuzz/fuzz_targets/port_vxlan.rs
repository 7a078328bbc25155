//! Bytes become the datagram of a tunnel's peer: `scripts/fuzz port_vxlan`.

#![no_main]

use vhost_nic::external_port::{VxlanHeader, admit, decapsulate};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // A network whose identifier is found in the input now and then.
    if let Ok(frame) = decapsulate(input, VxlanHeader::new(0)) {
        assert_eq!(frame.len() + size_of::<VxlanHeader>(), input.len());
        if let Some(arrived) = admit(frame) {
            assert!(arrived.frame().to_bytes().is_some());
        }
    }
});
