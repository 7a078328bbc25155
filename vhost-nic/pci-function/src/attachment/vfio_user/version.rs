//! Negotiation of version and capabilities, and the limits that the server announces.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

use crate::dma::MAX_REGIONS;

use super::wire::{self, Header, RegionAccess, Version};

/// Maximum number of descriptors per message. QEMU refuses a higher value, and splits SET_IRQS accordingly.
pub const MAX_MSG_FDS: usize = 16;
/// Maximum bytes read or written by a message. QEMU reads the whole configuration space at once, and 8 bytes otherwise.
pub const MAX_DATA_XFER_SIZE: usize = 64 * 1024;
/// Length of the longest message in bytes: a write of [`MAX_DATA_XFER_SIZE`].
pub const MAX_MESSAGE: usize = size_of::<Header>() + size_of::<RegionAccess>() + MAX_DATA_XFER_SIZE;

#[derive(Debug, Default, Deserialize)]
struct Proposal {
    #[serde(default)]
    capabilities: ProposedCapabilities,
}

/// Capabilities that the answer depends on. The others limit messages that a server initiates; this one initiates none.
#[derive(Debug, Default, Deserialize)]
struct ProposedCapabilities {
    #[serde(default)]
    write_multiple: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    capabilities: Capabilities,
}

#[derive(Debug, Serialize)]
struct Capabilities {
    max_msg_fds: usize,
    max_dma_maps: usize,
    max_data_xfer_size: usize,
    pgsizes: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    write_multiple: bool,
}

/// Appends the answer to VERSION.
pub fn answer(payload: &[u8], reply: &mut Vec<u8>) -> Result<(), Errno> {
    let (version, data) = wire::split::<Version>(payload).ok_or(Errno::INVAL)?;
    if version.major.get() != 0 {
        return Err(Errno::OPNOTSUPP);
    }
    let text = data.strip_suffix(&[0]).unwrap_or(data);
    let proposal = if text.is_empty() {
        Proposal::default()
    } else {
        serde_json::from_slice(text).map_err(|_| Errno::INVAL)?
    };
    let answer = Answer {
        capabilities: Capabilities {
            max_msg_fds: MAX_MSG_FDS,
            max_dma_maps: MAX_REGIONS,
            max_data_xfer_size: MAX_DATA_XFER_SIZE,
            pgsizes: 4096,
            write_multiple: proposal.capabilities.write_multiple,
        },
    };
    // QEMU proposes minor version 0, and refuses a higher one.
    let version = Version {
        major: 0.into(),
        minor: 0.into(),
    };
    reply.extend_from_slice(version.as_bytes());
    serde_json::to_writer(&mut *reply, &answer).map_err(|_| Errno::NOMEM)?;
    reply.push(0);
    Ok(())
}
