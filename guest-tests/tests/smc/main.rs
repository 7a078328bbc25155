//! SMC-D of a stock kernel between guests over virtio-ism.
//!
//! SMC falls back to TCP without a word, so no test concludes anything from data that arrived: each asks the kernels which mode
//! their sockets have, between which devices, and how many connections fell back ([`fixture`], [`ledger`]).

mod disruption;
mod fixture;
mod hostile;
mod isolation;
mod ledger;
mod probe;
mod programs;
mod scene;
mod server;
mod smcd;
mod workload;
