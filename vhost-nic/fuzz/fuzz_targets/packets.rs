//! Bytes become packets of a hostile peer: `scripts/fuzz packets`.

#![no_main]

#[path = "../../tests/common/nic.rs"]
mod nic;
#[path = "../../tests/rdma/packets.rs"]
mod packets;
#[path = "../../tests/rdma/raw_peer.rs"]
mod raw_peer;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    packets::run(input);
});
