//! RDMA between two guests as their drivers see it, in memory and over a wire that can lose packets. See
//! `mlx5_test_driver`.

#[path = "../common/faulty.rs"]
mod faulty;
#[path = "../common/found.rs"]
mod found;
#[path = "../common/inspect.rs"]
mod inspect;
#[path = "../common/nic.rs"]
mod nic;
#[path = "../common/recorded.rs"]
mod recorded;

mod attack_identity;
mod attack_revocation;
mod attack_uar;
mod blue_flame;
mod counters;
mod cq_errors;
mod doorbell_records;
mod errors;
mod external_port;
mod faults;
mod findings;
mod fuzzing;
mod hot;
mod inline;
mod live_tree;
mod loss;
mod lossy;
mod mappings;
mod operations;
mod packets;
mod pair;
mod pcie_account;
mod pcie_latency;
mod pcie_plot;
mod programs;
mod raw_peer;
mod receive_wqes;
mod replay;
mod roce_v1;
mod rxe_packets;
mod services;
mod super_packets;
mod times;
mod timestamps;
mod trace;
mod trace_errors;
mod trace_events;
mod trace_scope;
mod turns;
mod wire;
mod xrc;
