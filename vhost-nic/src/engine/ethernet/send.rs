//! Send queues: WQEs into frames.

use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering;
use std::time::Duration;

use mlx5_prm::queue_entry::{Cqe, CqeOpcode, ErrorCqe, EventType, Syndrome};
use mlx5_prm::wqe::{ControlSegment, EthernetSegment, SEND_WQE_BB, SEND_WQE_DS, WqeOpcode};
use parking_lot::MutexGuard;
use smallvec::SmallVec;
use zerocopy::{FromBytes, IntoBytes};

use super::super::context::Context;
use super::super::data_segments::DataSegments;
use super::super::denial;
use super::super::egress::transmit;
use super::super::memory::{AccessError, Memory};
use super::super::wqe_check;
use crate::dma::{self, DmaError};
use crate::frame::checksum::{self, Fill};
use crate::frame::segmentation::Segments;
use crate::hca::blue_flame::BlueFlameWqe;
use crate::hca::cq::{Completion, CqInError};
use crate::hca::event::{EventQueue, event_data};
use crate::hca::mkey::{Access, Accessor};
use crate::hca::nic_event::NicEvent;
use crate::hca::nic_finding::{Finding, queue};
use crate::hca::pcie_account::Transactions;
use crate::hca::pcie_latency::{Batch, Transaction};
use crate::hca::qp::Data;
use crate::hca::rq::QueueState;
use crate::hca::scheduler::Task;
use crate::hca::send_opcodes;
use crate::hca::sq::{Sq, SqState};
use crate::net::{Burst, CqePlace, Effect, Frame, FrameNumber, QueueKind, Sender, WqeId};

/// Maximum bytes of a send WQE: 63 units of 16 bytes fit in its field, 16 basic blocks in the capability.
const MAX_WQE: usize = 1024;
/// Maximum number of WQEs executed, and bytes of frames sent, before the queue yields to others.
const BUDGET: usize = 64;
const BUDGET_BYTES: usize = 4 << 20;
/// Maximum number of times in a row that a queue is found with more WQEs: a driver that posts without end must not keep
/// the NIC from its reset, nor a command from the queue.
const TURNS: usize = 64;
/// Bytes of the largest frame that can be segmented, with its headers. mlx5e sends up to `GSO_MAX_SIZE` (8 * 65,535,
/// include/linux/netdevice.h) whatever `max_lso_cap` says (`mlx5e_build_nic_netdev`, core/en_main.c).
const MAX_LSO: usize = 8 * 65_535 + 512;
/// Maximum number of segments that are forwarded together, and of their bytes, unless one is longer.
const MAX_BURST: usize = 64;
const BURST_BYTES: usize = 64 << 10;
/// Maximum number of segments of a frame (`GSO_MAX_SEGS`, include/linux/netdevice.h).
const MAX_SEGMENTS: usize = 65_535;
/// Interval at which a doorbell record or a WQE that cannot be read is read again, to flush what is posted.
const UNREAD_INTERVAL: Duration = Duration::from_millis(5);
/// Minimum bytes of a frame, without its check sequence (IEEE 802.3).
const MIN_FRAME: usize = 60;

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Buffers in which frames are assembled, kept from one frame to the next.
#[derive(Default)]
struct Buffers {
    frame: Vec<u8>,
    segment: Vec<u8>,
}

/// Reason why a WQE cannot be executed.
struct Failure {
    syndrome: Syndrome,
    why: String,
    denied: Option<AccessError>,
}

fn malformed(why: impl Into<String>) -> Failure {
    Failure {
        syndrome: Syndrome::LocalQpOperation,
        why: why.into(),
        denied: None,
    }
}

fn protection(error: impl Into<AccessError>) -> Failure {
    let error = error.into();
    Failure {
        syndrome: Syndrome::LocalProtection,
        why: error.to_string(),
        denied: Some(error),
    }
}

/// A send WQE, as long as its control segment says.
struct Wqe<'a> {
    control: ControlSegment,
    bytes: &'a [u8],
}

/// PCIe transactions of a turn of the queue.
struct Turn<'a> {
    /// Transactions whose model time was spent.
    waits: Batch<'a>,
    /// Reads of frames that are not in the account yet.
    reads: Transactions,
}

