//! What a queue pair has sent, or is about to send.

use std::collections::VecDeque;
use std::time::Instant;

use mlx5_prm::queue_entry::Syndrome;
use mlx5_prm::rdma_wqe::AddressVector;
use mlx5_prm::wqe::{ControlSegment, DataSegment};

use smallvec::SmallVec;

use crate::roce::psn::Psn;

/// Data that a WQE sends, or where it receives.
#[derive(Debug, Clone)]
pub enum Data {
    /// In the WQE itself.
    Inline(SmallVec<[u8; 64]>),
    /// In memory.
    Memory(DataSegment),
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
#[derive(Debug, Clone)]
pub struct Message {
    /// Its control segment.
    pub control: ControlSegment,
    /// Its place in the send queue, in basic blocks.
    pub index: u16,
    /// What it asks for.
    pub work: Work,
    /// Its data.
    pub data: SmallVec<[Data; 1]>,
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
    /// A WQE of which nothing is known yet but where it is.
    pub fn unknown(index: u16) -> Self {
        Self {
            control: ControlSegment::default(),
            index,
            work: Work::Bad(Syndrome::LocalQpOperation),
            data: SmallVec::new(),
            length: 0,
            xrc_srqn: None,
            first: Psn::default(),
            packets: 0,
            answered: 0,
            done: false,
            answer: None,
        }
    }

    /// PSN of its last packet; it has one.
    pub fn last(&self) -> Psn {
        self.first + self.packets.saturating_sub(1)
    }
}

/// The sending side of a queue pair.
#[derive(Debug)]
pub struct Requester {
    /// Up to where WQEs are read, in basic blocks.
    pub fetched: u16,
    /// WQEs that are read and not completed, oldest first.
    pub messages: VecDeque<Message>,
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
    pub deadline: Option<Instant>,
    /// When the NIC's thread looks after it by itself.
    pub alarm: Option<Instant>,
    /// Not to send before, because no receive was posted.
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
            messages: VecDeque::new(),
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
