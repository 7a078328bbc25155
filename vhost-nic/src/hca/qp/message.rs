//! Messages of a send queue: the work that a WQE requests, its data, and its progress.

use mlx5_prm::queue_entry::Syndrome;
use mlx5_prm::rdma_wqe::AddressVector;
use mlx5_prm::wqe::{ControlSegment, DataSegment};
use smallvec::SmallVec;

use crate::hca::pcie_account::Transactions;
use crate::net::{FrameNumber, InlineBytes};
use crate::roce::psn::Psn;

/// A data segment: payload to be sent, or memory for a response.
#[derive(Debug, Clone, Copy)]
pub enum Data<'a> {
    /// Bytes in the WQE itself.
    Inline(&'a [u8]),
    /// A range of a memory key.
    Memory(DataSegment),
}

impl Data<'_> {
    /// Length in bytes.
    pub fn length(&self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            Self::Memory(segment) => segment.byte_count.get() as usize,
        }
    }
}

/// The data segments of a WQE.
#[derive(Debug, Clone, Default)]
pub struct DataList {
    parts: SmallVec<[Part; 2]>,
    /// The bytes of all inline parts.
    inline: InlineBytes,
    /// The segments in memory as reads of a message in one packet.
    reads: Transactions,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    /// Length within the inline bytes.
    Inline(usize),
    Memory(DataSegment),
}

impl DataList {
    /// Appends a segment.
    #[inline]
    pub fn push(&mut self, data: Data<'_>) {
        self.parts.push(match data {
            Data::Inline(bytes) => {
                self.inline.push(bytes);
                Part::Inline(bytes.len())
            }
            Data::Memory(segment) => {
                self.reads.add(1, segment.byte_count.get().into());
                Part::Memory(segment)
            }
        });
    }

    /// Iterates over the segments, in order.
    pub fn parts(&self) -> impl Iterator<Item = Data<'_>> {
        let mut inline = self.inline.as_slice();
        self.parts.iter().map(move |part| match part {
            Part::Inline(length) => {
                let (bytes, rest) = inline.split_at(*length);
                inline = rest;
                Data::Inline(bytes)
            }
            Part::Memory(segment) => Data::Memory(*segment),
        })
    }

    /// Iterates over the segments in memory, in order.
    pub fn memory(&self) -> impl Iterator<Item = DataSegment> {
        self.parts.iter().filter_map(|part| match part {
            Part::Memory(segment) => Some(*segment),
            Part::Inline(_) => None,
        })
    }

    /// Reads of a message in one packet: one for each segment in memory.
    pub(super) fn reads(&self) -> Transactions {
        self.reads
    }

    fn clear(&mut self) {
        self.parts.clear();
        self.inline.clear();
        self.reads = Transactions::default();
    }
}

/// The operation of a WQE.
#[derive(Debug, Clone)]
#[expect(
    missing_docs,
    reason = "variants and fields are named as in the InfiniBand Architecture"
)]
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
    /// A change of a memory key: control segment, context and list, as in the WQE.
    Umr {
        bytes: Vec<u8>,
    },
    /// A WQE that cannot be executed, and the syndrome of its completion.
    Bad(Syndrome),
}

impl Default for Work {
    fn default() -> Self {
        Self::Bad(Syndrome::LocalQpOperation)
    }
}

impl Work {
    /// Whether the response carries data.
    pub fn is_request(&self) -> bool {
        matches!(
            self,
            Self::Read { .. } | Self::CompareSwap { .. } | Self::FetchAdd { .. }
        )
    }
}

/// A WQE that has been read and not been completed.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub(super) control: ControlSegment,
    pub(super) index: u16,
    pub(super) work: Work,
    pub(super) data: DataList,
    pub(super) length: u32,
    pub(super) xrc_srqn: Option<u32>,
    pub(super) first: Psn,
    pub(super) packets: u32,
    pub(super) responses: u32,
    pub(super) done: bool,
    pub(super) inline_response: Option<Vec<u8>>,
    pub(super) wqe: Option<Box<[u8]>>,
    pub(super) ended_by: FrameNumber,
}

impl Message {
    /// Resets everything but the place of the WQE.
    pub(super) fn begin(&mut self, index: u16) {
        self.control = ControlSegment::default();
        self.index = index;
        self.work = Work::default();
        self.data.clear();
        self.length = 0;
        self.xrc_srqn = None;
        self.first = Psn::default();
        self.packets = 0;
        self.responses = 0;
        self.done = false;
        self.inline_response = None;
        self.wqe = None;
        self.ended_by = FrameNumber::default();
    }

    /// Sets the control segment.
    pub fn set_control(&mut self, control: ControlSegment) {
        self.control = control;
    }

    /// Keeps the bytes of the WQE, to be compared at its completion.
    pub fn keep_wqe(&mut self, wqe: &[u8]) {
        self.wqe = Some(wqe.into());
    }

    /// The bytes of the WQE, if they were kept.
    pub fn wqe(&self) -> Option<&[u8]> {
        self.wqe.as_deref()
    }

    /// Sets the operation.
    pub fn set_work(&mut self, work: Work) {
        self.work = work;
    }

    /// Sets the length of the data in bytes.
    pub fn set_length(&mut self, length: u32) {
        self.length = length;
    }

    /// Sets the shared receive queue of the peer (XRC).
    pub fn set_xrc_srqn(&mut self, srqn: u32) {
        self.xrc_srqn = Some(srqn);
    }

    /// Appends a data segment.
    pub fn push_data(&mut self, data: Data<'_>) {
        self.data.push(data);
    }

    /// The control segment.
    pub fn control(&self) -> &ControlSegment {
        &self.control
    }

    /// Index of the WQE in the send queue, in basic blocks.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The operation.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// The data segments.
    pub fn data(&self) -> &DataList {
        &self.data
    }

    /// Length of the data in bytes.
    pub fn length(&self) -> u32 {
        self.length
    }

    /// The shared receive queue of the peer (XRC).
    pub fn xrc_srqn(&self) -> Option<u32> {
        self.xrc_srqn
    }

    /// PSN of the first packet; of the next message if there are no packets.
    pub fn first(&self) -> Psn {
        self.first
    }

    /// PSN of the last packet, of a message with packets.
    pub fn last(&self) -> Psn {
        self.first + self.packets.saturating_sub(1)
    }

    /// Number of PSNs, including those of the response.
    pub fn packets(&self) -> u32 {
        self.packets
    }

    /// Number of response packets that have arrived.
    pub fn responses(&self) -> u32 {
        self.responses
    }

    /// PSN of the next response packet.
    pub fn next_response(&self) -> Psn {
        self.first + self.responses
    }

    /// Whether the message can be completed: acknowledged, answered, or local and executed.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Data of the response that goes into the completion instead of memory.
    pub fn inline_response(&self) -> Option<&[u8]> {
        self.inline_response.as_deref()
    }

    /// Number of the frame that ended the message: the response, or on an unreliable service its last packet.
    pub fn ended_by(&self) -> FrameNumber {
        self.ended_by
    }

    /// Whether the guest requests a completion.
    pub fn is_signaled(&self) -> bool {
        self.control.fm_ce_se & ControlSegment::CQ_UPDATE != 0
    }

    /// Whether the guest requests a solicited event at the peer.
    pub fn is_solicited(&self) -> bool {
        self.control.fm_ce_se & ControlSegment::SOLICITED != 0
    }
}
