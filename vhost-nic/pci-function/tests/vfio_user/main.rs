//! The vfio-user attachment, message by message.

#[path = "../common/mod.rs"]
mod common;

mod attack;
mod client;
mod connections;
mod fuzz_driver;
mod fuzzing;
mod host;
mod hostile;
mod independent;
mod interrupts;
mod memory;
mod messages;
