//! Send WQEs of queue pairs, read from the ring and parsed.

use mlx5_prm::queue_entry::Syndrome;
use mlx5_prm::rdma_wqe::{AddressVector, AtomicSegment, RemoteAddressSegment, XrcSegment};
use mlx5_prm::wqe::{ControlSegment, SEND_WQE_BB, SEND_WQE_DS, WqeOpcode};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::super::data_segments::DataSegments;
use crate::dma::{self, Dma};
use crate::hca::blue_flame::{BlueFlameWqe, Slot};
use crate::hca::qp::{Data, Message, Work, service};
use crate::hca::send_opcodes::{self, Opcodes};
use crate::hca::wq::WorkQueue;

/// Maximum bytes of a WQE.
const MAX_WQE: usize = 1024;
/// Longest message in bytes (IBTA 9.7.7.1.1). The capability reports half of it, as that of a ConnectX does: the
/// driver's own arithmetic ends there.
const MAX_MESSAGE: u64 = 1 << 31;

/// Basic blocks that are read at once: at least the longest WQE.
const WINDOW: u16 = 32;
const _: () = assert!(WINDOW as usize * SEND_WQE_BB >= MAX_WQE);

/// Place that a WQE was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WqeOrigin {
    /// The ring.
    Ring,
    /// A doorbell register.
    Register,
    /// None: it could not be read.
    Nowhere,
}

/// Reads posted WQEs from a ring, many at a time.
pub(super) struct Reader<'a> {
    dma: &'a Dma,
    ring: &'a WorkQueue,
    service: u8,
    /// The opcodes that the service executes.
    executed: Opcodes,
    /// End of what is posted, in basic blocks.
    producer: u16,
    /// The WQE that came through a doorbell register.
    blue_flame: Option<BlueFlameWqe>,
    /// Whether a WQE was read from the ring.
    ring_read: bool,
    /// The range of basic blocks in the window.
    start: u16,
    blocks: u16,
    window: [u8; WINDOW as usize * SEND_WQE_BB],
}

impl<'a> Reader<'a> {
    /// Creates a reader for which nothing is posted yet.
    pub fn new(dma: &'a Dma, ring: &'a WorkQueue, service: u8, consumer: u16) -> Self {
        Self {
            dma,
            ring,
            service,
            executed: send_opcodes::of_service(service),
            producer: consumer,
            blue_flame: None,
            ring_read: false,
            start: consumer,
            blocks: 0,
            window: [0; WINDOW as usize * SEND_WQE_BB],
        }
    }

    /// Reads the producer index. WQEs from `consumer` on wait for their doorbell registers, if the driver writes them
    /// there.
    pub fn look(&mut self, slot: &Slot, consumer: u16) -> dma::Result<()> {
        let arrived = slot.take();
        self.producer = arrived.limit(consumer, self.ring.send_producer(self.dma)?);
        self.blue_flame = arrived.wqe.or(self.blue_flame.take());
        Ok(())
    }

    /// Reads the producer index, regardless of doorbell registers.
    pub fn look_at_all(&mut self) -> dma::Result<()> {
        self.producer = self.ring.look_at_send_producer(self.dma)?;
        Ok(())
    }

    /// Whether a WQE that came through a doorbell register is among those posted from `consumer` on.
    pub fn has_blue_flame(&self, consumer: u16) -> bool {
        let blue_flame = self.blue_flame.as_ref();
        blue_flame.is_some_and(|wqe| wqe.is_within(consumer, self.producer))
    }

    /// Whether a WQE was read from the ring since the last call.
    pub fn take_ring_read(&mut self) -> bool {
        std::mem::take(&mut self.ring_read)
    }

    /// Whether a WQE is posted at `index`.
    pub fn is_posted(&self, index: u16) -> bool {
        self.producer != index
    }

    /// Number of posted basic blocks from `index` on: at least that of the WQEs.
    pub fn posted(&self, index: u16) -> u16 {
        self.producer.wrapping_sub(index)
    }

    /// Reads the WQE of a blank message; it is posted. Returns the number of basic blocks it takes, 0 if it cannot be
    /// read, and its origin.
    pub fn read(&mut self, message: &mut Message) -> (u16, WqeOrigin) {
        let index = message.index();
        let posted = self.posted(index);
        let (service, executed) = (self.service, self.executed);
        if let Some(wqe) = self.blue_flame.take_if(|wqe| wqe.index == index)
            && let Ok((control, _)) = ControlSegment::read_from_prefix(&wqe.bytes)
        {
            let blocks = wqe.bytes.len().div_ceil(SEND_WQE_BB) as u16;
            if blocks <= posted {
                message.set_control(control);
                if let Some(work) = parse(&wqe.bytes, service, executed, message) {
                    message.set_work(work);
                }
                return (blocks, WqeOrigin::Register);
            }
        }
        self.ring_read = true;
        let Some(memory) = self.blocks(index, 1) else {
            return (0, WqeOrigin::Nowhere);
        };
        if let Ok((control, _)) = ControlSegment::read_from_prefix(memory) {
            message.set_control(control);
        }
        let length = message.control().ds() * SEND_WQE_DS;
        let blocks = length.div_ceil(SEND_WQE_BB) as u16;
        if blocks == 0 || blocks > posted {
            return (1, WqeOrigin::Ring);
        }
        let work = self
            .blocks(index, blocks)
            .and_then(|memory| parse(memory.get(..length)?, service, executed, message));
        if let Some(work) = work {
            message.set_work(work);
        }
        (blocks, WqeOrigin::Ring)
    }

