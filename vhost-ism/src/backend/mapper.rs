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
    /// A mapper over this channel.
    pub fn new(channel: Backend) -> Self {
        Self { channel }
    }

    /// Waits until what was asked before is in effect. QEMU acknowledges SHMEM_MAP and SHMEM_UNMAP before it commits its
    /// memory transaction, but takes up the next request only after it. Removing an object that cannot exist is a request
    /// it answers without doing or printing anything; its refusal is the answer waited for.
    fn barrier(&self) -> io::Result<()> {
        let nobody = VhostUserSharedMsg { uuid: Uuid::new_v4() };
        match self.channel.shared_object_remove(&nobody) {
            Ok(_) => Ok(()),
            Err(error) if is_refusal(&error) => Ok(()),
            Err(error) => Err(error),
        }
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
