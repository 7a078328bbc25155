//! Work that frames are part of: the queues and WQEs that they come from, and those that they end.

use std::fmt;

/// Number of an observed frame. The default is that of every frame that no tap observes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct FrameNumber(pub(super) u64);

impl FrameNumber {
    /// Whether a tap observes the frame.
    pub fn is_observed(self) -> bool {
        self.0 != 0
    }

    /// Number of the frame that is `count` behind this one in its burst.
    pub fn plus(self, count: u32) -> Self {
        match self.0 {
            0 => self,
            number => Self(number + u64::from(count)),
        }
    }
}

/// Kind of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    /// Queue pair.
    Qp,
    /// Send queue of Ethernet frames.
    Sq,
    /// Receive queue of Ethernet frames.
    Rq,
}

impl fmt::Display for QueueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Qp => "QP",
            Self::Sq => "SQ",
            Self::Rq => "RQ",
        })
    }
}

/// Queue that a frame comes from, and the WQE, which a response does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// Kind of the queue.
    pub kind: QueueKind,
    /// Number of the queue.
    pub queue: u32,
    /// Index of the WQE.
    pub wqe: Option<u16>,
}

/// A WQE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WqeId {
    /// Kind of its queue.
    pub kind: QueueKind,
    /// Number of its queue.
    pub queue: u32,
    /// Index in the queue, or `wqe_counter` of a shared receive queue.
    pub index: u16,
    /// Whether it is a receive WQE.
    pub receive: bool,
}

/// A CQE in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CqePlace {
    /// Number of the CQ.
    pub cq: u32,
    /// Index of the entry in the CQ.
    pub index: u32,
    /// Syndrome of an error CQE.
    pub syndrome: Option<u8>,
}

/// Effect of a frame at its destination or, on a service without responses, at its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is a response to this WQE, and others follow.
    Answers(WqeId),
    /// It ends this WQE, with a CQE unless the WQE asks for none.
    Ends(WqeId, Option<CqePlace>),
}
