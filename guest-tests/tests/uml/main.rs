//! User Mode Linux guests: the harness itself, the NIC over PCI over virtio, and kernel users of RDMA.

mod fault_sweep;
mod faults;
mod fixture;
mod guests;
mod nic;
mod nvme;
mod smcr;
#[path = "../common/smcr.rs"]
mod workloads;
