//! Changes to a guest's shared memory region, asked of the VMM over the back-end channel.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use uuid::Uuid;
use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags, VhostUserSharedMsg};
use vhost::vhost_user::{Backend, Error as VhostUserError, VhostUserFrontendReqHandler};

use crate::abi::SHMID_REGIONS;
use crate::window::RegionMapper;

/// Maps through one connection's back-end channel.
pub struct ChannelMapper {
    channel: Backend,
}

impl ChannelMapper {
    /// A mapper over this channel, if its other end acknowledges what it is asked.
    pub fn new(channel: Backend) -> io::Result<Self> {
        let mapper = Self { channel };
        match mapper.remove_nobody() {
            Err(error) if is_refusal(&error) => Ok(mapper),
            // Without REPLY_ACK nothing is waited for, and everything is fine.
            Ok(_) => Err(io::Error::other("it acknowledges nothing (REPLY_ACK)")),
            Err(error) => Err(error),
        }
    }

    /// Waits until what was asked before is in effect. QEMU acknowledges SHMEM_MAP and SHMEM_UNMAP before it commits its
    /// memory transaction, but takes up the next request only after it.
    fn barrier(&self) -> io::Result<()> {
        match self.remove_nobody() {
            Ok(_) => Ok(()),
            Err(error) if is_refusal(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removing an object that cannot exist is a request that QEMU answers without doing or printing anything; the answer
    /// is a refusal.
    fn remove_nobody(&self) -> io::Result<u64> {
        self.channel
            .shared_object_remove(&VhostUserSharedMsg { uuid: Uuid::new_v4() })
    }
}

/// Whether the front-end answered, and the answer is no.
fn is_refusal(error: &io::Error) -> bool {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<VhostUserError>())
        .is_some_and(|error| matches!(error, VhostUserError::FrontendInternalError))
}

impl RegionMapper for ChannelMapper {
    fn map(&self, memfd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
        let request = VhostUserMMap {
            shmid: SHMID_REGIONS,
            shm_offset: offset,
            len,
            flags: VhostUserMMapFlags::WRITABLE.bits(),
            ..Default::default()
        };
        self.channel.shmem_map(&request, &memfd.as_raw_fd())?;
        self.barrier()
    }

    fn unmap(&self, offset: u64, len: u64) -> io::Result<()> {
        let request = VhostUserMMap {
            shmid: SHMID_REGIONS,
            shm_offset: offset,
            len,
            ..Default::default()
        };
        self.channel.shmem_unmap(&request)?;
        self.barrier()
    }
}
