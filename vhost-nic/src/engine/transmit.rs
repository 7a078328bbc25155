//! Send queues: WQEs in, frames out.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use mlx5_prm::queue_entry::{Cqe, CqeOpcode, ErrorCqe, Syndrome};
use mlx5_prm::wqe::{ControlSegment, DataSegment, EthernetSegment, SEND_WQE_BB, SEND_WQE_DS, WqeOpcode};
use zerocopy::{FromBytes, IntoBytes};

use super::{Engine, receive};
use crate::dma::Purpose;
use crate::frame::checksum::{self, Fill};
use crate::frame::mac::CastType;
use crate::frame::segmentation::Segments;
use crate::hca::blue_flame::BlueFlameWqe;
use crate::hca::guest_error::GuestError;
use crate::hca::mkey::{self, Access, Accessor, Segment};
use crate::hca::rq::QueueState;
use crate::hca::send_opcodes;
use crate::hca::sq::{Sq, SqState};
use crate::net::{Burst, EthernetAddresses, Frame};

/// Most bytes of a send WQE: 63 units of 16 bytes fit in its field, 16 basic blocks in the capability.
const MAX_WQE: usize = 1024;
/// WQEs that a queue may have carried out before others have their turn.
const TURN: usize = 64;
/// Bytes of the largest frame that can be given to be segmented (`max_lso_cap`), with its headers.
const MAX_LSO: usize = (1 << 16) + 512;
/// Least bytes of a frame without its check sequence (IEEE 802.3).
const MIN_FRAME: usize = 60;
/// Bytes of a frame beyond the MTU: Ethernet header and two VLAN tags.
const FRAME_OVERHEAD: usize = 14 + 8;

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Where frames are put together; kept from one to the next.
#[derive(Default)]
struct Buffers {
    frame: Vec<u8>,
    segment: Vec<u8>,
}

/// Why a WQE is not carried out.
struct Failure {
    syndrome: Syndrome,
    why: String,
}

fn malformed(why: impl Into<String>) -> Failure {
    Failure {
        syndrome: Syndrome::LocalQpOperation,
        why: why.into(),
    }
}

/// A send WQE, as far as its size says.
struct Wqe<'a> {
    control: ControlSegment,
    bytes: &'a [u8],
}

/// Carries out what is posted to a queue, or a part of it if others wait: then it comes again.
pub(super) fn run(engine: &Engine, sq: &Sq) {
    let (hca, number) = (&engine.hca, sq.number);
    let mut state = sq.lock();
    loop {
        let arrived = sq.blue_flame.take();
        let producer = match sq.ring.send_producer(&hca.dma) {
            Ok(producer) if state.state == QueueState::Ready => arrived.limit(state.consumer, producer),
            Ok(producer) => producer,
            Err(error) => {
                let what = format_args!("Send queue {number:#x}: {error}");
                hca.guest_errors.report(GuestError::UnreadableDoorbellRecord, what);
                return;
            }
        };
        if state.consumer == producer {
            return;
        }
        match state.state {
            QueueState::Ready => {
                send(engine, sq, &mut state, producer, arrived.wqe);
                if hca.scheduler.has_other_work() {
                    return hca.scheduler.schedule(number);
                }
            }
            QueueState::Error if state.context.flush_in_error_en() => flush(engine, sq, &mut state, producer),
            QueueState::Error | QueueState::Reset => return,
        }
    }
}

