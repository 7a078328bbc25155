//! The objects of one function: what its guest has made, and what the hardware keeps about it.

pub mod blue_flame;
pub mod buffer;
pub mod clock;
pub mod cq;
pub mod eq;
pub mod guest_error;
pub mod limits;
pub mod mkey;
pub mod object_table;
pub mod port_counters;
pub mod qp;
pub mod queue_counter;
pub mod refcount;
pub mod rq;
pub mod scheduler;
pub mod sq;
pub mod srq;
pub mod steering;
pub mod tis_tir_rqt;
pub mod vport;
pub mod wq;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use blue_flame::{BlueFlame, Slot};
use clock::Clock;
use cq::Cq;
use eq::Eqs;
use guest_error::GuestErrors;
use limits::Limits;
use mkey::Mkey;
use object_table::Table;
use port_counters::{CompletionCounters, PortCounters};
use qp::Qp;
use queue_counter::QueueCounters;
use refcount::RefCount;
use rq::{QueueState, Rq};
use scheduler::Scheduler;
use sq::Sq;
use srq::{Rmp, XrcSrq};
use steering::Steering;
use tis_tir_rqt::{Rqt, Tir, Tis};
use vport::{Mac, Vport};

use crate::dma::Dma;
use crate::pci::Msix;

/// The first page of the BAR that is a UAR; those before are the initialization segment and the MSI-X structures.
pub const FIRST_UAR: u32 = 16;

/// A protection, transport or XRC domain: a number that others refer to.
#[derive(Debug)]
pub struct Domain {
    /// The number.
    pub number: u32,
    /// Who refers to it.
    pub references: RefCount,
}

impl Domain {
    /// A domain of this number.
    pub fn new(number: u32) -> Self {
        Self {
            number,
            references: RefCount::default(),
        }
    }
}

/// A queue with a send or receive side of its own. They share one number space: a doorbell names only a number.
#[derive(Debug, Clone)]
pub enum Queue {
    /// A receive queue.
    Receive(Arc<Rq>),
    /// A send queue.
    Send(Arc<Sq>),
    /// A queue pair.
    Pair(Arc<Qp>),
}

impl Queue {
    /// What came through doorbell registers, if it sends.
    pub fn blue_flame(&self) -> Option<&Slot> {
        match self {
            Self::Receive(_) => None,
            Self::Send(sq) => Some(&sq.blue_flame),
            Self::Pair(qp) => Some(&qp.blue_flame),
        }
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        match self {
            Self::Receive(rq) => rq.number,
            Self::Send(sq) => sq.number,
            Self::Pair(qp) => qp.number,
        }
    }
}

/// The numbers of the queue pairs in a multicast group.
type GroupMembers = Vec<(u32, refcount::Reference)>;

/// All objects of a function.
#[derive(Debug)]
pub struct Hca {
    /// The guest's memory.
    pub dma: Arc<Dma>,
    /// The guest's interrupts.
    pub msix: Arc<Msix>,
    /// What the guest did wrong.
    pub guest_errors: Arc<GuestErrors>,
    /// What the NIC's thread waits for.
    pub scheduler: Arc<Scheduler>,
    /// WQEs that come through doorbell registers.
    pub blue_flame: BlueFlame,
    /// User access regions.
    pub uars: Table<Domain>,
    /// Protection domains.
    pub pds: Table<Domain>,
    /// Transport domains.
    pub transport_domains: Table<Domain>,
    /// XRC domains.
    pub xrcds: Table<Domain>,
    /// User contexts.
    pub uctxs: Table<Domain>,
    /// Event queues.
    pub eqs: Arc<Eqs>,
    /// Completion queues.
    pub cqs: Table<Cq>,
    /// Memory keys, by index.
    pub mkeys: Table<Mkey>,
    /// Transport interfaces, send.
    pub tises: Table<Tis>,
    /// Transport interfaces, receive.
    pub tirs: Table<Tir>,
    /// Receive queue tables.
    pub rqts: Table<Rqt>,
    /// Receive queues, send queues and queue pairs.
    pub queues: Table<Queue>,
    /// Receive memory pools.
    pub rmps: Table<Rmp>,
    /// XRC shared receive queues.
    pub xrc_srqs: Table<XrcSrq>,
    /// Sets of queue counters.
    pub queue_counters: Table<QueueCounters>,
    /// Multicast groups and the numbers of the queue pairs in them.
    pub multicast_groups: Mutex<BTreeMap<[u8; 16], GroupMembers>>,
    /// Flow tables.
    pub steering: Steering,
    /// The virtual port.
    pub vport: RwLock<Vport>,
    /// What went through the port.
    pub port_counters: PortCounters,
    /// The device's clock.
    pub clock: Clock,
    /// Completions of all queues so far.
    pub completion_counters: Arc<CompletionCounters>,
}

