//! Testbeds of one to a few QEMU and User Mode Linux guests.
//!
//! A [`Testbed`] boots guests from the image built by `images/build`, optionally connects every pair of them with a
//! virtual Ethernet link, starts the daemon behind a device under test, and controls each guest through an agent: no
//! login, no network, no console scraping.
//!
//! ```no_run
//! use guest_harness::{IsmOptions, Testbed};
//!
//! # fn main() -> guest_harness::Result<()> {
//! let testbed = Testbed::builder("example").guests(2).mesh().ism(IsmOptions::default()).start()?;
//! testbed.smc_up()?;
//! let a = testbed.guest(0);
//! let server = testbed.guest(1).spawn("iperf3 -s -1")?;
//! a.run(&format!("ping -c 1 {}", testbed.guest(1).addr(0)))?.check()?;
//! # drop(server);
//! testbed.finish()
//! # }
//! ```
//!
//! A testbed dropped without a successful [`Testbed::finish`] keeps its logs and prints where they are. Nothing it
//! starts outlives the test process, however that ends.

mod artefacts;
mod budget;
mod command;
mod console;
mod control;
mod daemon;
mod daemon_control;
mod deadline;
mod device;
mod diagnostics;
mod error;
mod guest;
mod image;
mod interrupt;
mod ism;
mod link;
mod locate;
mod machine;
mod nic;
mod noise;
mod perfetto;
mod process;
mod qemu;
mod qmp;
mod serial_port;
mod smc;
mod splat;
pub mod sweep;
mod sync;
mod testbed;
mod uml;
mod vm;

pub use budget::Budget;
pub use command::{Cmd, Job, Output, Streamed};
pub use console::Console;
pub use control::Control;
pub use daemon::Daemon;
pub use daemon_control::DaemonControl;
pub use device::{Device, Place};
pub use error::{Error, Result};
pub use guest::Guest;
pub use guest_agent::{Exit, Hello};
pub use image::{Accel, Image};
pub use ism::IsmOptions;
pub use link::Link;
pub use locate::{cache_dir, program, target_dir, workspace_dir};
pub use nic::{Conversation, Flow, Iperf, KernelMessage, NIC, NicOptions, NicSetup, RXE};
pub use noise::noise;
pub use perfetto::{assert_in_summary, query_trace};
pub use process::Process;
pub use qmp::Qmp;
pub use smc::SmcOptions;
pub use splat::find_splats;
pub use testbed::{Builder, Testbed};
pub use uml::UmlImage;
