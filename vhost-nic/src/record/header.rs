//! The beginning of a record: format, and configuration of the NIC.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::RecordError;
use crate::nic::NicConfig;
use crate::pci::Identity;

/// First bytes of a record.
const MAGIC: [u8; 8] = *b"NICTAPE\n";
/// Version of the format: of [`Setup`] and [`Event`](super::Event).
const VERSION: u32 = 1;
/// Maximum size of the configuration in bytes.
const MAX_SETUP: u32 = 1 << 16;

/// Fixed part of the header. The configuration follows, in JSON, then the compressed events.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Preamble {
    magic: [u8; 8],
    version: U32,
    setup_length: U32,
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
            check_wqes: config.check_wqes,
            memory_budget: Some(config.memory_budget),
            zeroed_capabilities: config.zeroed_capabilities.clone(),
        }
    }

    pub(super) fn write_to(&self, out: &mut impl Write) -> std::io::Result<()> {
        let setup = serde_json::to_vec(self)?;
        let preamble = Preamble {
            magic: MAGIC,
            version: VERSION.into(),
            setup_length: (setup.len() as u32).into(),
        };
        out.write_all(preamble.as_bytes())?;
        out.write_all(&setup)
    }

    pub(super) fn read_from(input: &mut impl Read) -> Result<Self, RecordError> {
        let mut preamble = Preamble::new_zeroed();
        input
            .read_exact(preamble.as_mut_bytes())
            .map_err(|_| RecordError::NoRecord)?;
        if preamble.magic != MAGIC {
            return Err(RecordError::NoRecord);
        }
        if preamble.version.get() != VERSION {
            return Err(RecordError::Version(preamble.version.get()));
        }
        let length = preamble.setup_length.get();
        if length > MAX_SETUP {
            return Err(RecordError::Setup("it is too long".into()));
        }
        let mut setup = vec![0; length as usize];
        input
            .read_exact(&mut setup)
            .map_err(|_| RecordError::Truncated { entries: 0 })?;
        serde_json::from_slice(&setup).map_err(|error| RecordError::Setup(error.into()))
    }
}
