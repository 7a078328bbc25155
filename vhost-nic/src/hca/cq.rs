//! Completion queues.

mod burst;
mod compression;
mod failure;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mlx5_prm::cq::Cqc;
use mlx5_prm::queue_entry::{Cqe, CqeOpcode, ErrorCqe, EventType};
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use vhost_daemon::trace::Tracer;
use zerocopy::{FromBytes, IntoBytes};

use super::buffer::Buffer;
use super::clock::Clock;
use super::entry_door::{CqeFate, EntryDoor};
use super::entry_ring::{EntryRing, INDEX_MASK};
use super::eq::{Eq, Eqs};
use super::inspect::{self, Numbered};
use super::nic_event::{self, NicEvent};
use super::nic_finding::{Finding, Findings, Object};
use super::pcie_account::{PcieAccount, Transactions};
use super::pcie_latency::{PcieLatency, Transaction};
use super::port_counters::CompletionCounters;
use super::refcount::{RefCount, Reference};
use super::scheduler::{Scheduler, Task};
use crate::dma::{Dma, DmaError, Purpose};
use crate::net::CqePlace;
use compression::Session;
use failure::CqFailure;

pub use compression::{CompressionType, MAX_SESSION, is_supported};
pub use failure::{Completion, CqInError, Posted};

/// Largest log2 of the number of entries.
pub const MAX_LOG_CQ_SIZE: u8 = 22;
/// Shortest moderation period that the host can keep; shorter ones are treated as none.
const SHORTEST_PERIOD: Duration = Duration::from_micros(50);
/// Maximum bytes of data in the first half of a CQE (`MLX5_INLINE_SCATTER_32`).
const SHORT_DATA: usize = 32;
/// `cqe_sz`: CQEs without 64 bytes of data are padded to 128 bytes (`MLX5_CQE_SIZE_128_PAD`, device.h).
const PADDED: u8 = 2;
/// Bytes of the doorbell that arms a CQ.
const DOORBELL: u64 = 8;

/// A completion queue.
#[derive(Debug, Serialize)]
pub struct Cq {
    /// CQ number (24 bits).
    pub number: u32,
    /// UAR page that its doorbells come through.
    pub uar: u32,
    /// References by work queues that complete here.
    pub references: RefCount,
    /// Whether completions may be compressed (`cqe_comp_en`).
    #[serde(skip)]
    compresses: bool,
    #[serde(serialize_with = "inspect::number")]
    eq: Arc<Eq>,
    #[serde(skip)]
    eqs: Arc<Eqs>,
    #[serde(skip)]
    scheduler: Arc<Scheduler>,
    #[serde(skip)]
    dma: Arc<Dma>,
    #[serde(skip)]
    findings: Arc<Findings>,
    #[serde(skip)]
    counters: Arc<CompletionCounters>,
    #[serde(skip)]
    clock: Clock,
    #[serde(skip)]
    tracer: Tracer,
    #[serde(skip)]
    door: Option<Arc<dyn EntryDoor>>,
    /// Spent here for completions of bursts; for others, by what posts them.
    #[serde(skip)]
    pcie_latency: Arc<PcieLatency>,
    /// Lock order: before the table of EQs and the EQs, to which a failure is reported.
    state: Mutex<State>,
    /// References to the EQ and the UAR.
    #[serde(skip)]
    held: Mutex<Vec<Reference>>,
}

/// Arguments of [`NicEvent::Cqe`].
fn traced(cqe: &Cqe, opcode: u8, syndrome: Option<u8>) -> [u32; 4] {
    [
        cqe.sop_drop_qpn.get() & 0xff_ffff,
        cqe.wqe_counter.get().into(),
        opcode.into(),
        syndrome.unwrap_or(0).into(),
    ]
}

impl Numbered for Cq {
    fn number(&self) -> Option<u32> {
        Some(self.number)
    }
}

/// Completions for which the consumer wants an event.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Arm {
    Nothing,
    Solicited,
    Any,
}

