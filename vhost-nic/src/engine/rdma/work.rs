//! Send WQEs of queue pairs, read from the ring.

use mlx5_prm::queue_entry::Syndrome;
use mlx5_prm::rdma_wqe::{AddressVector, AtomicSegment, RemoteAddressSegment, XrcSegment};
use mlx5_prm::wqe::{ControlSegment, DataSegment, SEND_WQE_BB, SEND_WQE_DS, WqeOpcode};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::dma::{self, Dma};
use crate::hca::blue_flame::{BlueFlameWqe, Slot};
use crate::hca::qp::{DataList, Message, Messages, Work, service};
use crate::hca::send_opcodes;
use crate::hca::wq::WorkQueue;

/// Most bytes of a WQE.
const MAX_WQE: usize = 1024;
/// Longest message (IBTA 9.7.7.1.1). The capability says half of it, as that of a ConnectX does: the driver's own arithmetic ends there.
const MAX_MESSAGE: u64 = 1 << 31;

/// Basic blocks that are read at once: the longest WQE, and some more.
const WINDOW: u16 = 32;
const _: () = assert!(WINDOW as usize * SEND_WQE_BB >= MAX_WQE);

/// Reads the WQEs that are posted to a ring, many at a time.
pub(super) struct Reader<'a> {
    dma: &'a Dma,
    ring: &'a WorkQueue,
    service: u8,
    /// Up to where is posted, in basic blocks.
    producer: u16,
    /// The WQE that came through a doorbell register.
    blue_flame: Option<BlueFlameWqe>,
    /// What is read of it: from this basic block on, so many.
    start: u16,
    blocks: u16,
    window: [u8; WINDOW as usize * SEND_WQE_BB],
}

impl<'a> Reader<'a> {
    /// A reader that has not looked yet what is posted.
    pub(super) fn new(dma: &'a Dma, ring: &'a WorkQueue, service: u8, consumer: u16) -> Self {
        Self {
            dma,
            ring,
            service,
            producer: consumer,
            blue_flame: None,
            start: consumer,
            blocks: 0,
            window: [0; WINDOW as usize * SEND_WQE_BB],
        }
    }

    /// Looks how far is posted. WQEs from `consumer` on wait for their doorbell registers, if the driver writes them there.
    pub(super) fn look(&mut self, slot: &Slot, consumer: u16) -> dma::Result<()> {
        let arrived = slot.take();
        self.producer = arrived.limit(consumer, self.ring.send_producer(self.dma)?);
        self.blue_flame = arrived.wqe.or(self.blue_flame.take());
        Ok(())
    }

    /// Looks how far is posted, whatever came through doorbell registers.
    pub(super) fn look_at_all(&mut self) -> dma::Result<()> {
        self.producer = self.ring.send_producer(self.dma)?;
        Ok(())
    }

    /// Whether a WQE that came through a doorbell register is among those that are posted from `consumer` on.
    pub(super) fn has_blue_flame(&self, consumer: u16) -> bool {
        let blue_flame = self.blue_flame.as_ref();
        blue_flame.is_some_and(|wqe| wqe.is_within(consumer, self.producer))
    }

    /// Adds the WQE at `index` to a list, if it is posted. Returns the basic blocks it takes, and whether it came through a doorbell register.
    pub(super) fn fetch(&mut self, index: u16, list: &mut Messages) -> Option<(u16, bool)> {
        let posted = self.producer.wrapping_sub(index);
        if posted == 0 {
            return None;
        }
        let message = list.add(index);
        let service = self.service;
        if let Some(wqe) = self.blue_flame.take_if(|wqe| wqe.index == index)
            && let Ok((control, _)) = ControlSegment::read_from_prefix(&wqe.bytes)
        {
            let blocks = wqe.bytes.len().div_ceil(SEND_WQE_BB) as u16;
            if blocks <= posted {
                message.control = control;
                if let Some(work) = parse(&wqe.bytes, service, message) {
                    message.work = work;
                }
                return Some((blocks, true));
            }
        }
        let Some(memory) = self.blocks(index, 1) else {
            return Some((1, false));
        };
        if let Ok((control, _)) = ControlSegment::read_from_prefix(memory) {
            message.control = control;
        }
        let length = message.control.ds() * SEND_WQE_DS;
        let blocks = length.div_ceil(SEND_WQE_BB) as u16;
        if blocks == 0 || blocks > posted {
            return Some((1, false));
        }
        let work = self
            .blocks(index, blocks)
            .and_then(|memory| parse(memory.get(..length)?, service, message));
        if let Some(work) = work {
            message.work = work;
        }
        Some((blocks, false))
    }

    /// So many basic blocks from `index` on, which are posted. None if they cannot be read.
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

/// Takes a segment from the front.
fn take<T: FromBytes + KnownLayout + Immutable>(rest: &mut &[u8]) -> Option<T> {
    let (segment, behind) = T::read_from_prefix(rest).ok()?;
    *rest = behind;
    Some(segment)
}

/// What the WQE asks for; none if it makes no sense.
fn parse(wqe: &[u8], service: u8, message: &mut Message) -> Option<Work> {
    let mut rest = wqe.get(size_of::<ControlSegment>()..)?;
    let immediate = message.control.immediate.get();
    let executed = send_opcodes::of_service(service);
    let opcode = WqeOpcode::new(message.control.opcode()).filter(|opcode| executed.contains(*opcode))?;
    if opcode == WqeOpcode::Nop {
        return Some(Work::Nop);
    }
    if opcode == WqeOpcode::Umr {
        return Some(Work::Umr { bytes: rest.to_vec() });
    }
    if service == service::XRC {
        message.xrc_srqn = Some(take::<XrcSegment>(&mut rest)?.xrc_srqn.get());
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
    let length = data(rest, &mut message.data)?;
    message.length = match work {
        Work::CompareSwap { .. } | Work::FetchAdd { .. } if length != 8 => return None,
        _ if length > MAX_MESSAGE => return Some(Work::Bad(Syndrome::LocalLength)),
        _ => length as u32,
    };
    Some(work)
}

/// Reads data segments, and returns how many bytes they name.
fn data(mut rest: &[u8], list: &mut DataList) -> Option<u64> {
    let mut length = 0;
    while !rest.is_empty() {
        let (segment, behind) = DataSegment::read_from_prefix(rest).ok()?;
        let count = segment.byte_count.get();
        if count & DataSegment::INLINE == 0 {
            rest = behind;
            if count > 0 {
                length += u64::from(count);
                list.push_memory(segment);
            }
            continue;
        }
        let size = (count & DataSegment::INLINE_LENGTH) as usize;
        let start = size_of_val(&segment.byte_count);
        let bytes = rest.get(start..start + size)?;
        length += size as u64;
        list.push_inline(bytes);
        rest = rest.get((start + size).next_multiple_of(SEND_WQE_DS)..).unwrap_or(&[]);
    }
    Some(length)
}
