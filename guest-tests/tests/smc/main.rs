//! SMC-D of an unmodified SMC stack between guests over virtio-ism.
//!
//! SMC falls back to TCP silently, so data that arrived prove nothing: each test asks the kernels which mode their
//! sockets have, between which devices, and how many connections fell back ([`fixture`], [`ledger`]).

mod control;
mod copy_mode;
mod disruption;
mod fault_sweep;
mod faults;
mod fixture;
mod hostile;
mod isolation;
mod ledger;
mod probe;
mod programs;
mod scene;
mod seeded_bug;
mod server;
mod smcd;
mod trace;
mod workload;
