//! Completion queues.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mlx5_prm::cq::Cqc;
use mlx5_prm::queue_entry::{Cqe, CqeOpcode, EventType};
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use zerocopy::IntoBytes;

use super::buffer::Buffer;
use super::clock::Clock;
use super::eq::{Eq, Eqs};
use super::guest_error::{GuestError, GuestErrors};
use super::inspect::{self, Numbered};
use super::port_counters::CompletionCounters;
use super::refcount::{RefCount, Reference};
use super::scheduler::{Scheduler, Task};
use crate::dma::{Dma, Purpose};

/// Largest log2 of the number of entries.
pub const MAX_LOG_CQ_SIZE: u8 = 22;
/// Shorter periods of moderation than the host can keep are none.
const SHORTEST_PERIOD: Duration = Duration::from_micros(50);
/// Data up to this goes into the entry's own beginning.
const SHORT_DATA: usize = 32;
/// Consumer indexes on the wire have 24 bits.
const INDEX_MASK: u32 = 0xff_ffff;
/// In an event about a queue: it was full (`mlx5_ib_cq_event`, and `struct mlx5_eqe_cq_err`).
const SYNDROME_OVERRUN: u8 = 1;

/// A completion queue.
#[derive(Debug, Serialize)]
pub struct Cq {
    /// Its number.
    pub number: u32,
    /// The queues that complete here.
    pub references: RefCount,
    #[serde(serialize_with = "inspect::number")]
    eq: Arc<Eq>,
    #[serde(skip)]
    eqs: Arc<Eqs>,
    #[serde(skip)]
    scheduler: Arc<Scheduler>,
    #[serde(skip)]
    dma: Arc<Dma>,
    #[serde(skip)]
    guest_errors: Arc<GuestErrors>,
    #[serde(skip)]
    counters: Arc<CompletionCounters>,
    #[serde(skip)]
    clock: Clock,
    state: Mutex<State>,
    #[serde(skip)]
    uses: Mutex<Vec<Reference>>,
}

impl Numbered for Cq {
    fn number(&self) -> Option<u32> {
        Some(self.number)
    }
}

/// What the consumer waits for.
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
    producer: u32,
    /// As last read from the doorbell record.
    consumer: u32,
    /// Behind the last completion that was solicited.
    solicited: u32,
    arm: Arm,
    /// Completions since the consumer began to wait.
    gathered: u16,
    /// When the consumer is told of them at the latest.
    #[serde(skip)]
    told_at: Option<Instant>,
    overrun: bool,
}

impl State {
    fn size(&self) -> u32 {
        1 << self.context.log_cq_size()
    }

    fn full(&self) -> bool {
        self.producer.wrapping_sub(self.consumer) & INDEX_MASK >= self.size()
    }

    /// Whether there is something behind `consumer` that the consumer waits for.
    fn due(&self, consumer: u32) -> bool {
        let behind = |index: u32| (1..=self.size()).contains(&(index.wrapping_sub(consumer) & INDEX_MASK));
        match self.arm {
            Arm::Nothing => false,
            Arm::Solicited => behind(self.solicited),
            Arm::Any => behind(self.producer),
        }
    }
}

/// Bytes of an entry, by the context's `cqe_sz` (`enum mlx5_cqe_size`).
pub fn entry_size(context: &Cqc) -> Option<u64> {
    match context.cqe_sz() {
        0 => Some(64),
        1 | 2 => Some(128),
        _ => None,
    }
}

/// What a completion queue needs of its surroundings.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) dma: Arc<Dma>,
    pub(crate) eqs: Arc<Eqs>,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) guest_errors: Arc<GuestErrors>,
    pub(crate) counters: Arc<CompletionCounters>,
    pub(crate) clock: Clock,
}

