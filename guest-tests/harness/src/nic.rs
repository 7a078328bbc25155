//! The NIC under test: the device, its drivers in a guest, and traffic over it.

mod driver;
mod log;
mod options;
mod programs;
mod smc_r;
mod traffic;

pub use driver::{NicSetup, RXE};
pub use log::KernelMessage;
pub use options::{NIC, NicOptions};
pub use programs::Conversation;
pub use traffic::{Flow, Iperf};
