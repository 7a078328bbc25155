//! Bytes become the virtqueues of a virtio-net driver, and messages of its front-end: `scripts/fuzz port_vhost_user`.

#![no_main]

#[path = "../../tests/ports/virtio_net_driver.rs"]
mod virtio_net_driver;
#[path = "../../tests/ports/virtio_net_fuzz.rs"]
mod virtio_net_fuzz;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    virtio_net_fuzz::run(input);
});
