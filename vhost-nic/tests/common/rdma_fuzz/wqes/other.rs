//! The guest that must not be harmed.

use std::sync::Arc;

use vhost_nic::net::Switch;

use super::REGION;
use crate::common::node::Node;
use crate::common::queue_pair::{QueuePair, Shape, service};
use crate::common::rdma_fuzz::Canary;
use crate::common::region::{Region, Rights};

/// The guest that is not.
pub struct Other {
    pub node: Node,
    /// Those that the hostile guest is connected to: RC, UC.
    pub queue_pairs: Vec<QueuePair>,
    /// What its peer may write.
    pub open: Region,
    /// What nobody may write from outside.
    pub closed: Region,
    canary: Canary,
}

impl Other {
    /// A guest with receives posted.
    pub fn new(switch: &Arc<Switch>) -> Self {
        let node = Node::open(switch, 2);
        let memory = Arc::clone(&node.hca.machine.memory);
        let mut canary = Canary::new();
        canary.sit(&memory);
        let open = node.region(REGION);
        canary.sit(&memory);
        let closed = Region::create(&node.hca, node.pd, REGION, Rights::READ_ONLY).unwrap();
        closed.write(0, &[0x77; REGION as usize]);
        canary.sit(&memory);
        let mut queue_pairs: Vec<QueuePair> = [service::RC, service::UC]
            .map(|service| QueuePair::create(&node, Shape::new(service)).unwrap())
            .into();
        for qp in &mut queue_pairs {
            for slot in 0..16 {
                qp.receive(&[(open.at(slot * 1024), 1024, open.key)]);
            }
        }
        canary.sit(&memory);
        Self {
            node,
            queue_pairs,
            open,
            closed,
            canary,
        }
    }

    /// Whether its memory is as it was.
    pub fn check(&self) {
        self.canary.check();
        assert!(self.closed.read(0, REGION as usize) == [0x77; REGION as usize]);
    }

    /// Takes it down; nothing may be left.
    pub fn close(self) {
        self.queue_pairs.iter().for_each(|qp| qp.destroy(&self.node).unwrap());
        self.open.destroy(&self.node.hca).unwrap();
        self.closed.destroy(&self.node.hca).unwrap();
        self.node.close();
    }
}