#[derive(Debug, Serialize)]
struct State {
    #[serde(serialize_with = "inspect::cqc")]
    context: Cqc,
    #[serde(skip)]
    buffer: Buffer,
    /// Indexes; the consumer index is that of the last arm doorbell, or of the last read of the doorbell record.
    #[serde(flatten)]
    ring: EntryRing,
    /// Completions that the end of a burst will write, if the CQ allows compression.
    #[serde(skip)]
    session: Option<Box<Session>>,
    /// Index behind the last solicited completion.
    solicited: u32,
    arm: Arm,
    /// The CQ has been armed: its consumer waits for events.
    #[serde(skip)]
    used_events: bool,
    /// Completions held back by moderation since the CQ was armed.
    pending: u16,
    /// Latest time of the event for them.
    #[serde(skip)]
    deadline: Option<Instant>,
    failure: Option<CqFailure>,
    /// MMIO writes that arm the CQ.
    doorbells: Transactions,
    /// DMA writes of CQEs.
    cqe_writes: Transactions,
}

impl State {
    /// Whether a completion from index `consumer` on is one the CQ is armed for.
    fn due(&self, consumer: u32) -> bool {
        let behind = |index: u32| (1..=self.ring.size()).contains(&(index.wrapping_sub(consumer) & INDEX_MASK));
        match self.arm {
            Arm::Nothing => false,
            Arm::Solicited => behind(self.solicited),
            Arm::Any => behind(self.ring.producer),
        }
    }
}

/// Returns the bytes of a CQE by the context's `cqe_sz` (`enum mlx5_cqe_size`).
pub fn entry_size(context: &Cqc) -> Option<u64> {
    match context.cqe_sz() {
        0 => Some(64),
        1 | 2 => Some(128),
        _ => None,
    }
}

/// Objects of the function that a completion queue refers to.
#[derive(Debug, Clone)]
pub(crate) struct CqResources {
    pub(crate) dma: Arc<Dma>,
    pub(crate) eqs: Arc<Eqs>,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) findings: Arc<Findings>,
    pub(crate) counters: Arc<CompletionCounters>,
    pub(crate) clock: Clock,
    pub(crate) tracer: Tracer,
    pub(crate) door: Option<Arc<dyn EntryDoor>>,
    pub(crate) pcie_latency: Arc<PcieLatency>,
    pub(crate) compression: CompressionType,
}

impl Cq {
    /// Bytes of a CQ with all that it owns and that is not charged by itself.
    pub(crate) fn size(context: &Cqc) -> usize {
        size_of::<Self>() + if context.cqe_comp_en() { size_of::<Session>() } else { 0 }
    }

    pub(crate) fn new(
        number: u32,
        context: Cqc,
        buffer: Buffer,
        eq: Arc<Eq>,
        resources: CqResources,
        uar: Reference,
    ) -> Self {
        let CqResources {
            dma,
            eqs,
            scheduler,
            findings,
            counters,
            clock,
            tracer,
            door,
            pcie_latency,
            compression,
        } = resources;
        let uar_page = context.uar_page();
        let state = State {
            ring: EntryRing::new(context.log_cq_size()),
            session: Session::new(&context, compression),
            context,
            buffer,
            solicited: 0,
            arm: Arm::Nothing,
            used_events: false,
            pending: 0,
            deadline: None,
            failure: None,
            doorbells: Transactions::default(),
            cqe_writes: Transactions::default(),
        };
        Self {
            number,
            uar: uar_page,
            references: RefCount::default(),
            compresses: state.session.is_some(),
            held: Mutex::new(vec![eq.references.acquire(), uar]),
            eq,
            eqs,
            scheduler,
            dma,
            findings,
            counters,
            clock,
            tracer,
            door,
            pcie_latency,
            state: Mutex::new(state),
        }
    }

    fn object(&self) -> Object {
        Object::new("cq", self.number.into())
    }

    /// Drops the references to the EQ and the UAR, even if an `Arc` outlives DESTROY_CQ.
    pub fn retire(&self) {
        self.check_unread();
        self.held.lock().clear();
    }

    /// Reports completions that nobody was going to read: the consumer waits for events, and none was to come.
    fn check_unread(&self) {
        let state = self.state.lock();
        if !state.used_events || state.arm != Arm::Nothing {
            return;
        }
        let Some(consumer) = self.consumer_index(&state.context, Purpose::Look) else {
            return;
        };
        let producer = state.ring.producer;
        let unread = producer.wrapping_sub(consumer) & INDEX_MASK;
        if (1..=state.ring.size()).contains(&unread) {
            let evidence = [producer.to_be_bytes(), consumer.to_be_bytes()].concat();
            let text = format_args!(
                "completion queue {} is destroyed with {unread} unread completions",
                self.number
            );
            self.findings
                .report(Finding::CqNotRearmed, self.object(), &evidence, text);
        }
    }

