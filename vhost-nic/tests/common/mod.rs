//! A driver for the device, as far as tests need one, on memory of this process and through the same boundary as an attachment.
//!
//! From the bottom: [`memory`] is the guest's RAM, [`machine`] the function in its slot with memory and interrupts, [`command`] the way to
//! the firmware. [`hca`] boots the adapter and shuts it down; [`netdev`] makes of it what the kernel's network driver makes of it.
//! It does what Linux' `mlx5_core` and `mlx5e` do, in the same order, and it checks what they rely on.

#![allow(dead_code, reason = "every test binary uses a part of this")]

pub mod buffer;
pub mod choices;
pub mod command;
pub mod command_fuzz;
pub mod completion_queue;
pub mod event_queue;
pub mod hca;
pub mod machine;
pub mod memory;
pub mod netdev;
pub mod node;
pub mod queue_pair;
pub mod rdma_fuzz;
pub mod receive_queue;
pub mod region;
pub mod request;
pub mod send_queue;
pub mod shared_receive;
pub mod steering;
pub mod stranger;
pub mod transport;

use std::time::{Duration, Instant};

/// How long anything may take before it counts as never. Long, for machines that are busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait for what must not come.
pub const BRIEF: Duration = Duration::from_millis(50);

/// Waits until something is there.
#[track_caller]
pub fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "this never came: {what}");
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Waits until a condition holds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    await_some(what, || holds().then_some(()));
}
