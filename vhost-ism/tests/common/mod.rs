//! Guests without a machine.
//!
//! A [`TestGuest`] plays both QEMU and the guest's driver: it speaks vhost-user to
//! [`backend::start`](vhost_ism::backend::start), maps the memory that the device requests into a window of
//! this process, and drives the three queues out of guest RAM of its own.
//!
//! The VMM is as strict as QEMU. A map takes effect only when the *next* request on the back-end channel is handled. A
//! map that arrives while the device is stopped, or while no control request is being answered, is a violation that
//! fails the test (QEMU would crash). So is a map that overlaps another, or an unmap of a range that is not mapped.

#![allow(dead_code, reason = "every test binary uses a part of this")]

pub mod guest;
pub mod host;
pub mod memory;
pub mod ring;
pub mod ring_driver;
pub mod window;

use std::time::Duration;

pub use guest::{Desc, Dmb, Event, Options, Part, TestGuest};
pub use host::{Found, Host, limits};

/// Time after which something counts as never happening; long, for busy machines.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Time to wait for something that must not happen.
pub const BRIEF: Duration = Duration::from_millis(50);

/// Waits until a condition holds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < end, "this never came true: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
