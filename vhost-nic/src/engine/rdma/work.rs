//! Send WQEs of queue pairs, read from the ring.

use mlx5_prm::queue_entry::Syndrome;
use mlx5_prm::rdma_wqe::{AddressVector, AtomicSegment, RemoteAddressSegment, XrcSegment};
use mlx5_prm::wqe::{ControlSegment, DataSegment, SEND_WQE_BB, SEND_WQE_DS, WqeOpcode};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::dma::Dma;
use crate::hca::qp::{Data, Message, Work, service};
use crate::hca::work_queue::WorkQueue;
use crate::roce::psn::Psn;

/// Most bytes of a WQE.
const MAX_WQE: usize = 1024;
/// Longest message (`log_max_msg`).
const MAX_MESSAGE: u64 = 1 << 30;

/// Reads the WQE at `index`; `posted` basic blocks are posted from there. Returns it and the basic blocks it takes.
pub(super) fn fetch(dma: &Dma, ring: &WorkQueue, index: u16, posted: u16, service: u8) -> (Message, u16) {
    let mut memory = [0; MAX_WQE];
    let mut message = Message {
        control: ControlSegment::default(),
        index,
        work: Work::Bad(Syndrome::LocalQpOperation),
        data: Vec::new(),
        length: 0,
        xrc_srqn: None,
        first: Psn::default(),
        packets: 0,
        answered: 0,
        done: false,
        answer: None,
    };
    if ring.send_bytes(dma, index, &mut memory[..SEND_WQE_BB]).is_err() {
        return (message, 1);
    }
    if let Ok((control, _)) = ControlSegment::read_from_prefix(&memory) {
        message.control = control;
    }
    let length = message.control.ds() * SEND_WQE_DS;
    let blocks = length.div_ceil(SEND_WQE_BB) as u16;
    if blocks == 0 || blocks > posted {
        return (message, 1);
    }
    if length > SEND_WQE_BB
        && ring
            .send_bytes(dma, index.wrapping_add(1), &mut memory[SEND_WQE_BB..length])
            .is_err()
    {
        return (message, blocks);
    }
    if let Some(work) = parse(&memory[..length], service, &mut message) {
        message.work = work;
    }
    (message, blocks)
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
    let opcode = WqeOpcode::new(message.control.opcode())?;
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
        _ => u32::try_from(length).ok().filter(|_| length <= MAX_MESSAGE)?,
    };
    Some(work)
}

/// Reads data segments, and returns how many bytes they name.
fn data(mut rest: &[u8], list: &mut Vec<Data>) -> Option<u64> {
    let mut length = 0;
    while !rest.is_empty() {
        let (segment, behind) = DataSegment::read_from_prefix(rest).ok()?;
        let count = segment.byte_count.get();
        if count & DataSegment::INLINE == 0 {
            rest = behind;
            if count > 0 {
                length += u64::from(count);
                list.push(Data::Memory(segment));
            }
            continue;
        }
        let size = (count & DataSegment::INLINE_LENGTH) as usize;
        let start = size_of_val(&segment.byte_count);
        let bytes = rest.get(start..start + size)?;
        length += size as u64;
        list.push(Data::Inline(bytes.to_vec()));
        rest = rest.get((start + size).next_multiple_of(SEND_WQE_DS)..).unwrap_or(&[]);
    }
    Some(length)
}
