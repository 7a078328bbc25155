//! Execution of messages.

use std::error::Error;
use std::fs::File;
use std::sync::Arc;

use log::{debug, warn};
use rustix::io::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::interrupts::EventFds;
use super::receiver::{Descriptors, Message};
use super::version::{self, MAX_DATA_XFER_SIZE};
use super::wire::*;
use crate::config_layout::CONFIG_SPACE_SIZE;
use crate::dma::{Backing, DmaError};
use crate::function::PciFunction;

/// State of one client.
pub struct Session<'a> {
    function: &'a PciFunction,
    eventfds: Arc<EventFds>,
    /// Whether VERSION was answered.
    negotiated: bool,
    memory: Memory,
}

/// Kind of memory that the client has mapped.
#[derive(Debug, Default, PartialEq, Eq)]
enum Memory {
    #[default]
    Nothing,
    /// Only memory without descriptors, which the device cannot access.
    Unshared,
    Shared,
}

impl<'a> Session<'a> {
    /// Creates the state of a client before its first message.
    pub fn new(function: &'a PciFunction, eventfds: Arc<EventFds>) -> Self {
        Self {
            function,
            eventfds,
            negotiated: false,
            memory: Memory::Nothing,
        }
    }

    /// Whether VERSION was answered. The first command must be VERSION, or the connection ends.
    pub fn negotiated(&self) -> bool {
        self.negotiated
    }

    /// Executes a command, and appends the payload of the reply.
    pub fn execute(
        &mut self,
        message: &Message<'_>,
        received: &mut Descriptors,
        reply: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let command = message.header.command.get();
        if message.header.flags.get() & flags::TYPE != 0 || self.negotiated == (command == command::VERSION) {
            return Err(Errno::INVAL);
        }
        if received.lost {
            return Err(Errno::MFILE);
        }
        let payload = message.payload;
        match command {
            command::VERSION => {
                version::answer(payload, reply)?;
                self.negotiated = true;
                Ok(())
            }
            command::DMA_MAP => self.dma_map(parse(payload)?.0, received),
            command::DMA_UNMAP => self.dma_unmap(parse(payload)?.0, reply),
            command::DEVICE_GET_INFO => device_info(parse(payload)?.0, reply),
            command::DEVICE_GET_REGION_INFO => self.region_info(parse(payload)?.0, reply),
            command::DEVICE_GET_IRQ_INFO => self.irq_info(parse(payload)?.0, reply),
            command::DEVICE_SET_IRQS => {
                let (request, data) = parse(payload)?;
                self.eventfds.set(self.function, request, data, &mut received.fds)
            }
            command::REGION_READ => self.region_read(parse(payload)?.0, reply),
            command::REGION_WRITE => {
                let (access, data) = parse(payload)?;
                self.region_write(access, data)?;
                reply.extend_from_slice(access.as_bytes());
                Ok(())
            }
            command::REGION_WRITE_MULTI => self.region_write_multi(payload),
            command::DEVICE_RESET => {
                self.reset();
                Ok(())
            }
            _ => Err(Errno::NOTSUP),
        }
    }

    fn dma_map(&mut self, map: &DmaMap, received: &mut Descriptors) -> Result<(), Errno> {
        let access = map.flags.get();
        if access & !(DMA_MAP_READ | DMA_MAP_WRITE) != 0 || received.fds.len() > 1 {
            return Err(Errno::INVAL);
        }
        let backing = received.fds.pop().map(|fd| Backing {
            file: File::from(fd),
            offset: map.offset.get(),
            writable: access & DMA_MAP_WRITE != 0,
        });
        if backing.is_some() {
            self.memory = Memory::Shared;
        } else if self.memory == Memory::Nothing {
            self.memory = Memory::Unshared;
        }
        let result = self.function.dma().map(map.address.get(), map.size.get(), backing);
        result.map_err(|error| {
            match error.source() {
                Some(source) => debug!("DMA_MAP failed: {error}: {source}"),
                None => debug!("DMA_MAP failed: {error}"),
            }
            match error {
                DmaError::Overlap { .. } => Errno::EXIST,
                DmaError::Limit { .. } => Errno::NOSPC,
                DmaError::Map { .. } => Errno::NOMEM,
                _ => Errno::INVAL,
            }
        })
    }

    /// Unmaps memory, which the device no longer uses when the reply is sent.
    fn dma_unmap(&self, unmap: &DmaUnmap, reply: &mut Vec<u8>) -> Result<(), Errno> {
        let dma = self.function.dma();
        match unmap.flags.get() {
            0 => dma
                .unmap(unmap.address.get(), unmap.size.get())
                .map_err(|_| Errno::INVAL)?,
            DMA_UNMAP_ALL => dma.unmap_all(),
            _ => return Err(Errno::INVAL),
        }
        reply.extend_from_slice(unmap.as_bytes());
        Ok(())
    }

