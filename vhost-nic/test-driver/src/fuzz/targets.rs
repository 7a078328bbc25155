//! Queue pairs of every service with their shared receive queues: what hostile WQEs and packets are aimed at.

use std::sync::Arc;

use super::choices::Choices;
use crate::cq::CompletionQueue;
use crate::domain::{alloc_xrcd, dealloc_xrcd};
use crate::node::Node;
use crate::qp::{QueuePair, Shape, service};
use crate::srq::Srq;
use mlx5_prm::queue_entry::Cqe;

/// `QPC.state` of a queue pair in error.
const ERROR: u8 = 6;

/// Properties of a set of queue pairs.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Service of each queue pair.
    pub services: &'static [u8],
    /// Indices of the queue pairs that receive from the RMP.
    pub pooled: &'static [usize],
    /// Index of the XRC target, which has no send queue.
    pub xrc_target: usize,
    /// Log2 of the entries of the completion queue of the XRC SRQ.
    pub log_xrc_cq: u8,
    /// Whether to allow fast registration on most queue pairs.
    pub fast_register: bool,
}

/// The queues of a plan.
pub struct Targets {
    /// Queue pairs, in the order of the plan.
    pub queue_pairs: Vec<QueuePair>,
    /// Receive memory pool.
    pub rmp: Srq,
    /// XRC shared receive queue.
    pub xrc_srq: Srq,
    xrc_cq: CompletionQueue,
    xrcd: u32,
    plan: Plan,
}

impl Targets {
    /// Creates the queues, queue pairs in reset.
    pub fn create(node: &Node, plan: Plan) -> Self {
        let hca = &node.hca;
        let xrcd = alloc_xrcd(hca).unwrap();
        let xrc_cq = node.completion_queue(plan.log_xrc_cq, false);
        let xrc_srq = Srq::xrc(hca, node.pd, xrcd, &xrc_cq, 4).unwrap();
        let rmp = Srq::rmp(hca, node.pd, 4).unwrap();
        let mut targets = Self {
            queue_pairs: Vec::new(),
            rmp,
            xrc_srq,
            xrc_cq,
            xrcd,
            plan,
        };
        targets.queue_pairs = (0..plan.services.len())
            .map(|index| targets.queue_pair(node, index))
            .collect();
        targets
    }

    /// The shapes differ, so that every kind of completion occurs.
    fn queue_pair(&self, node: &Node, index: usize) -> QueuePair {
        let (plan, service) = (&self.plan, self.plan.services[index]);
        let shape = Shape {
            srq: plan.pooled.contains(&index).then_some(self.rmp.number),
            sends: index != plan.xrc_target,
            xrcd: if service == service::XRC { self.xrcd } else { 0 },
            cs_req: index as u8 % 3,
            cs_res: index as u8 % 3,
            large_cqes: index % 2 == 1,
            fast_register: plan.fast_register && index % 4 != 2,
            ..Shape::new(service)
        };
        QueuePair::create(node, shape).unwrap()
    }

    /// Replaces a queue pair and its completion queues, which may have overrun, by new ones.
    pub fn recreate(&mut self, node: &Node, index: usize) {
        self.queue_pairs[index].destroy(node).unwrap();
        self.queue_pairs[index] = self.queue_pair(node, index);
    }

    /// Whether a queue pair is in error.
    pub fn in_error(&self, node: &Node, index: usize) -> bool {
        self.queue_pairs[index].query(node).unwrap().state() == ERROR
    }

    /// Number of an SRQ for an XRC request or packet, most often the right one.
    pub fn xrc_srq_number(&self, choices: &mut Choices<'_>) -> Option<u32> {
        choices.one(&[self.xrc_srq.number, self.xrc_srq.number, self.rmp.number, 0])
    }

    /// Calls `each` for every completion, and releases their entries.
    pub fn poll(&mut self, mut each: impl FnMut(&Cqe)) {
        let queues = self
            .queue_pairs
            .iter_mut()
            .flat_map(|qp| [&mut qp.send_cq, &mut qp.receive_cq]);
        for queue in queues.chain([&mut self.xrc_cq]) {
            while let Some(cqe) = queue.poll() {
                each(&cqe);
            }
            queue.release();
        }
    }

    /// Destroys all queues.
    pub fn destroy(self, node: &Node) {
        let hca = Arc::clone(&node.hca);
        self.queue_pairs.iter().for_each(|qp| qp.destroy(node).unwrap());
        self.rmp.destroy(&hca).unwrap();
        self.xrc_srq.destroy(&hca).unwrap();
        self.xrc_cq.destroy(&hca).unwrap();
        dealloc_xrcd(&hca, self.xrcd).unwrap();
    }
}
