//! The device as a guest's driver sees it, in memory. See `mlx5_test_driver`.

#[path = "../common/captured_frames.rs"]
mod captured_frames;
#[path = "../common/faulty.rs"]
mod faulty;
#[path = "../common/found.rs"]
mod found;
#[path = "../common/inspect.rs"]
mod inspect;
#[path = "../common/nic.rs"]
mod nic;
#[path = "../common/raw_frames.rs"]
mod raw_frames;
#[path = "../common/recorded.rs"]
mod recorded;

mod attack_delivery;
mod attack_leftovers;
mod attack_memory;
mod boot;
mod buffer_registers;
mod command_faults;
mod commands;
mod cq_errors;
mod cqe_compression;
mod crowd;
mod delivery;
mod endless;
mod faults;
mod findings;
mod frame_account;
mod frames;
mod fuzzing;
mod lan;
mod life;
mod management_registers;
mod mistakes;
mod offloads;
mod panics;
mod port;
mod port_registers;
mod qos_registers;
mod queues;
mod receive;
mod registers;
mod replay;
mod send;
mod syndromes;
mod tool_registers;
