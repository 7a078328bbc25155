//! Ports beside the NICs whose other end is the kernel of the host, or behind it: TAP devices and tunnels.

#[path = "../common/namespace.rs"]
mod namespace;
#[path = "../common/nic.rs"]
mod nic;

mod host_stack;
mod tap_device;
mod vxlan;
mod vxlan_header;