impl Hca {
    /// The objects of a function that is just reset.
    pub fn new(dma: Arc<Dma>, msix: Arc<Msix>, mac: Mac, uars: u32, limits: Limits) -> Self {
        Self {
            dma,
            msix,
            guest_errors: Arc::default(),
            scheduler: Arc::default(),
            blue_flame: BlueFlame::default(),
            uars: Table::new(FIRST_UAR..FIRST_UAR + uars),
            pds: Table::new(1..1 << limits::LOG_MAX_PD),
            transport_domains: Table::new(1..1 << limits::LOG_MAX_TRANSPORT_DOMAIN),
            xrcds: Table::new(1..1 << limits::LOG_MAX_XRCD),
            uctxs: Table::new(1..1 << 10),
            eqs: Arc::new(Eqs {
                table: Table::new(1..1 << limits::LOG_MAX_EQ),
            }),
            cqs: Table::new(1..1 << limits::LOG_MAX_CQ),
            mkeys: Table::new(mkey::FIRST_INDEX..1 << limits.log_max_mkey),
            tises: Table::new(1..1 << limits::LOG_MAX_TIS),
            tirs: Table::new(1..1 << limits::LOG_MAX_TIR),
            rqts: Table::new(1..1 << limits::LOG_MAX_RQT),
            // 0 and 1 are the special queue pairs of InfiniBand.
            queues: Table::new(0x40..1 << limits::LOG_MAX_QP),
            rmps: Table::new(1..1 << limits::LOG_MAX_RMP),
            // The driver keeps both by number in one table (`mlx5_cmd_destroy_srq`, infiniband/hw/mlx5/srq_cmd.c).
            xrc_srqs: Table::new(1 << limits::LOG_MAX_RMP..1 << limits::LOG_MAX_SRQ),
            queue_counters: Table::new(1..1 << 8),
            multicast_groups: Mutex::default(),
            steering: Steering::default(),
            vport: RwLock::new(Vport::new(mac, 1500)),
            port_counters: PortCounters::default(),
            clock: Clock::start(),
            completion_counters: Arc::default(),
        }
    }

    /// The queue pair of a number.
    pub fn queue_pair(&self, number: u32) -> Option<Arc<Qp>> {
        match self.queues.get(number).as_deref() {
            Some(Queue::Pair(qp)) => Some(qp.clone()),
            _ => None,
        }
    }

    /// The queue pair of management datagrams, which has the number 1 on the wire.
    pub fn management_queue_pair(&self) -> Option<Arc<Qp>> {
        self.queues.all().iter().find_map(|queue| match &**queue {
            Queue::Pair(qp) if qp.parameters().service == qp::service::GSI => Some(qp.clone()),
            _ => None,
        })
    }

    /// Forgets all objects.
    pub fn clear(&self) {
        self.scheduler.clear();
        self.blue_flame.clear();
        self.silence();
        self.steering.clear();
        self.multicast_groups.lock().clear();
        self.tirs.clear();
        self.rqts.clear();
        self.tises.clear();
        self.queues.clear();
        self.rmps.clear();
        self.xrc_srqs.clear();
        self.mkeys.clear();
        self.cqs.clear();
        self.eqs.table.clear();
        self.queue_counters.clear();
        for domains in [&self.uars, &self.pds, &self.transport_domains, &self.xrcds, &self.uctxs] {
            domains.clear();
        }
        let mut vport = self.vport.write();
        *vport = Vport::new(vport.permanent, 1500);
    }

    /// Sees that nobody works for a queue any more: who does finishes its packet first.
    fn silence(&self) {
        let vport = self.vport.read().clone();
        for queue in self.queues.all() {
            match &*queue {
                Queue::Receive(rq) => rq.lock().become_state(QueueState::Reset),
                Queue::Send(sq) => sq.lock().become_state(QueueState::Reset),
                Queue::Pair(qp) => qp.retire(&vport, &self.queue_counters),
            }
        }
    }

    /// How many objects of each kind there are; kinds without any are left out.
    pub fn object_counts(&self) -> BTreeMap<&'static str, usize> {
        [
            ("uar", self.uars.len()),
            ("pd", self.pds.len()),
            ("transport_domain", self.transport_domains.len()),
            ("xrcd", self.xrcds.len()),
            ("uctx", self.uctxs.len()),
            ("eq", self.eqs.table.len()),
            ("cq", self.cqs.len()),
            ("mkey", self.mkeys.len()),
            ("tis", self.tises.len()),
            ("tir", self.tirs.len()),
            ("rqt", self.rqts.len()),
            ("queue", self.queues.len()),
            ("rmp", self.rmps.len()),
            ("xrc_srq", self.xrc_srqs.len()),
            ("queue_counter", self.queue_counters.len()),
            ("multicast_group", self.multicast_groups.lock().len()),
        ]
        .into_iter()
        .chain(self.steering.object_counts())
        .filter(|(_, count)| *count > 0)
        .collect()
    }
}