/// Executes posted WQEs until the queue is empty, blocked, or must yield to others; a yielding queue reschedules
/// itself.
pub(in crate::engine) fn run(context: &Context, sq: &Sq) {
    let (hca, number) = (&context.hca, sq.number);
    let sending = Sending {
        context,
        sq,
        last: Cell::default(),
        left_at: Cell::default(),
    };
    let mut state = sq.lock();
    for _ in 0..TURNS {
        if state.state == QueueState::Reset {
            return;
        }
        let arrived = sq.blue_flame.take();
        let producer = match sq.wq.send_producer(&hca.dma) {
            Ok(producer) if state.state == QueueState::Ready => arrived.limit(state.consumer, producer),
            Ok(producer) => producer,
            Err(error) => return sending.lose_record(&mut state, &error),
        };
        if state.consumer == producer {
            return;
        }
        match state.state {
            QueueState::Ready => {
                sq.wq.check_overrun(&hca.findings, number, producer, state.consumer);
                sending.send(&mut state, producer, arrived.wqe);
            }
            QueueState::Error if state.context.flush_in_error_en() => {
                if sending.flush(&mut state, producer).is_err() {
                    return sending.look_again();
                }
            }
            QueueState::Error | QueueState::Reset => return,
        }
        if hca.scheduler.has_other_work() || !context.initialized() {
            break;
        }
    }
    hca.scheduler.schedule(number);
}

/// Whether the queue is ready and has unread WQEs.
pub(in crate::engine) fn has_posted(context: &Context, sq: &Sq) -> bool {
    let state = sq.lock();
    let producer = sq.wq.look_at_send_producer(&context.hca.dma);
    state.state == QueueState::Ready && producer.is_ok_and(|producer| producer != state.consumer)
}

/// A send queue that is serviced.
struct Sending<'a> {
    context: &'a Context,
    sq: &'a Sq,
    /// Number of the last frame of the current WQE, for the taps.
    last: Cell<FrameNumber>,
    /// Time at which the frame of the current WQE left, if the WQE is signaled; else 0. It arrives later, but before
    /// its completion is written.
    left_at: Cell<u64>,
}

