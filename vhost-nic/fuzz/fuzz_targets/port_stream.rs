//! Bytes become the stream of a port's peer: `scripts/fuzz port_stream`.

#![no_main]

use vhost_nic::external_port::{LengthPrefixed, admit};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut stream = LengthPrefixed::default();
    // Cut where the first byte says.
    for part in input.chunks(usize::from(input.first().copied().unwrap_or(0)) + 1) {
        stream.push(part);
        while let Ok(Some(frame)) = stream.next_frame() {
            if let Some(arrived) = admit(frame) {
                assert!(arrived.frame().to_bytes().is_some());
            }
        }
    }
});
