//! The format of a NIC's records, and the configuration in them.

use serde::{Deserialize, Serialize};
use vhost_daemon::record::Format;

use super::event::Event;
use crate::nic::NicConfig;
use crate::pci::Identity;

/// Format of the records of a NIC.
#[derive(Debug, Clone, Copy)]
pub enum NicRecord {}

impl Format for NicRecord {
    const MAGIC: [u8; 8] = *b"NICTAPE\n";
    const VERSION: u32 = 1;
    const DEVICE: &'static str = "a NIC";
    type Setup = Setup;
    type Event = Event;
}

/// Configuration of a recorded NIC and its function, as far as a guest can see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Name of the guest.
    pub name: String,
    /// Program and version that made the record.
    pub program: String,
    /// Permanent MAC address.
    pub mac: String,
    /// Name of the adapter that the function presents itself as.
    pub identity: String,
    /// VHCA ID.
    pub vhca_id: u16,
    /// Number of MSI-X vectors.
    pub vectors: u16,
    /// Time limit for the rest of a WQE in a doorbell register, in nanoseconds, if such WQEs are executed.
    pub blue_flame_ns: Option<u64>,
    /// Whether the NIC may send from its own MAC address only.
    #[serde(default)]
    pub spoof_check: bool,
    /// Seed of the first numbers of queue pairs and memory keys, if they are random.
    #[serde(default)]
    pub random_numbers: Option<u64>,
    /// Whether send WQEs are compared with memory at their completion.
    pub check_wqes: bool,
    /// Host memory in bytes that the guest's objects may take, if limited.
    pub memory_budget: Option<u64>,
    /// Names of capabilities that are reported as 0.
    pub zeroed_capabilities: Vec<String>,
}

impl Setup {
    /// Describes a NIC.
    pub fn new(config: &NicConfig, identity: Identity, vectors: u16) -> Self {
        Self {
            name: config.name.clone(),
            program: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
            mac: config.mac.to_string(),
            identity: identity.to_string(),
            vhca_id: config.vhca_id,
            vectors,
            blue_flame_ns: config.blue_flame.map(|timeout| timeout.as_nanos() as u64),
            spoof_check: config.spoof_check,
            random_numbers: config.random_numbers,
            check_wqes: config.check_wqes,
            memory_budget: Some(config.memory_budget),
            zeroed_capabilities: config.zeroed_capabilities.clone(),
        }
    }
}
