//! User Mode Linux guests: the harness on them, the NIC over PCI over virtio, and what the kernel does over its RDMA.

mod fixture;
mod guests;
mod nic;
mod nvme;
mod smcr;