impl Cq {
    pub(crate) fn new(
        number: u32,
        context: Cqc,
        buffer: Buffer,
        eq: Arc<Eq>,
        around: Surroundings,
        uar: Reference,
    ) -> Self {
        let Surroundings {
            dma,
            eqs,
            scheduler,
            guest_errors,
            counters,
            clock,
        } = around;
        let state = State {
            context,
            buffer,
            producer: 0,
            consumer: 0,
            solicited: 0,
            arm: Arm::Nothing,
            gathered: 0,
            told_at: None,
            overrun: false,
        };
        Self {
            number,
            references: RefCount::default(),
            uses: Mutex::new(vec![eq.references.acquire(), uar]),
            eq,
            eqs,
            scheduler,
            dma,
            guest_errors,
            counters,
            clock,
            state: Mutex::new(state),
        }
    }

    /// The guest destroys it: it uses nothing any more, whoever still holds it for a moment.
    pub fn retire(&self) {
        self.uses.lock().clear();
    }

    /// Appends a completion, and tells the event queue if the consumer waits for it. Its owner bit and its time are filled in.
    pub fn post(&self, cqe: Cqe) {
        self.post_entry(&[], cqe);
    }

    /// Appends a completion that carries data, 64 bytes at most and more than 32 only in a large entry.
    pub fn post_with_data(&self, mut cqe: Cqe, data: &[u8]) {
        if data.len() <= SHORT_DATA {
            cqe.as_mut_bytes()[..data.len()].copy_from_slice(data);
            cqe.op_own |= Cqe::INLINE_32;
            self.post_entry(&[], cqe);
        } else {
            cqe.op_own |= Cqe::INLINE_64;
            self.post_entry(data, cqe);
        }
    }

    fn post_entry(&self, lower: &[u8], cqe: Cqe) {
        let mut state = self.state.lock();
        if self.append(&mut state, lower, cqe)
            && state.due(state.producer.wrapping_sub(1))
            && !self.hold_back(&mut state)
        {
            self.fire(state);
        }
    }

