//! Shared receive queues: receive memory pools and XRC shared receive queues.

use std::sync::Arc;

use mlx5_prm::work_queue::{Rmpc, XrcSrqc};
use parking_lot::Mutex;

use super::cq::Cq;
use super::usage::{Use, Users};
use super::work_queue::WorkQueue;

/// A receive memory pool; the shared receive queue of this interface step.
#[derive(Debug)]
pub struct Rmp {
    /// Its number.
    pub number: u32,
    /// Its WQEs.
    pub ring: WorkQueue,
    /// As the guest gave it.
    pub context: Mutex<Rmpc>,
    /// The queues that take WQEs from it.
    pub users: Users,
}

/// An XRC shared receive queue.
#[derive(Debug)]
pub struct XrcSrq {
    /// Its number.
    pub number: u32,
    /// Its WQEs.
    pub ring: WorkQueue,
    /// Where it completes.
    pub cq: Arc<Cq>,
    /// As the guest gave it.
    pub context: Mutex<XrcSrqc>,
    /// The queues that take WQEs from it.
    pub users: Users,
    pub(crate) _uses: Vec<Use>,
}