impl Sending<'_> {
    /// Executes WQEs up to `producer`, the first that fails, or the end of the queue's budget.
    fn send(&self, state: &mut MutexGuard<'_, SqState>, producer: u16, mut blue_flame: Option<BlueFlameWqe>) {
        let resets = state.resets;
        let mut memory = [0; MAX_WQE];
        let (mut budget, mut sent) = (0..BUDGET, 0);
        let mut turn = Turn {
            waits: self.context.hca.pcie_latency.batch(),
            reads: Transactions::default(),
        };
        while state.state == QueueState::Ready && state.consumer != producer {
            let index = state.consumer;
            // A WQE that came through a doorbell register is executed from there.
            let pending = blue_flame.as_ref().is_some_and(|wqe| wqe.is_within(index, producer));
            if (budget.next().is_none() || sent >= BUDGET_BYTES) && !pending {
                return;
            }
            let blue_flame = blue_flame.take_if(|wqe| wqe.index == index);
            let posted = producer.wrapping_sub(index);
            turn.waits.spend(Transaction::MmioWrite);
            if blue_flame.is_none() {
                turn.waits.spend(Transaction::WqeRead);
            }
            let result = self.fetch(index, posted, blue_flame, &mut memory).and_then(|wqe| {
                let executed = self.execute(state, &wqe, &mut turn);
                if self.context.hca.check_wqes && state.resets == resets {
                    let (hca, ring) = (&self.context.hca, &self.sq.wq);
                    wqe_check::compare(hca, self.sq.number, ring, index, wqe.bytes);
                }
                executed
                    .map(|length| (wqe.control, length))
                    .map_err(|failure| (Some(wqe.control), failure))
            });
            state.payload.reads += std::mem::take(&mut turn.reads);
            // The command came while the frame was delivered: nothing of the WQE is the queue's any more.
            if state.resets != resets {
                return;
            }
            match result {
                Ok((control, length)) => {
                    sent += length;
                    let blocks = (control.ds() * SEND_WQE_DS).div_ceil(SEND_WQE_BB);
                    state.consumer = index.wrapping_add(blocks as u16);
                    let signaled = control.fm_ce_se & ControlSegment::CQ_UPDATE != 0;
                    if signaled {
                        turn.waits.spend(Transaction::CqeWrite);
                    }
                    let cqe = if signaled {
                        self.complete(state, &control, index)
                    } else {
                        None
                    };
                    self.note(index, cqe);
                }
                Err((read, failure)) => {
                    let control = read.unwrap_or_default();
                    let hca = &self.context.hca;
                    let what = format_args!("send queue {:#x}, WQE {index:#x}: {}", self.sq.number, failure.why);
                    let object = queue(self.sq.number);
                    hca.findings
                        .report(Finding::BadSendWqe, object, control.as_bytes(), what);
                    if let Some(error) = &failure.denied {
                        denial::report(hca, self.sq.number, error);
                    }
                    hca.port_counters.send_errors.fetch_add(1, Ordering::Relaxed);
                    self.fail(state, &control, index, failure.syndrome);
                    state.become_state(QueueState::Error);
                    // The flush continues behind the WQE: the driver knows completions by the first block of a WQE. One
                    // whose size cannot be right counts as one block.
                    match read {
                        Some(control) => state.consumer = index.wrapping_add(blocks(&control, posted).unwrap_or(1)),
                        None => state.unread = true,
                    }
                }
            }
            // A reset waits for a frame, not for a turn of them.
            if !self.context.initialized() {
                return;
            }
        }
    }

    /// Moves the queue to the error state, with a local work queue catastrophic error (IBTA 11.6.3.2).
    #[cold]
    fn end(&self, state: &mut SqState) {
        if state.state == QueueState::Ready {
            state.become_state(QueueState::Error);
            let data = event_data(EventQueue::Sq, self.sq.number);
            let eqs = &self.context.hca.eqs;
            eqs.announce(EventType::WqCatastrophicError, 0, &data);
        }
    }

    /// Ends the queue, as its doorbell record cannot be read. What is posted is flushed once it can be.
    #[cold]
    fn lose_record(&self, state: &mut SqState, error: &DmaError) {
        let (hca, number) = (&self.context.hca, self.sq.number);
        if state.state == QueueState::Ready {
            hca.findings.report_doorbell_record(queue(number), error);
            self.end(state);
        }
        if state.context.flush_in_error_en() {
            self.look_again();
        }
    }

    fn look_again(&self) {
        let hca = &self.context.hca;
        let again = hca.clock.instant() + UNREAD_INTERVAL;
        hca.scheduler.repeat_at(again, Task::Queue(self.sq.number));
    }

    /// Reports a WQE that is not the one that was posted here.
    #[inline]
    fn check_index(&self, control: &ControlSegment, index: u16) {
        if control.index() != index || control.ds() == 0 {
            let number = self.sq.number;
            let text = format_args!("send queue {number:#x}, WQE {index:#x} is not there: {control:?}");
            let findings = &self.context.hca.findings;
            findings.report(Finding::StaleWqe, queue(number), control.as_bytes(), text);
        }
    }

    /// Reads a WQE of at most `posted` basic blocks. A failure comes with the control segment, if that could be read.
    fn fetch<'a>(
        &self,
        index: u16,
        posted: u16,
        blue_flame: Option<BlueFlameWqe>,
        memory: &'a mut [u8; MAX_WQE],
    ) -> Result<Wqe<'a>, (Option<ControlSegment>, Failure)> {
        let (hca, wq) = (&self.context.hca, &self.sq.wq);
        if let Some(BlueFlameWqe { bytes, .. }) = &blue_flame
            && let Ok((control, _)) = ControlSegment::read_from_prefix(bytes)
            && bytes.len().div_ceil(SEND_WQE_BB) <= usize::from(posted)
        {
            hca.blue_flame.count();
            memory[..bytes.len()].copy_from_slice(bytes);
            return Ok(Wqe {
                control,
                bytes: &memory[..bytes.len()],
            });
        }
        wq.send_bytes(&hca.dma, index, &mut memory[..SEND_WQE_BB])
            .map_err(|error| (None, protection(error)))?;
        let Ok((control, _)) = ControlSegment::read_from_prefix(memory) else {
            return Err((None, malformed("it has no control segment")));
        };
        self.check_index(&control, index);
        let length = control.ds() * SEND_WQE_DS;
        if blocks(&control, posted).is_none() {
            let why = format!("its size of {} units exceeds what is posted", control.ds());
            return Err((Some(control), malformed(why)));
        }
        if length > SEND_WQE_BB {
            let rest = &mut memory[SEND_WQE_BB..length];
            wq.send_bytes(&hca.dma, index.wrapping_add(1), rest)
                .map_err(|error| (Some(control), protection(error)))?;
        }
        Ok(Wqe {
            control,
            bytes: &memory[..length],
        })
    }

    /// Executes a WQE, with the queue unlocked while its frame is delivered. Returns the bytes of the frame.
    fn execute(
        &self,
        state: &mut MutexGuard<'_, SqState>,
        wqe: &Wqe<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<usize, Failure> {
        let hca = &self.context.hca;
        self.left_at.set(0);
        let arguments = || [wqe.control.index().into(), wqe.control.opcode().into(), 0, 0];
        hca.tracer.record(NicEvent::FrameWqe, self.sq.number, arguments);
        match WqeOpcode::new(wqe.control.opcode()).filter(|opcode| send_opcodes::ETHERNET.contains(*opcode)) {
            Some(WqeOpcode::Nop) => Ok(0),
            Some(WqeOpcode::Send | WqeOpcode::Lso) => {
                BUFFERS.with_borrow_mut(|buffers| self.send_frame(state, wqe, turn, buffers))
            }
            _ => Err(malformed(format!(
                "opcode {:#x} is not one of a send queue",
                wqe.control.opcode()
            ))),
        }
    }

    fn send_frame(
        &self,
        state: &mut MutexGuard<'_, SqState>,
        wqe: &Wqe<'_>,
        turn: &mut Turn<'_>,
        Buffers { frame, segment }: &mut Buffers,
    ) -> Result<usize, Failure> {
        let Some((ethernet, _)) = wqe
            .bytes
            .get(size_of::<ControlSegment>()..)
            .and_then(|bytes| EthernetSegment::read_from_prefix(bytes).ok())
        else {
            return Err(malformed("it has no Ethernet segment"));
        };
        frame.clear();
        self.gather(wqe, &ethernet, turn, frame)?;
        insert_vlan(&ethernet, frame);
        let length = frame.len();
        let fill = Fill::from_cs_flags(ethernet.cs_flags);
        let mss = ethernet.mss.get() & 0x3fff;
        let sender = Sender {
            kind: QueueKind::Sq,
            queue: self.sq.number,
            wqe: Some(wqe.control.index()),
        };
        if wqe.control.fm_ce_se & ControlSegment::CQ_UPDATE != 0 {
            self.left_at.set(self.context.hca.clock.now());
        }
        let send = |frames: &[Frame<'_>]| {
            let burst = Burst::new(frames).of(sender);
            transmit(self.context, &burst, self.sq.transport_domain);
            self.last.set(burst.number().plus(frames.len() as u32 - 1));
        };
        if mss != 0 {
            let segments = Segments::new(frame, mss, fill).map_err(|error| malformed(error.to_string()))?;
            if segments.count() > MAX_SEGMENTS {
                return Err(malformed("it has too many segments"));
            }
            let count = (BURST_BYTES / segments.length()).clamp(1, MAX_BURST);
            MutexGuard::unlocked(state, || {
                segments.emit_bursts(segment, count, |burst| {
                    send(&burst.map(Frame::new).collect::<SmallVec<[_; MAX_BURST]>>());
                });
            });
        } else {
            checksum::fill(frame, fill);
            if frame.len() < MIN_FRAME {
                frame.resize(MIN_FRAME, 0);
            }
            MutexGuard::unlocked(state, || send(&[Frame::new(frame)]));
        }
        Ok(length)
    }

    /// Assembles the frame: the headers in the WQE, then the data of its segments.
    fn gather(
        &self,
        wqe: &Wqe<'_>,
        ethernet: &EthernetSegment,
        turn: &mut Turn<'_>,
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
        // Data segments follow the Ethernet segment, or begin at the next unit behind the headers.
        let fixed = size_of::<ControlSegment>() + size_of::<EthernetSegment>();
        let at = (start + inline).next_multiple_of(SEND_WQE_DS).max(fixed);
        let memory = Memory {
            hca: &self.context.hca,
            accessor: Accessor {
                pd: self.sq.pd,
                qpn: self.sq.number,
                reserved_lkey: false,
            },
        };
        for data in DataSegments(wqe.bytes.get(at..).unwrap_or(&[])) {
            match data.map_err(|error| malformed(error.to_string()))? {
                Data::Inline(bytes) => frame.extend_from_slice(bytes),
                Data::Memory(segment) if segment.byte_count.get() as usize > MAX_LSO => {
                    return Err(malformed("its frame is too long"));
                }
                Data::Memory(segment) => {
                    turn.waits.spend(Transaction::PayloadRead);
                    turn.reads.add(1, segment.byte_count.get().into());
                    memory
                        .gather(segment.into(), Access::LocalRead, frame)
                        .map_err(protection)?;
                }
            }
            if frame.len() > MAX_LSO {
                return Err(malformed("its frame is too long"));
            }
        }
        Ok(())
    }

    /// Notes that the last frame of a WQE ended it.
    fn note(&self, index: u16, cqe: Option<CqePlace>) {
        self.context.note(self.last.take(), 1, || {
            let wqe = WqeId {
                kind: QueueKind::Sq,
                queue: self.sq.number,
                index,
                receive: false,
            };
            Effect::Ends(wqe, cqe)
        });
    }

    fn complete(&self, state: &mut SqState, control: &ControlSegment, index: u16) -> Option<CqePlace> {
        let mut cqe = Cqe::new(CqeOpcode::Request);
        cqe.srqn_uidx.set(state.context.user_index());
        cqe.sop_drop_qpn.set(u32::from(control.opcode()) << 24 | self.sq.number);
        cqe.wqe_counter.set(index);
        cqe.timestamp.set(self.left_at.take());
        self.post(state, cqe)
    }

    /// Posts a completion. If the completion queue does not take it, ends the queue. One that the door made an error
    /// moves the queue to the error state.
    fn post(&self, state: &mut SqState, cqe: Cqe) -> Option<CqePlace> {
        match self.sq.cq.post_of(self.sq.number, cqe) {
            Ok(Completion { place, failed, .. }) => {
                if failed {
                    state.become_state(QueueState::Error);
                }
                place
            }
            Err(CqInError) => {
                self.end(state);
                None
            }
        }
    }

    fn fail(&self, state: &mut SqState, control: &ControlSegment, index: u16, syndrome: Syndrome) {
        let mut error = ErrorCqe::new(CqeOpcode::RequestError, syndrome);
        error.srqn_uidx.set(state.context.user_index());
        error
            .s_wqe_opcode_qpn
            .set(u32::from(control.opcode()) << 24 | self.sq.number);
        error.wqe_counter.set(index);
        self.post(state, error.into());
    }

    /// Completes the WQEs of a queue in error as flushed, up to the first that cannot be read: where the next one
    /// begins is not known then.
    fn flush(&self, state: &mut SqState, producer: u16) -> dma::Result<()> {
        while state.consumer != producer {
            let index = state.consumer;
            let mut control = ControlSegment::default();
            let (wq, dma) = (&self.sq.wq, &self.context.hca.dma);
            wq.send_bytes(dma, index, control.as_mut_bytes())?;
            let blocks = (control.ds() * SEND_WQE_DS).div_ceil(SEND_WQE_BB).max(1) as u16;
            if !std::mem::take(&mut state.unread) {
                self.fail(state, &control, index, Syndrome::WrFlush);
            }
            let left = producer.wrapping_sub(index);
            state.consumer = index.wrapping_add(blocks.min(left));
        }
        Ok(())
    }
}

/// Returns the size of a WQE in basic blocks, or `None` if it is zero or exceeds the `posted` blocks.
fn blocks(control: &ControlSegment, posted: u16) -> Option<u16> {
    let blocks = (control.ds() * SEND_WQE_DS).div_ceil(SEND_WQE_BB) as u16;
    (1..=posted).contains(&blocks).then_some(blocks)
}

/// Inserts the VLAN tag of the Ethernet segment, if it has one, behind the addresses.
fn insert_vlan(ethernet: &EthernetSegment, frame: &mut Vec<u8>) {
    const ADDRESSES: usize = 12;
    const CVLAN: [u8; 2] = 0x8100_u16.to_be_bytes();
    if ethernet.inline_header_size.get() & EthernetSegment::INSERT_VLAN != 0 && frame.len() >= ADDRESSES {
        let [a, b] = ethernet.inline_header_start;
        frame.splice(ADDRESSES..ADDRESSES, [CVLAN[0], CVLAN[1], a, b]);
    }
}
