//! Ports beside the NICs whose other end is the kernel of the host, or behind it: TAP devices, interfaces and tunnels;
//! and those that share memory with a driver.

#[path = "../common/namespace.rs"]
mod namespace;
#[path = "../common/nic.rs"]
mod nic;

mod host_stack;
mod packet_socket;
mod tap_device;
mod vhost_user_net;
mod virtio_net_driver;
mod virtio_net_fuzz;
mod vxlan;
mod vxlan_header;