/// Carries out WQEs up to `producer`, or to the first that fails, or as many as it is this queue's turn for.
fn send(engine: &Engine, sq: &Sq, state: &mut SqState, producer: u16, mut blue_flame: Option<BlueFlameWqe>) {
    let mut memory = [0; MAX_WQE];
    let mut turn = 0..TURN;
    while state.state == QueueState::Ready && state.consumer != producer {
        let index = state.consumer;
        // One that came through a doorbell register is carried out from what came.
        let pending = blue_flame.as_ref().is_some_and(|wqe| wqe.is_within(index, producer));
        if turn.next().is_none() && !pending {
            return;
        }
        let blue_flame = blue_flame.take_if(|wqe| wqe.index == index);
        let result = fetch(engine, sq, index, producer, blue_flame, &mut memory).and_then(|wqe| {
            execute(engine, sq, &wqe)
                .map(|()| wqe.control)
                .map_err(|failure| (wqe.control, failure))
        });
        match result {
            Ok(control) => {
                let blocks = (control.ds() * SEND_WQE_DS).div_ceil(SEND_WQE_BB);
                state.consumer = index.wrapping_add(blocks as u16);
                if control.fm_ce_se & ControlSegment::CQ_UPDATE != 0 {
                    complete(sq, state, &control, index);
                }
            }
            Err((control, failure)) => {
                let what = format_args!("Send queue {:#x}, WQE {index:#x}: {}", sq.number, failure.why);
                engine.hca.guest_errors.report(GuestError::BadSendWqe, what);
                engine.hca.port_counters.send_errors.fetch_add(1, Ordering::Relaxed);
                fail(sq, state, &control, index, failure.syndrome);
                state.become_state(QueueState::Error);
                // Its size cannot be trusted; the flush goes on behind one block.
                state.consumer = index.wrapping_add(1);
            }
        }
    }
}

fn fetch<'a>(
    engine: &Engine,
    sq: &Sq,
    index: u16,
    producer: u16,
    blue_flame: Option<BlueFlameWqe>,
    memory: &'a mut [u8; MAX_WQE],
) -> Result<Wqe<'a>, (ControlSegment, Failure)> {
    let dma = &engine.hca.dma;
    if let Some(BlueFlameWqe { bytes, .. }) = &blue_flame
        && let Ok((control, _)) = ControlSegment::read_from_prefix(bytes)
        && bytes.len().div_ceil(SEND_WQE_BB) <= usize::from(producer.wrapping_sub(index))
    {
        engine.hca.blue_flame.count();
        memory[..bytes.len()].copy_from_slice(bytes);
        return Ok(Wqe {
            control,
            bytes: &memory[..bytes.len()],
        });
    }
    let unreadable = |error: crate::dma::DmaError| Failure {
        syndrome: Syndrome::LocalProtection,
        why: error.to_string(),
    };
    sq.ring
        .send_bytes(dma, index, &mut memory[..SEND_WQE_BB])
        .map_err(|error| (ControlSegment::default(), unreadable(error)))?;
    let Ok((control, _)) = ControlSegment::read_from_prefix(memory) else {
        return Err((ControlSegment::default(), malformed("it has no control segment")));
    };
    let length = control.ds() * SEND_WQE_DS;
    let blocks = length.div_ceil(SEND_WQE_BB);
    if control.ds() == 0 || blocks > usize::from(producer.wrapping_sub(index)) {
        return Err((
            control,
            malformed(format!("its size is {}, beyond what is posted", control.ds())),
        ));
    }
    if length > SEND_WQE_BB {
        let rest = &mut memory[SEND_WQE_BB..length];
        sq.ring
            .send_bytes(dma, index.wrapping_add(1), rest)
            .map_err(|error| (control, unreadable(error)))?;
    }
    Ok(Wqe {
        control,
        bytes: &memory[..length],
    })
}

fn execute(engine: &Engine, sq: &Sq, wqe: &Wqe<'_>) -> Result<(), Failure> {
    match WqeOpcode::new(wqe.control.opcode()).filter(|opcode| send_opcodes::ETHERNET.contains(*opcode)) {
        Some(WqeOpcode::Nop) => Ok(()),
        Some(WqeOpcode::Send | WqeOpcode::Lso) => {
            BUFFERS.with_borrow_mut(|buffers| send_frame(engine, sq, wqe, &mut buffers.frame, &mut buffers.segment))
        }
        _ => Err(malformed(format!(
            "opcode {:#x} is none of a send queue",
            wqe.control.opcode()
        ))),
    }
}

