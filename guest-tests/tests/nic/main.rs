//! Unmodified mlx5 drivers on the NIC of `vhost-nic`, in QEMU guests.

#[path = "../../../vhost-nic/tests/common/namespace.rs"]
mod namespace;

mod capabilities;
mod capture;
mod control;
mod dcb;
mod doorbells;
mod dpdk;
mod ethernet;
mod ethtool;
mod fault_sweep;
mod faults;
mod fixture;
mod flr;
mod frames;
mod golden;
mod interop;
mod link_settings;
mod lspci;
mod mixed;
mod mst;
mod operations;
mod pcie_account;
mod perftest;
mod probe;
mod programs;
mod ptp;
mod rdma;
mod replay;
mod roce_v1;
mod scatter_to_cqe;
mod seeded_bugs;
mod smc_r;
mod stock;
mod suite;
mod trace;
mod two_hosts;
mod verbs;
mod virtio_net;
#[path = "../common/smcr.rs"]
mod workloads;