    /// Returns the bytes of the WQE that was read last, from the ring.
    pub fn last(&mut self, index: u16, blocks: u16) -> &[u8] {
        self.blocks(index, blocks).unwrap_or_default()
    }

    /// Returns `count` posted basic blocks from `index` on, unless they cannot be read.
    fn blocks(&mut self, index: u16, count: u16) -> Option<&[u8]> {
        let skip = index.wrapping_sub(self.start);
        if skip.checked_add(count).is_none_or(|end| end > self.blocks) {
            let blocks = self.producer.wrapping_sub(index).min(WINDOW);
            let window = &mut self.window[..usize::from(blocks) * SEND_WQE_BB];
            self.blocks = 0;
            self.ring.send_bytes(self.dma, index, window).ok()?;
            (self.start, self.blocks) = (index, blocks);
            return self.window.get(..usize::from(count) * SEND_WQE_BB);
        }
        let from = usize::from(skip) * SEND_WQE_BB;
        self.window.get(from..from + usize::from(count) * SEND_WQE_BB)
    }
}

/// Takes a segment from the front of the rest of a WQE.
fn take<T: FromBytes + KnownLayout + Immutable>(rest: &mut &[u8]) -> Option<T> {
    let (segment, behind) = T::read_from_prefix(rest).ok()?;
    *rest = behind;
    Some(segment)
}

/// Parses the operation and the data of a WQE. None if it is malformed.
fn parse(wqe: &[u8], service: u8, executed: Opcodes, message: &mut Message) -> Option<Work> {
    let mut rest = wqe.get(size_of::<ControlSegment>()..)?;
    let immediate = message.control().immediate.get();
    let opcode = WqeOpcode::new(message.control().opcode()).filter(|opcode| executed.contains(*opcode))?;
    if opcode == WqeOpcode::Nop {
        return Some(Work::Nop);
    }
    if opcode == WqeOpcode::Umr {
        return Some(Work::Umr { bytes: rest.to_vec() });
    }
    if service == service::XRC {
        message.set_xrc_srqn(take::<XrcSegment>(&mut rest)?.xrc_srqn.get());
    }
    let datagram = matches!(service, service::UD | service::GSI);
    let work = match opcode {
        WqeOpcode::Send | WqeOpcode::SendImmediate if datagram => Work::Datagram {
            to: Box::new(take::<AddressVector>(&mut rest)?),
            immediate: (opcode == WqeOpcode::SendImmediate).then_some(immediate),
        },
        _ if datagram => return None,
        WqeOpcode::Send => Work::Send {
            immediate: None,
            invalidate: None,
        },
        WqeOpcode::SendImmediate => Work::Send {
            immediate: Some(immediate),
            invalidate: None,
        },
        WqeOpcode::SendInvalidate => Work::Send {
            immediate: None,
            invalidate: Some(immediate),
        },
        WqeOpcode::RdmaWrite | WqeOpcode::RdmaWriteImmediate => {
            let remote: RemoteAddressSegment = take(&mut rest)?;
            Work::Write {
                address: remote.raddr.get(),
                rkey: remote.rkey.get(),
                immediate: (opcode == WqeOpcode::RdmaWriteImmediate).then_some(immediate),
            }
        }
        WqeOpcode::RdmaRead if service != service::UC => {
            let remote: RemoteAddressSegment = take(&mut rest)?;
            Work::Read {
                address: remote.raddr.get(),
                rkey: remote.rkey.get(),
            }
        }
        WqeOpcode::AtomicCompareSwap | WqeOpcode::AtomicFetchAdd if service != service::UC => {
            let remote: RemoteAddressSegment = take(&mut rest)?;
            let atomic: AtomicSegment = take(&mut rest)?;
            let (address, rkey) = (remote.raddr.get(), remote.rkey.get());
            if opcode == WqeOpcode::AtomicCompareSwap {
                Work::CompareSwap {
                    address,
                    rkey,
                    swap: atomic.swap_add.get(),
                    compare: atomic.compare.get(),
                }
            } else {
                Work::FetchAdd {
                    address,
                    rkey,
                    add: atomic.swap_add.get(),
                }
            }
        }
        _ => return None,
    };
    let length = read_data(rest, message)?;
    message.set_length(match work {
        Work::CompareSwap { .. } | Work::FetchAdd { .. } if length != 8 => return None,
        _ if length > MAX_MESSAGE => return Some(Work::Bad(Syndrome::LocalLength)),
        _ => length as u32,
    });
    Some(work)
}

/// Reads the data segments into a message, and returns their length in bytes.
fn read_data(segments: &[u8], message: &mut Message) -> Option<u64> {
    let mut length = 0;
    for data in DataSegments(segments) {
        let data = data.ok()?;
        length += data.length() as u64;
        if !matches!(data, Data::Memory(segment) if segment.byte_count.get() == 0) {
            message.push_data(data);
        }
    }
    Some(length)
}