    /// Appends a completion, with owner bit and timestamp filled in, and posts an event if the CQ is armed for it. A
    /// timestamp other than 0 stays.
    pub fn post(&self, cqe: Cqe) -> Posted {
        self.post_of_queue_pair(&[], cqe)
    }

    /// Appends a completion of a send or receive queue, as [`Self::post`] does. In the place of the queue's number, a
    /// received frame has its flow tag.
    pub fn post_of(&self, queue: u32, cqe: Cqe) -> Result<Completion, CqInError> {
        self.post_entry(queue, &[], cqe, false)
    }

    /// Appends a completion with inline data: 64 bytes at most, and more than 32 only in a 128-byte CQE.
    pub fn post_with_data(&self, mut cqe: Cqe, data: &[u8]) -> Posted {
        if data.len() <= SHORT_DATA {
            cqe.as_mut_bytes()[..data.len()].copy_from_slice(data);
            cqe.op_own |= Cqe::INLINE_32;
            self.post_of_queue_pair(&[], cqe)
        } else {
            cqe.op_own |= Cqe::INLINE_64;
            self.post_of_queue_pair(data, cqe)
        }
    }

    fn post_of_queue_pair(&self, lower: &[u8], cqe: Cqe) -> Posted {
        let queue = cqe.sop_drop_qpn.get() & 0xff_ffff;
        self.post_entry(queue, lower, cqe, false)
            .map(|completion| completion.place)
    }

    /// Appends a completion. It may join a session if it is one of a burst.
    fn post_entry(&self, queue: u32, lower: &[u8], mut cqe: Cqe, in_burst: bool) -> Result<Completion, CqInError> {
        let ask = |door: &Arc<dyn EntryDoor>| door.cqe(self.number, queue, lower, &mut cqe);
        let fate = self.door.as_ref().map_or(CqeFate::Written, ask);
        let held = in_burst && fate == CqeFate::Written && compression::is_joinable(&cqe);
        let place = match fate {
            CqeFate::Written if held => Some(self.join(queue, cqe)?),
            CqeFate::Written | CqeFate::Failed => {
                if in_burst {
                    self.pcie_latency.spend(Transaction::CqeWrite);
                }
                Some(self.post_past_door(lower, cqe)?)
            }
            CqeFate::Withheld => None,
            CqeFate::Overrun => return Err(self.overrun()),
        };
        let failed = fate == CqeFate::Failed;
        Ok(Completion { place, failed, held })
    }

    /// Appends a completion that has passed the door; see [`EntryDoor::cqe`].
    pub fn post_past_door(&self, lower: &[u8], cqe: Cqe) -> Result<CqePlace, CqInError> {
        let mut state = self.state.lock();
        let mut fires = self.write_session(&mut state);
        let first = state.ring.producer;
        let posted = self.append(&mut state, lower, cqe);
        fires = fires || self.completes(&mut state, first);
        if fires {
            self.fire(state);
        }
        posted
    }

    /// Fails with an overrun behind the completions that are held.
    #[cold]
    fn overrun(&self) -> CqInError {
        let mut state = self.state.lock();
        let fires = self.write_session(&mut state);
        let error = self.fail(&mut state, CqFailure::Overrun);
        if fires {
            self.fire(state);
        }
        error
    }

    /// Counts the completions from index `first` on, and returns whether they fire the event now.
    fn completes(&self, state: &mut State, first: u32) -> bool {
        let count = state.ring.producer.wrapping_sub(first) & INDEX_MASK;
        count > 0 && state.due(first) && !self.hold_back(state, count)
    }

