//! Changes to a guest's shared memory region, requested of the VMM over the back-end channel.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use uuid::Uuid;
use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags, VhostUserSharedMsg};
use vhost::vhost_user::{Backend, Error as VhostUserError, VhostUserFrontendReqHandler};
use vhost_daemon::heartbeat;

use crate::window::{RegionMapper, RegionRange};

/// The mapper of one connection: sends requests over its back-end channel.
pub struct ChannelMapper {
    channel: Backend,
}

impl ChannelMapper {
    /// Creates a mapper over this channel; fails unless the VMM acknowledges requests.
    pub fn new(channel: Backend) -> io::Result<Self> {
        let mapper = Self { channel };
        match mapper.remove_unknown_object() {
            Err(error) if is_refusal(&error) => Ok(mapper),
            // Without REPLY_ACK the crate waits for no reply and reports success.
            Ok(_) => Err(io::Error::other("it does not acknowledge requests (REPLY_ACK)")),
            Err(error) => Err(error),
        }
    }

    /// Waits until earlier requests are in effect. QEMU acknowledges SHMEM_MAP and SHMEM_UNMAP before it commits its
    /// memory transaction, but handles the next request only afterwards.
    fn barrier(&self) -> io::Result<()> {
        match self.remove_unknown_object() {
            Ok(_) => Ok(()),
            Err(error) if is_refusal(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Requests the removal of an object that cannot exist, which QEMU refuses without doing or printing anything.
    fn remove_unknown_object(&self) -> io::Result<u64> {
        let object = VhostUserSharedMsg { uuid: Uuid::new_v4() };
        heartbeat::wait(|| self.channel.shared_object_remove(&object))
    }
}

/// Returns whether the front-end answered with a refusal.
fn is_refusal(error: &io::Error) -> bool {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<VhostUserError>())
        .is_some_and(|error| matches!(error, VhostUserError::FrontendInternalError))
}

impl RegionMapper for ChannelMapper {
    fn map(&self, memfd: BorrowedFd<'_>, from: u64, to: RegionRange) -> io::Result<()> {
        let request = VhostUserMMap {
            shmid: to.shmid,
            fd_offset: from,
            shm_offset: to.offset,
            len: to.len,
            flags: VhostUserMMapFlags::WRITABLE.bits(),
            ..Default::default()
        };
        heartbeat::wait(|| self.channel.shmem_map(&request, &memfd.as_raw_fd()))?;
        self.barrier()
    }

    fn unmap(&self, range: RegionRange) -> io::Result<()> {
        let request = VhostUserMMap {
            shmid: range.shmid,
            shm_offset: range.offset,
            len: range.len,
            ..Default::default()
        };
        heartbeat::wait(|| self.channel.shmem_unmap(&request))?;
        self.barrier()
    }
}
