//! Bytes become a frame with the header of virtio-net: `scripts/fuzz port_vnet`.

#![no_main]

use std::collections::VecDeque;

use vhost_nic::external_port::{VnetHeader, admit};
use zerocopy::FromBytes;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok((header, frame)) = VnetHeader::read_from_prefix(input) else {
        return;
    };
    let mut frames = VecDeque::new();
    if header.complete(frame, &mut frames).is_ok() {
        assert!(!frames.is_empty());
        for frame in frames.iter().filter_map(|frame| admit(frame)) {
            assert!(frame.frame().to_bytes().is_some());
        }
    }
});
