//! What a queue pair receives.

use std::collections::VecDeque;

use mlx5_prm::wqe::DataSegment;
use serde::Serialize;

use crate::roce::psn::Psn;

/// A receive WQE that was taken.
#[derive(Debug, Clone)]
pub struct Receive {
    /// What the completion calls it.
    pub wqe_counter: u16,
    /// The protection domain of its keys: the queue's it was posted to.
    pub pd: u32,
    /// Where data goes.
    pub segments: Vec<DataSegment>,
    /// Bytes of room.
    pub room: u64,
}

/// A message of which packets are missing.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Incoming {
    Send {
        receive: Receive,
        received: u32,
    },
    Write {
        address: u64,
        rkey: u32,
        length: u32,
        received: u32,
    },
}

/// A read or atomic that was answered, in case the answer gets lost.
#[derive(Debug, Clone, Copy)]
pub struct Resource {
    /// PSN of the request.
    pub psn: Psn,
    /// PSNs of the request and its answer.
    pub packets: u32,
    /// What an atomic found.
    pub original: Option<u64>,
}

/// The receiving side of a queue pair.
#[derive(Debug, Serialize)]
pub struct Responder {
    /// How many WQEs of its own receive queue are used up.
    pub consumer: u16,
    /// PSN of the next packet.
    pub expected: Psn,
    /// Messages that are complete.
    pub msn: u32,
    /// The message under way.
    #[serde(skip)]
    pub incoming: Option<Incoming>,
    /// Reads and atomics that were answered, oldest first.
    #[serde(skip)]
    pub resources: VecDeque<Resource>,
    /// A gap was reported and is not filled yet.
    pub gap_reported: bool,
    /// The guest was told that no more receives are taken from a shared queue.
    pub last_wqe_told: bool,
    /// Unreliable: the rest of a message with a gap is being thrown away.
    pub skipping: bool,
    /// Unreliable: a receive WQE of a message that was cut off, to be used for the next one.
    #[serde(skip)]
    pub spare: Option<Receive>,
}

impl Responder {
    pub(super) fn new(psn: Psn) -> Self {
        Self {
            consumer: 0,
            expected: psn,
            msn: 0,
            incoming: None,
            resources: VecDeque::new(),
            gap_reported: false,
            last_wqe_told: false,
            skipping: false,
            spare: None,
        }
    }
}