fn send_frame(
    engine: &Engine,
    sq: &Sq,
    wqe: &Wqe<'_>,
    frame: &mut Vec<u8>,
    segment: &mut Vec<u8>,
) -> Result<(), Failure> {
    let Some((ethernet, _)) = wqe
        .bytes
        .get(size_of::<ControlSegment>()..)
        .and_then(|bytes| EthernetSegment::read_from_prefix(bytes).ok())
    else {
        return Err(malformed("it has no Ethernet segment"));
    };
    frame.clear();
    gather(engine, sq, wqe, &ethernet, frame)?;
    insert_vlan(&ethernet, frame);
    let fill = Fill::from_cs_flags(ethernet.cs_flags);
    let mss = ethernet.mss.get() & 0x3fff;
    if mss != 0 {
        let segments = Segments::new(frame, mss, fill).map_err(|error| malformed(error.to_string()))?;
        segments.emit(segment, |segment| {
            transmit(engine, &Burst::new(&[Frame::new(segment)]), sq.transport_domain)
        });
    } else {
        checksum::fill(frame, fill);
        if frame.len() < MIN_FRAME {
            frame.resize(MIN_FRAME, 0);
        }
        transmit(engine, &Burst::new(&[Frame::new(frame)]), sq.transport_domain);
    }
    Ok(())
}

/// Puts the frame together: the headers in the WQE, then what its data segments name.
fn gather(
    engine: &Engine,
    sq: &Sq,
    wqe: &Wqe<'_>,
    ethernet: &EthernetSegment,
    frame: &mut Vec<u8>,
) -> Result<(), Failure> {
    let start = size_of::<ControlSegment>() + EthernetSegment::INLINE_HEADER_START;
    let inline = ethernet.inline_header_size.get();
    let inline = if inline & EthernetSegment::INSERT_VLAN != 0 {
        0
    } else {
        usize::from(inline & 0x3ff)
    };
    let headers = wqe
        .bytes
        .get(start..start + inline)
        .ok_or_else(|| malformed("its headers are longer than itself"))?;
    frame.extend_from_slice(headers);
    // The segments begin behind the Ethernet segment, or at the next unit behind the headers.
    let fixed = size_of::<ControlSegment>() + size_of::<EthernetSegment>();
    let mut at = (start + inline).next_multiple_of(SEND_WQE_DS).max(fixed);
    while at < wqe.bytes.len() {
        let Ok((data, _)) = DataSegment::read_from_prefix(&wqe.bytes[at..]) else {
            return Err(malformed("it ends within a data segment"));
        };
        let count = data.byte_count.get();
        if count & DataSegment::INLINE != 0 {
            let length = (count & DataSegment::INLINE_LENGTH) as usize;
            let from = at + size_of_val(&data.byte_count);
            let bytes = wqe
                .bytes
                .get(from..from + length)
                .ok_or_else(|| malformed("its data is longer than itself"))?;
            frame.extend_from_slice(bytes);
            at = (from + length).next_multiple_of(SEND_WQE_DS);
        } else {
            gather_segment(engine, sq, &data, frame)?;
            at += size_of::<DataSegment>();
        }
        if frame.len() > MAX_LSO {
            return Err(malformed("its frame is too long"));
        }
    }
    Ok(())
}

fn gather_segment(engine: &Engine, sq: &Sq, data: &DataSegment, frame: &mut Vec<u8>) -> Result<(), Failure> {
    let hca = &engine.hca;
    let length = data.byte_count.get() as usize;
    if length > MAX_LSO {
        return Err(malformed("its frame is too long"));
    }
    let protection = |why: String| Failure {
        syndrome: Syndrome::LocalProtection,
        why,
    };
    let key = data.lkey.get();
    let accessor = Accessor {
        pd: sq.pd,
        qpn: sq.number,
        reserved_lkey: false,
    };
    mkey::translate(
        &hca.mkeys,
        key,
        accessor,
        data.address.get(),
        length as u64,
        Access::LocalRead,
        |piece| {
            let start = frame.len();
            frame.resize(start + piece.length(), 0);
            match piece {
                Segment::Memory(address, _) => hca.dma.read(Purpose::Gather, address, &mut frame[start..]),
                Segment::Null(_) => Ok(()),
            }
        },
    )
    .map_err(|error| protection(error.to_string()))?
    .map_err(|error| protection(error.to_string()))
}

