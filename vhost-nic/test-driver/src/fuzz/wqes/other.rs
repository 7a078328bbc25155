//! The guest that must not be harmed.

use std::sync::Arc;

use super::REGION;
use crate::fuzz::canary::Canary;
use crate::node::Node;
use crate::qp::{QueuePair, Shape, service};
use crate::region::{Region, Rights};

/// The guest that is not hostile.
pub struct Other {
    pub node: Node,
    /// Queue pairs that the hostile guest is connected to: RC, UC.
    pub queue_pairs: Vec<QueuePair>,
    /// Memory that the peer may write.
    pub open: Region,
    /// Memory that no peer may access.
    pub closed: Region,
    canary: Canary,
}

impl Other {
    /// Creates queue pairs with receives posted, and regions.
    pub fn new(node: Node) -> Self {
        let memory = Arc::clone(&node.hca.machine.memory);
        let mut canary = Canary::new();
        canary.add(&memory);
        let open = node.region(REGION);
        canary.add(&memory);
        let closed = Region::create(&node.hca, node.pd, REGION, Rights::READ_ONLY).unwrap();
        closed.write(0, &[0x77; REGION as usize]);
        canary.add(&memory);
        let mut queue_pairs: Vec<QueuePair> = [service::RC, service::UC]
            .map(|service| QueuePair::create(&node, Shape::new(service)).unwrap())
            .into();
        for qp in &mut queue_pairs {
            for slot in 0..16 {
                qp.receive(&[(open.at(slot * 1024), 1024, open.key)]);
            }
        }
        canary.add(&memory);
        Self {
            node,
            queue_pairs,
            open,
            closed,
            canary,
        }
    }

    /// Panics if memory has changed that no peer may write.
    pub fn check(&self) {
        self.canary.check();
        assert!(self.closed.read(0, REGION as usize) == [0x77; REGION as usize]);
    }

    /// Destroys everything and shuts the guest down.
    pub fn close(self) {
        self.queue_pairs.iter().for_each(|qp| qp.destroy(&self.node).unwrap());
        self.open.destroy(&self.node.hca).unwrap();
        self.closed.destroy(&self.node.hca).unwrap();
        self.node.close();
    }
}