    /// Writes a CQE: `cqe`, and before it `lower`, the lower half of a 128-byte CQE. Returns its place. The CQ fails if
    /// it has no room or cannot be written.
    fn append(&self, state: &mut State, lower: &[u8], mut cqe: Cqe) -> Result<CqePlace, CqInError> {
        if state.failure.is_some() {
            return Err(CqInError);
        }
        self.make_room(state, 0, &cqe)
            .map_err(|failure| self.fail(state, failure))?;
        // An error CQE has its syndrome in place of the timestamp.
        let opcode = cqe.op_own >> 4;
        let error = opcode == CqeOpcode::RequestError as u8 || opcode == CqeOpcode::ResponderError as u8;
        if !error && cqe.timestamp.get() == 0 {
            cqe.timestamp.set(self.clock.now());
        }
        cqe.op_own = cqe.op_own & !Cqe::OWNER | state.ring.owner();
        let size = entry_size(&state.context).unwrap_or(64);
        let index = state.ring.slot();
        let entry = u64::from(index) * size;
        // The completion is the upper half of a 128-byte CQE.
        let offset = entry + (size - size_of::<Cqe>() as u64);
        let written = state
            .buffer
            .write(&self.dma, Purpose::Cqe, entry, lower)
            .and_then(|()| state.buffer.publish(&self.dma, Purpose::Cqe, offset, cqe.as_bytes()));
        if let Err(error) = written {
            return Err(self.lose(state, &cqe, &error));
        }
        state.ring.advance();
        let whole = !lower.is_empty() || state.context.cqe_sz() == PADDED;
        state
            .cqe_writes
            .add(1, if whole { size } else { size_of::<Cqe>() as u64 });
        let syndrome = error.then(|| ErrorCqe::ref_from_bytes(cqe.as_bytes()).map_or(0, |cqe| cqe.syndrome));
        self.tracer
            .record(NicEvent::Cqe, self.number, || traced(&cqe, opcode, syndrome));
        let counter = match cqe.op_own & (Cqe::INLINE_32 | Cqe::INLINE_64) {
            Cqe::INLINE_32 => &self.counters.inline_32,
            Cqe::INLINE_64 => &self.counters.inline_64,
            _ => &self.counters.plain,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if cqe.op_own & Cqe::SOLICITED != 0 || error {
            state.solicited = state.ring.producer;
        }
        Ok(CqePlace {
            cq: self.number,
            index,
            syndrome,
        })
    }

    /// Fails, as a completion cannot be written.
    #[cold]
    fn lose(&self, state: &mut State, cqe: &Cqe, error: &DmaError) -> CqInError {
        let text = format_args!("completion queue {}: {error}", self.number);
        self.findings
            .report(Finding::LostCqe, self.object(), cqe.as_bytes(), text);
        self.findings.report_dma(self.object(), error);
        self.fail(state, CqFailure::Access)
    }

    /// Checks that there is room for a completion behind `pending` others.
    fn make_room(&self, state: &mut State, pending: u32, cqe: &Cqe) -> Result<(), CqFailure> {
        if state.ring.has_room_after(pending) || state.context.oi() {
            return Ok(());
        }
        // The consumer advances the doorbell record without a doorbell.
        let consumer = self
            .consumer_index(&state.context, Purpose::DoorbellRecord)
            .ok_or(CqFailure::Access)?;
        state.ring.set_consumer(consumer);
        if !state.ring.has_room_after(pending) {
            let text = format_args!("completion queue {} is full", self.number);
            self.findings
                .report(Finding::CqOverrun, self.object(), cqe.as_bytes(), text);
            return Err(CqFailure::Overrun);
        }
        Ok(())
    }

    /// Takes no more completions, and reports it, once.
    fn fail(&self, state: &mut State, failure: CqFailure) -> CqInError {
        if state.failure.is_none() {
            state.failure = Some(failure);
            if failure == CqFailure::Overrun {
                self.counters.overruns.fetch_add(1, Ordering::Relaxed);
            }
            let mut data = [0; 12];
            data[..4].copy_from_slice(&self.number.to_be_bytes());
            data[11] = failure.syndrome();
            self.eqs.announce(EventType::CqError, 0, &data);
        }
        CqInError
    }

    /// Arms the CQ for the next completion, or the next solicited one, from consumer index `consumer` on.
    pub fn arm(&self, consumer: u32, solicited_only: bool) {
        let mut state = self.state.lock();
        state.doorbells.add(1, DOORBELL);
        state.ring.set_consumer(consumer);
        state.arm = if solicited_only { Arm::Solicited } else { Arm::Any };
        state.used_events = true;
        state.pending = 0;
        state.deadline = None;
        if state.due(state.ring.consumer()) {
            self.fire(state);
        }
    }

    /// Counts completions, and returns whether moderation (`cq_period`, `cq_max_count`) delays their event.
    fn hold_back(&self, state: &mut State, completions: u32) -> bool {
        let (period, count) = (
            Duration::from_micros(state.context.cq_period().into()),
            state.context.cq_max_count(),
        );
        state.pending = state.pending.saturating_add(completions.min(u16::MAX.into()) as u16);
        if period < SHORTEST_PERIOD || (count > 0 && state.pending >= count) {
            return false;
        }
        if state.deadline.is_none() {
            let deadline = self.clock.instant() + period;
            state.deadline = Some(deadline);
            let arguments = || [nic_event::microseconds(period), 0, 0, 0];
            self.tracer.record(NicEvent::ModerationSet, self.number, arguments);
            self.scheduler.schedule_at(deadline, Task::Cq(self.number));
        }
        true
    }

    /// Posts the event that moderation delayed, if its deadline has passed.
    pub fn period_over(&self) {
        let state = self.state.lock();
        if state.arm != Arm::Nothing && state.deadline.is_some_and(|deadline| deadline <= self.clock.instant()) {
            self.fire(state);
        }
    }

    /// Posts an event and disarms the CQ.
    fn fire(&self, mut state: MutexGuard<'_, State>) {
        state.arm = Arm::Nothing;
        state.deadline = None;
        drop(state);
        self.notify();
    }

    fn notify(&self) {
        let mut data = [0; 28];
        data[24..].copy_from_slice(&self.number.to_be_bytes());
        self.eq.post(EventType::Completion, 0, &data);
    }

    /// Reads the consumer index from the doorbell record, if that can be read.
    fn consumer_index(&self, context: &Cqc, purpose: Purpose) -> Option<u32> {
        match self.dma.load::<u32>(purpose, context.dbr_addr()) {
            Ok(record) => Some(u32::from_be(record) & INDEX_MASK),
            Err(error) => {
                self.findings.report_doorbell_record(self.object(), &error);
                None
            }
        }
    }

    /// Changes the context (MODIFY_CQ).
    pub fn modify(&self, change: impl FnOnce(&mut Cqc)) {
        change(&mut self.state.lock().context);
    }

    /// Switches to another buffer (MODIFY_CQ, resize), after a resize CQE as the last in the old one. Returns false,
    /// and changes nothing, if the completions not yet read do not fit in the new one.
    pub fn resize(&self, context: &Cqc, buffer: Buffer) -> bool {
        let mut state = self.state.lock();
        let fires = self.write_session(&mut state);
        let resized = self.switch_buffer(&mut state, context, buffer);
        if fires {
            self.fire(state);
        }
        resized
    }

    fn switch_buffer(&self, state: &mut State, context: &Cqc, buffer: Buffer) -> bool {
        if let Some(consumer) = self.consumer_index(&state.context, Purpose::DoorbellRecord) {
            state.ring.set_consumer(consumer);
        }
        if state.ring.unread() > 1 << context.log_cq_size() {
            return false;
        }
        let marker = Cqe::new(CqeOpcode::ResizeCq);
        // A CQ in error has a new buffer all the same.
        let _ = self.append(state, &[], marker);
        state.context.set_log_cq_size(context.log_cq_size());
        state.ring.log_size = context.log_cq_size();
        state.context.set_log_page_size(context.log_page_size());
        state.context.set_page_offset(context.page_offset());
        state.context.set_cqe_sz(context.cqe_sz());
        state.buffer = buffer;
        true
    }

    /// Returns the context with its indexes and state (QUERY_CQ).
    pub fn query(&self) -> Cqc {
        let state = self.state.lock();
        let mut context = state.context.clone();
        context.set_producer_counter(state.ring.producer);
        let consumer = self.consumer_index(&state.context, Purpose::Look);
        context.set_consumer_counter(consumer.unwrap_or(state.ring.consumer()));
        // Armed, solicited armed or fired (`cqc.st`, mlx5_ifc.h).
        context.set_st(match state.arm {
            Arm::Solicited => 0x6,
            Arm::Any => 0x9,
            Arm::Nothing => 0xa,
        });
        if let Some(failure) = state.failure {
            context.set_status(failure.status());
        }
        context
    }

    /// Returns the transactions so far.
    pub fn account(&self) -> PcieAccount {
        let state = self.state.lock();
        PcieAccount {
            cq_doorbells: state.doorbells,
            cqe_writes: state.cqe_writes,
            ..PcieAccount::default()
        }
    }
}
