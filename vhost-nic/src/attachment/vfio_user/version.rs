//! The first message and its answer: what the client and the server are capable of.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

use super::wire::{self, Version};

/// The most descriptors per message. QEMU takes no more than that for an answer, and splits SET_IRQS accordingly.
pub const MAX_MSG_FDS: usize = 16;
/// The most bytes read or written by a message. QEMU reads a whole configuration space at once, and else 8 bytes.
pub const MAX_DATA_XFER_SIZE: usize = 64 * 1024;

#[derive(Debug, Default, Deserialize)]
struct Proposal {
    #[serde(default)]
    capabilities: ProposedCapabilities,
}

/// Those the answer depends on. The others limit what a server sends of its own accord, which is nothing.
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
    max_data_xfer_size: usize,
    pgsizes: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    write_multiple: bool,
}

/// Answers VERSION.
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
            max_data_xfer_size: MAX_DATA_XFER_SIZE,
            pgsizes: 4096,
            write_multiple: proposal.capabilities.write_multiple,
        },
    };
    // QEMU refuses a minor version above the one it proposed, which is 0.
    let version = Version {
        major: 0.into(),
        minor: 0.into(),
    };
    reply.extend_from_slice(version.as_bytes());
    serde_json::to_writer(&mut *reply, &answer).map_err(|_| Errno::NOMEM)?;
    reply.push(0);
    Ok(())
}