/// Puts the tag that the Ethernet segment asks for behind the addresses.
fn insert_vlan(ethernet: &EthernetSegment, frame: &mut Vec<u8>) {
    const ADDRESSES: usize = 12;
    const CVLAN: [u8; 2] = 0x8100_u16.to_be_bytes();
    if ethernet.inline_header_size.get() & EthernetSegment::INSERT_VLAN != 0 && frame.len() >= ADDRESSES {
        let [a, b] = ethernet.inline_header_start;
        frame.splice(ADDRESSES..ADDRESSES, [CVLAN[0], CVLAN[1], a, b]);
    }
}

/// Sends finished frames to where they belong: the wire, or the function itself. `domain` is the transport domain they are sent from, if it is
/// not RDMA's.
pub(super) fn transmit(engine: &Engine, burst: &Burst<'_>, domain: Option<u32>) {
    let hca = &engine.hca;
    let counters = &hca.port_counters;
    let port = hca.port.state();
    let longest = usize::from(port.mtu()) + FRAME_OVERHEAD;
    if let Some(long) = burst.without_long(longest, |single| transmit(engine, single, domain)) {
        counters.send_errors.fetch_add(long, Ordering::Relaxed);
        return;
    }
    let addresses = burst.addresses().filter(|_| port.link_up());
    let Some(EthernetAddresses { destination, .. }) = addresses else {
        counters.send_errors.fetch_add(burst.count(), Ordering::Relaxed);
        return;
    };
    let cast = burst.cast();
    let (own, loops) = {
        let vport = hca.vport.read();
        let context = &vport.context;
        let off = if cast == CastType::Unicast {
            context.disable_uc_local_lb()
        } else {
            context.disable_mc_local_lb()
        };
        // The switches are for raw frames; RDMA between a function's own queue pairs is never off.
        (vport.is_own(destination), !off || burst.is_of_super_packets())
    };
    if loops && (own || cast != CastType::Unicast) {
        counters.loopback.count(burst);
        receive::from_self(engine, burst, domain);
    }
    // Frames to the function's own address stay inside.
    if !own {
        counters.sent.count(burst);
        if burst.is_of_super_packets() {
            counters.rdma_sent.count(burst);
        }
        if let Some(wire) = engine.wire.get() {
            wire.send_burst(burst);
        }
    }
}

fn completion(sq: &Sq, state: &SqState, control: &ControlSegment, index: u16) -> Cqe {
    let mut cqe = Cqe::new(CqeOpcode::Request);
    cqe.srqn_uidx.set(state.context.user_index());
    cqe.sop_drop_qpn.set(u32::from(control.opcode()) << 24 | sq.number);
    cqe.wqe_counter.set(index);
    cqe
}

fn complete(sq: &Sq, state: &SqState, control: &ControlSegment, index: u16) {
    sq.cq.post(completion(sq, state, control, index));
}

fn fail(sq: &Sq, state: &SqState, control: &ControlSegment, index: u16, syndrome: Syndrome) {
    let mut error = ErrorCqe::new(CqeOpcode::RequestError, syndrome);
    error.srqn_uidx.set(state.context.user_index());
    error
        .s_wqe_opcode_qpn
        .set(u32::from(control.opcode()) << 24 | sq.number);
    error.wqe_counter.set(index);
    sq.cq.post(error.into());
}

/// Gives back the WQEs of a queue in error.
fn flush(engine: &Engine, sq: &Sq, state: &mut SqState, producer: u16) {
    while state.consumer != producer {
        let index = state.consumer;
        let mut control = ControlSegment::default();
        // What cannot be read counts as one block.
        let read = sq.ring.send_bytes(&engine.hca.dma, index, control.as_mut_bytes());
        let blocks = (control.ds() * SEND_WQE_DS).div_ceil(SEND_WQE_BB).max(1) as u16;
        fail(sq, state, &control, index, Syndrome::WrFlush);
        let left = producer.wrapping_sub(index);
        state.consumer = index.wrapping_add(if read.is_ok() { blocks.min(left) } else { 1 });
    }
}
