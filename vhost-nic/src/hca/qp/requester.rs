//! What a queue pair has sent, or is about to send.

use std::time::Instant;

use mlx5_prm::queue_entry::Syndrome;
use mlx5_prm::rdma_wqe::AddressVector;
use mlx5_prm::wqe::{ControlSegment, DataSegment};

use serde::Serialize;
use smallvec::SmallVec;

use super::Messages;
use crate::roce::psn::Psn;

/// A part of what a WQE sends, or of where its answer goes.
#[derive(Debug, Clone, Copy)]
pub enum Data<'a> {
    /// In the WQE itself.
    Inline(&'a [u8]),
    /// In memory.
    Memory(DataSegment),
}

impl Data<'_> {
    /// Its length in bytes.
    pub fn length(&self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            Self::Memory(segment) => segment.byte_count.get() as usize,
        }
    }
}

/// What a WQE sends, or where its answer goes.
#[derive(Debug, Clone, Default)]
pub struct DataList {
    parts: SmallVec<[Part; 2]>,
    /// The bytes of all inline parts.
    inline: SmallVec<[u8; 64]>,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    /// So many of the inline bytes.
    Inline(usize),
    Memory(DataSegment),
}

impl DataList {
    /// Adds bytes that are in the WQE itself.
    pub fn push_inline(&mut self, bytes: &[u8]) {
        self.inline.extend_from_slice(bytes);
        self.parts.push(Part::Inline(bytes.len()));
    }

    /// Adds memory.
    pub fn push_memory(&mut self, segment: DataSegment) {
        self.parts.push(Part::Memory(segment));
    }

    /// The parts, in their order.
    pub fn parts(&self) -> impl Iterator<Item = Data<'_>> {
        let mut inline = &self.inline[..];
        self.parts.iter().map(move |part| match part {
            Part::Inline(length) => {
                let (bytes, rest) = inline.split_at(*length);
                inline = rest;
                Data::Inline(bytes)
            }
            Part::Memory(segment) => Data::Memory(*segment),
        })
    }

    fn clear(&mut self) {
        self.parts.clear();
        self.inline.clear();
    }
}

/// What a WQE asks for.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Work {
    Nop,
    Send {
        immediate: Option<u32>,
        invalidate: Option<u32>,
    },
    Datagram {
        to: Box<AddressVector>,
        immediate: Option<u32>,
    },
    Write {
        address: u64,
        rkey: u32,
        immediate: Option<u32>,
    },
    Read {
        address: u64,
        rkey: u32,
    },
    CompareSwap {
        address: u64,
        rkey: u32,
        swap: u64,
        compare: u64,
    },
    FetchAdd {
        address: u64,
        rkey: u32,
        add: u64,
    },
    /// A change of a memory key: control segment, context and list, as they are in the WQE.
    Umr {
        bytes: Vec<u8>,
    },
    /// A WQE that makes no sense.
    Bad(Syndrome),
}

impl Default for Work {
    fn default() -> Self {
        Self::Bad(Syndrome::LocalQpOperation)
    }
}

impl Work {
    /// Whether the answer brings data.
    pub fn is_request(&self) -> bool {
        matches!(
            self,
            Self::Read { .. } | Self::CompareSwap { .. } | Self::FetchAdd { .. }
        )
    }
}

/// A WQE that is not completed yet.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// Its control segment.
    pub control: ControlSegment,
    /// Its place in the send queue, in basic blocks.
    pub index: u16,
    /// What it asks for.
    pub work: Work,
    /// Its data.
    pub data: DataList,
    /// Bytes of data.
    pub length: u32,
    /// The shared receive queue of the other side it is for, if it names one.
    pub xrc_srqn: Option<u32>,
    /// PSN of its first packet, or of what comes after it if it has none.
    pub first: Psn,
    /// How many packets it takes, answers included.
    pub packets: u32,
    /// Packets of the answer that came.
    pub answered: u32,
    /// Whether the other side has it, or it needs no other side.
    pub done: bool,
    /// Data of the answer that goes into the completion instead of memory.
    pub answer: Option<Vec<u8>>,
}

impl Message {
    /// It is a WQE of which nothing is known yet but where it is.
    pub(super) fn begin(&mut self, index: u16) {
        self.control = ControlSegment::default();
        self.index = index;
        self.work = Work::default();
        self.data.clear();
        self.length = 0;
        self.xrc_srqn = None;
        self.first = Psn::default();
        self.packets = 0;
        self.answered = 0;
        self.done = false;
        self.answer = None;
    }

    /// PSN of its last packet; it has one.
    pub fn last(&self) -> Psn {
        self.first + self.packets.saturating_sub(1)
    }
}

/// The sending side of a queue pair.
#[derive(Debug, Serialize)]
pub struct Requester {
    /// Up to where WQEs are read, in basic blocks.
    pub fetched: u16,
    /// WQEs that are read and not completed, oldest first.
    #[serde(serialize_with = "Messages::serialize_length")]
    pub messages: Messages,
    /// The message that is being sent: an index into `messages`; its length if all are sent.
    pub current: usize,
    /// PSN of the next packet.
    pub send_psn: Psn,
    /// PSN of the next message.
    pub next_psn: Psn,
    /// The oldest PSN that is not acknowledged.
    pub unacknowledged: Psn,
    /// Attempts without an answer.
    pub retries: u8,
    /// Attempts that met no receive.
    pub rnr_retries: u8,
    /// When to send again if nothing is answered.
    #[serde(skip)]
    pub deadline: Option<Instant>,
    /// When the NIC's thread looks after it by itself.
    #[serde(skip)]
    pub alarm: Option<Instant>,
    /// Not to send before, because no receive was posted.
    #[serde(skip)]
    pub not_before: Option<Instant>,
    /// The NIC's thread is at it, and looks at it again before it goes.
    pub attended: bool,
    /// Packets since one asked for an acknowledgement.
    pub unrequested: u32,
}

impl Requester {
    pub(super) fn new(psn: Psn) -> Self {
        Self {
            fetched: 0,
            messages: Messages::default(),
            current: 0,
            send_psn: psn,
            next_psn: psn,
            unacknowledged: psn,
            retries: 0,
            rnr_retries: 0,
            deadline: None,
            alarm: None,
            not_before: None,
            attended: false,
            unrequested: 0,
        }
    }

    /// Reads and atomics that are sent and not answered.
    pub fn open_requests(&self) -> usize {
        self.messages
            .iter()
            .take(self.current)
            .filter(|message| message.work.is_request() && !message.done)
            .count()
    }

    /// Sends again from a PSN on. Of a read, what was not answered yet.
    pub fn go_back(&mut self, psn: Psn) {
        let at = self
            .messages
            .iter()
            .position(|message| message.packets > 0 && !message.done && psn.is_within(message.first, message.last()));
        if let Some(at) = at.filter(|at| *at <= self.current) {
            let message = &self.messages[at];
            self.current = at;
            self.send_psn = psn;
            if message.work.is_request() {
                self.send_psn = message.first + message.answered;
            }
        }
    }
}
