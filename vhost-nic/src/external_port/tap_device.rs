//! A TAP device of the host.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use log::{debug, warn};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, ioctl_fionbio, read, writev};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use thiserror::Error;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};
use zerocopy::IntoBytes;

use super::join::{Offloads, Outgoing};
use super::length_prefix::MAX_LENGTH;
use super::medium::{DropReason, Incoming, Medium};
use super::vnet_header::{VnetHeader, take_apart};

/// Bytes of the name of a network interface (`IFNAMSIZ`, `include/uapi/linux/if.h`), without the 0 at its end.
const MAX_NAME: usize = 15;

/// Which TAP device a port has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapPlan {
    /// Name of the network interface.
    pub name: String,
    /// Whether the port creates it; it exists otherwise.
    pub create: bool,
    /// Whether the host leaves checksums and segmentation to the port, by the header of virtio-net.
    pub offload: bool,
}

/// Reason why a port has no TAP device.
#[derive(Debug, Error)]
pub enum TapError {
    /// The name is none.
    #[error("{0:?} cannot be the name of a network interface")]
    Name(String),
    /// The interface does not exist.
    #[error("there is no network interface {0}; create=on makes one")]
    Absent(String),
    /// The interface exists.
    #[error("a network interface {0} exists already")]
    Exists(String),
    /// The host refused.
    #[error("cannot use the TAP device {name}")]
    Open {
        /// Name of the interface.
        name: String,
        /// The host's error.
        #[source]
        source: io::Error,
    },
}

/// A TAP device, which is that of the port alone.
pub struct TapMedium {
    name: String,
    device: SyncDevice,
    offload: bool,
    /// The device has been deleted.
    gone: bool,
    buffer: Vec<u8>,
    /// Segments of the host's last frame that have not been received yet.
    segments: VecDeque<Vec<u8>>,
}

impl TapMedium {
    /// Attaches to the device, or creates it, neither up nor with an address. Nothing else of the host is touched.
    pub fn open(plan: &TapPlan) -> Result<Self, TapError> {
        let name = &plan.name;
        // The kernel takes `%` as a request for a number.
        if !(1..=MAX_NAME).contains(&name.len())
            || name.contains(|letter: char| "%/:".contains(letter) || letter <= ' ')
        {
            return Err(TapError::Name(name.clone()));
        }
        let host_error = |source: io::Error| TapError::Open {
            name: name.clone(),
            source,
        };
        let any: OwnedFd =
            socket(AddressFamily::UNIX, SocketType::DGRAM, None).map_err(|error| host_error(error.into()))?;
        match (plan.create, name_to_index(&any, name)) {
            (false, Err(Errno::NODEV)) => return Err(TapError::Absent(name.clone())),
            (true, Ok(_)) => return Err(TapError::Exists(name.clone())),
            (true, Err(Errno::NODEV)) | (false, Ok(_)) => {}
            (_, Err(error)) => return Err(host_error(error.into())),
        }
        // One queue: the host refuses a device with several, whose offloads are those of all its users.
        let device = DeviceBuilder::new()
            .name(name.as_str())
            .layer(Layer::L2)
            .packet_information(false)
            .offload(plan.offload)
            .inherit_enable_state()
            .build_sync()
            .map_err(host_error)?;
        ioctl_fionbio(&device, true).map_err(|error| host_error(error.into()))?;
        Ok(Self {
            name: name.clone(),
            device,
            offload: plan.offload,
            gone: false,
            buffer: vec![0; size_of::<VnetHeader>() + MAX_LENGTH],
            segments: VecDeque::new(),
        })
    }

    /// Takes a frame of the host apart, into those on the wire.
    fn take_apart(&mut self, length: usize) -> bool {
        let bytes = &self.buffer[..length];
        if !self.offload {
            self.segments.push_back(bytes.to_vec());
            return !bytes.is_empty();
        }
        let result = take_apart(bytes, &mut self.segments);
        if let Err(error) = &result {
            debug!("{}: a frame of the host is malformed: {error}", self.name);
        }
        result.is_ok()
    }
}

impl Medium for TapMedium {
    fn kind(&self) -> &'static str {
        "tap"
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (!self.gone).then(|| self.device.as_fd())
    }

    fn is_connected(&self) -> bool {
        !self.gone
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Incoming {
        if self.segments.is_empty() && !self.gone {
            match read(&self.device, &mut self.buffer) {
                Ok(length) if self.take_apart(length) => {}
                Ok(_) => return Incoming::Dropped(DropReason::Malformed),
                // The device has been deleted, and will not come back to this descriptor (`tun_chr_read_iter`,
                // `drivers/net/tun.c`).
                Err(Errno::BADFD) => {
                    warn!("{}: the TAP device is gone", self.name);
                    self.gone = true;
                    return Incoming::Disconnected;
                }
                Err(Errno::AGAIN | Errno::INTR) => return Incoming::Nothing,
                // A frame that the host cannot describe.
                Err(_) => return Incoming::Dropped(DropReason::Malformed),
            }
        }
        match self.segments.pop_front() {
            Some(segment) => {
                *frame = segment;
                Incoming::Frame
            }
            None => Incoming::Nothing,
        }
    }

    fn offloads(&self) -> Offloads {
        // The kernel takes all of them with any header (`tun_get_user`, `drivers/net/tun.c`).
        Offloads {
            checksum: self.offload,
            tcp_v4: self.offload,
            tcp_v6: self.offload,
        }
    }

    fn send(&mut self, outgoing: &Outgoing) -> io::Result<bool> {
        let header = if self.offload { outgoing.header.as_bytes() } else { &[] };
        match writev(&self.device, &[header, &outgoing.frame].map(IoSlice::new)) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