    fn irq_info(&self, request: &IrqInfo, reply: &mut Vec<u8>) -> Result<(), Errno> {
        let count = match request.index.get() {
            IRQ_MSIX => self.function.msix().vectors(),
            // Never raised, but a client warns about a device without them.
            IRQ_ERR | IRQ_REQ => 1,
            index if index < NUM_IRQS => 0,
            _ => return Err(Errno::INVAL),
        };
        let info = IrqInfo {
            argsz: size(request).into(),
            // Not VFIO_IRQ_INFO_NORESIZE: a client may add a vector without removing the others.
            flags: IRQ_EVENTFD.into(),
            index: request.index,
            count: u32::from(count).into(),
        };
        reply.extend_from_slice(info.as_bytes());
        Ok(())
    }

    fn region_read(&self, access: &RegionAccess, reply: &mut Vec<u8>) -> Result<(), Errno> {
        self.check(access)?;
        reply.extend_from_slice(access.as_bytes());
        let start = reply.len();
        reply.resize(start + access.count.get() as usize, 0);
        let data = &mut reply[start..];
        match access.region.get() {
            REGION_CONFIG => self.function.config_read(access.offset.get(), data),
            _ => self.function.bar_read(0, access.offset.get(), data),
        }
        Ok(())
    }

    fn region_write(&self, access: &RegionAccess, data: &[u8]) -> Result<(), Errno> {
        self.check(access)?;
        let data = data.get(..access.count.get() as usize).ok_or(Errno::INVAL)?;
        match access.region.get() {
            REGION_CONFIG => self.function.config_write(access.offset.get(), data),
            _ => self.function.bar_write(0, access.offset.get(), data),
        }
        Ok(())
    }

    /// Executes all writes, and returns the first error.
    fn region_write_multi(&self, payload: &[u8]) -> Result<(), Errno> {
        let (multi, rest) = parse::<WriteMulti>(payload)?;
        let count = usize::try_from(multi.count.get()).map_err(|_| Errno::INVAL)?;
        let (writes, _) = <[SingleWrite]>::ref_from_prefix_with_elems(rest, count).map_err(|_| Errno::INVAL)?;
        writes
            .iter()
            .map(|write| self.region_write(&write.access, &write.data))
            .fold(Ok(()), Result::and)
    }

    fn region_info(&self, request: &RegionInfo, reply: &mut Vec<u8>) -> Result<(), Errno> {
        let index = request.index.get();
        if index >= NUM_REGIONS {
            return Err(Errno::INVAL);
        }
        let region_size = self.region_size(index);
        let info = RegionInfo {
            argsz: size(request).into(),
            flags: if region_size == 0 { 0 } else { REGION_READ_WRITE }.into(),
            index: request.index,
            cap_offset: 0.into(),
            size: region_size.into(),
            offset: 0.into(),
        };
        reply.extend_from_slice(info.as_bytes());
        Ok(())
    }

    /// Size of a region in bytes, 0 if there is none.
    fn region_size(&self, index: u32) -> u64 {
        match index {
            REGION_BAR0 => self.function.bar_size(),
            REGION_CONFIG => CONFIG_SPACE_SIZE as u64,
            _ => 0,
        }
    }

    /// Fails unless an access is within its region and at most [`MAX_DATA_XFER_SIZE`] long.
    fn check(&self, access: &RegionAccess) -> Result<(), Errno> {
        let count = u64::from(access.count.get());
        let end = access.offset.get().checked_add(count).ok_or(Errno::INVAL)?;
        if end > self.region_size(access.region.get()) || count > MAX_DATA_XFER_SIZE as u64 {
            return Err(Errno::INVAL);
        }
        Ok(())
    }

    fn reset(&self) {
        if self.memory == Memory::Unshared {
            warn!(
                "no guest memory is shared with the device, so it cannot work (QEMU: a memory backend with share=on)"
            );
        }
        self.function.reset();
    }
}

fn device_info(request: &DeviceInfo, reply: &mut Vec<u8>) -> Result<(), Errno> {
    let info = DeviceInfo {
        argsz: size(request).into(),
        flags: (DEVICE_RESET | DEVICE_PCI).into(),
        num_regions: NUM_REGIONS.into(),
        num_irqs: NUM_IRQS.into(),
    };
    reply.extend_from_slice(info.as_bytes());
    Ok(())
}

fn parse<T>(payload: &[u8]) -> Result<(&T, &[u8]), Errno>
where
    T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
{
    split(payload).ok_or(Errno::INVAL)
}

fn size<T>(_: &T) -> u32 {
    size_of::<T>() as u32
}