    /// Writes an entry, if there is room for one: the completion, and before it what is in the lower half of a large entry.
    fn append(&self, state: &mut State, lower: &[u8], mut cqe: Cqe) -> bool {
        if state.overrun {
            return false;
        }
        if state.full() && !state.context.oi() {
            // The consumer moves without telling anybody.
            state.consumer = self.consumer_index(&state.context);
            if state.full() {
                state.overrun = true;
                self.guest_errors.report(
                    GuestError::CqOverrun,
                    format_args!("Completion queue {} is full.", self.number),
                );
                let mut data = [0; 12];
                data[..4].copy_from_slice(&self.number.to_be_bytes());
                data[11] = SYNDROME_OVERRUN;
                self.eqs.announce(EventType::CqError, 0, &data);
                return false;
            }
        }
        // Where others have their time, errors have a syndrome.
        let opcode = cqe.op_own >> 4;
        let error = opcode == CqeOpcode::RequestError as u8 || opcode == CqeOpcode::ResponderError as u8;
        if !error {
            cqe.timestamp.set(self.clock.now());
        }
        let owner = (state.producer >> state.context.log_cq_size()) as u8 & Cqe::OWNER;
        cqe.op_own = cqe.op_own & !Cqe::OWNER | owner;
        let size = entry_size(&state.context).unwrap_or(64);
        let entry = u64::from(state.producer % state.size()) * size;
        // Of a large entry, the completion is the upper half.
        let offset = entry + (size - size_of::<Cqe>() as u64);
        let written = state
            .buffer
            .write(&self.dma, Purpose::Cqe, entry, lower)
            .and_then(|()| state.buffer.publish(&self.dma, Purpose::Cqe, offset, cqe.as_bytes()));
        if let Err(error) = written {
            self.guest_errors.report(
                GuestError::LostCqe,
                format_args!("Completion queue {}: {error}", self.number),
            );
            return false;
        }
        state.producer = state.producer.wrapping_add(1) & INDEX_MASK;
        let counter = match cqe.op_own & (Cqe::INLINE_32 | Cqe::INLINE_64) {
            Cqe::INLINE_32 => &self.counters.inline_32,
            Cqe::INLINE_64 => &self.counters.inline_64,
            _ => &self.counters.plain,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if cqe.op_own & Cqe::SOLICITED != 0 || error {
            state.solicited = state.producer;
        }
        true
    }

    /// The consumer has read up to `consumer` and wants to be told of what comes after, or of what is solicited only.
    pub fn arm(&self, consumer: u32, solicited_only: bool) {
        let mut state = self.state.lock();
        state.consumer = consumer & INDEX_MASK;
        state.arm = if solicited_only { Arm::Solicited } else { Arm::Any };
        state.gathered = 0;
        state.told_at = None;
        if state.due(state.consumer) {
            self.fire(state);
        }
    }

    /// Whether the consumer is told later: it wants completions by the dozen, or after a while.
    fn hold_back(&self, state: &mut State) -> bool {
        let (period, count) = (
            Duration::from_micros(state.context.cq_period().into()),
            state.context.cq_max_count(),
        );
        state.gathered = state.gathered.saturating_add(1);
        if period < SHORTEST_PERIOD || (count > 0 && state.gathered >= count) {
            return false;
        }
        if state.told_at.is_none() {
            let time = Instant::now() + period;
            state.told_at = Some(time);
            self.scheduler.schedule_at(time, Task::Cq(self.number));
        }
        true
    }

    /// The consumer may have waited long enough.
    pub fn period_over(&self) {
        let state = self.state.lock();
        if state.arm != Arm::Nothing && state.told_at.is_some_and(|time| time <= Instant::now()) {
            self.fire(state);
        }
    }

    /// Tells the consumer, who waits no more.
    fn fire(&self, mut state: MutexGuard<'_, State>) {
        state.arm = Arm::Nothing;
        state.told_at = None;
        drop(state);
        self.notify();
    }

    fn notify(&self) {
        let mut data = [0; 28];
        data[24..].copy_from_slice(&self.number.to_be_bytes());
        self.eq.post(EventType::Completion, 0, &data);
    }

    fn consumer_index(&self, context: &Cqc) -> u32 {
        match self.dma.load::<u32>(Purpose::DoorbellRecord, context.dbr_addr()) {
            Ok(record) => u32::from_be(record) & INDEX_MASK,
            Err(error) => {
                let what = format_args!("Completion queue {}: {error}", self.number);
                self.guest_errors.report(GuestError::UnreadableDoorbellRecord, what);
                0
            }
        }
    }

    /// Changes the context.
    pub fn modify(&self, change: impl FnOnce(&mut Cqc)) {
        change(&mut self.state.lock().context);
    }

    /// Goes over to another buffer. The last completion in the old one says so. Returns false, and stays, if the new one has no room for
    /// all that the consumer has not read.
    pub fn resize(&self, context: &Cqc, buffer: Buffer) -> bool {
        let mut state = self.state.lock();
        state.consumer = self.consumer_index(&state.context);
        if state.producer.wrapping_sub(state.consumer) & INDEX_MASK > 1 << context.log_cq_size() {
            return false;
        }
        let marker = Cqe::new(CqeOpcode::ResizeCq);
        self.append(&mut state, &[], marker);
        state.context.set_log_cq_size(context.log_cq_size());
        state.context.set_log_page_size(context.log_page_size());
        state.context.set_page_offset(context.page_offset());
        state.context.set_cqe_sz(context.cqe_sz());
        state.buffer = buffer;
        true
    }

    /// The context with its counters.
    pub fn query(&self) -> Cqc {
        let state = self.state.lock();
        let mut context = state.context.clone();
        context.set_producer_counter(state.producer);
        context.set_consumer_counter(self.consumer_index(&state.context));
        // Armed, solicited armed or fired (`cqc.st`, mlx5_ifc.h).
        context.set_st(match state.arm {
            Arm::Solicited => 0x6,
            Arm::Any => 0x9,
            Arm::Nothing => 0xa,
        });
        if state.overrun {
            context.set_status(0x9);
        }
        context
    }

    /// Whether it was full once, and takes nothing any more.
    pub fn overrun(&self) -> bool {
        self.state.lock().overrun
    }
}
