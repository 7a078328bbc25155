//! Objects and state of one function.

pub mod blue_flame;
pub mod buffer;
pub mod clock;
pub mod cq;
pub mod domain;
pub mod entry_door;
mod entry_ring;
pub mod eq;
pub mod event;
mod inspect;
pub mod limits;
pub mod memory_budget;
pub mod mkey;
pub mod nic_event;
pub mod nic_finding;
pub mod object_table;
pub mod pcie_account;
pub mod pcie_latency;
pub mod port;
pub mod port_counters;
pub mod priority;
pub mod qp;
pub mod queue_counter;
pub mod refcount;
mod revocation;
pub mod rq;
pub mod scheduler;
pub mod send_opcodes;
pub mod sq;
pub mod srq;
pub mod steering;
pub mod tape;
pub mod tis_tir_rqt;
pub mod vport;
pub mod wq;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastrand::Rng;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use vhost_daemon::trace::Tracer;

use blue_flame::{BlueFlame, Slot};
use clock::Clock;
use cq::Cq;
use domain::Domain;
use entry_door::EntryDoor;
use eq::Eqs;
use limits::Limits;
use memory_budget::Budget;
use mkey::{Mkey, RetiredKeys};
use nic_finding::{Finding, Findings, Object};
use object_table::Table;
use pcie_account::PcieAccount;
use pcie_latency::PcieLatency;
use port::PhysicalPort;
use port_counters::{CompletionCounters, PortCounters};
use priority::Priorities;
use qp::Qp;
use queue_counter::QueueCounters;
use rq::{QueueState, Rq};
use scheduler::Scheduler;
use sq::Sq;
use srq::{Rmp, XrcSrq};
use steering::Steering;
use tape::Tape;
use tis_tir_rqt::{Rqt, Tir, Tis};
use vport::Vport;

use crate::dma::Dma;
use crate::frame::mac::Mac;
use crate::net::Readers;
use crate::pci::Msix;

/// A work queue or queue pair. They share one number space, because a doorbell names only a number.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// A receive queue.
    Receive(Arc<Rq>),
    /// A send queue.
    Send(Arc<Sq>),
    /// A queue pair.
    Pair(Arc<Qp>),
}

impl Queue {
    /// Returns the slot for doorbells in a UAR page, if the queue has a send side and that page is its own: a program
    /// has no access to the queues of others.
    pub fn slot(&self, page: u32) -> Option<&Slot> {
        let (uar, slot) = match self {
            Self::Receive(_) => return None,
            Self::Send(sq) => (sq.uar, &sq.blue_flame),
            Self::Pair(qp) => (qp.uar, &qp.blue_flame),
        };
        (uar == page).then_some(slot)
    }

    /// Returns the transactions so far.
    pub fn account(&self) -> PcieAccount {
        match self {
            Self::Receive(rq) => rq.account(),
            Self::Send(sq) => sq.account(),
            Self::Pair(qp) => qp.account(),
        }
    }

    /// Queue number (24 bits).
    pub fn number(&self) -> u32 {
        match self {
            Self::Receive(rq) => rq.number,
            Self::Send(sq) => sq.number,
            Self::Pair(qp) => qp.number,
        }
    }
}

/// Numbers of the queue pairs in a multicast group.
type GroupMembers = Vec<(u32, refcount::Reference)>;

/// Guest memory, interrupts, recorder and findings of a function.
#[derive(Debug, Clone)]
pub struct HcaParts {
    /// Guest memory.
    pub dma: Arc<Dma>,
    /// Interrupt vectors.
    pub msix: Arc<Msix>,
    /// Recorder of the guest's events.
    pub tracer: Tracer,
    /// Door of completions and events, if there is one.
    pub door: Option<Arc<dyn EntryDoor>>,
    /// Time of PCIe transactions.
    pub pcie_latency: Arc<PcieLatency>,
    /// Findings.
    pub findings: Arc<Findings>,
    /// Whether send WQEs are compared with memory at their completion.
    pub check_wqes: bool,
    /// Tape that the function is recorded on or replayed from, if there is one.
    pub tape: Option<Arc<dyn Tape>>,
    /// Whether the function may send from its own MAC address only.
    pub spoof_check: bool,
    /// Seed of the first numbers of queue pairs and keys, unless those are the lowest.
    pub random_numbers: Option<u64>,
    /// Host memory for the objects.
    pub budget: Arc<Budget>,
}

/// All objects and state of a function.
#[derive(Debug, Serialize)]
pub struct Hca {
    /// Guest memory.
    #[serde(skip)]
    pub dma: Arc<Dma>,
    /// Interrupt vectors.
    #[serde(skip)]
    pub msix: Arc<Msix>,
    /// Whether packets of a connection must come from the MAC address of the peer.
    #[serde(skip)]
    pub spoof_check: bool,
    /// Host memory for the objects.
    #[serde(skip)]
    pub budget: Arc<Budget>,
    /// Recorder of the guest's events.
    #[serde(skip)]
    pub tracer: Tracer,
    /// Door of completions and events, if there is one.
    #[serde(skip)]
    pub door: Option<Arc<dyn EntryDoor>>,
    /// Time of PCIe transactions.
    #[serde(skip)]
    pub pcie_latency: Arc<PcieLatency>,
    /// Transactions of destroyed objects. Lock order: before the tables of queues, CQs and EQs and their objects.
    #[serde(skip)]
    destroyed: Mutex<PcieAccount>,
    /// Findings.
    #[serde(skip)]
    pub findings: Arc<Findings>,
    /// Whether send WQEs are compared with memory at their completion.
    #[serde(skip)]
    pub check_wqes: bool,
    /// Work for the NIC's thread.
    #[serde(skip)]
    pub scheduler: Arc<Scheduler>,
    /// WQEs written to doorbell registers.
    #[serde(skip)]
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
    /// Keys that were destroyed or invalidated.
    #[serde(skip)]
    pub retired_keys: RetiredKeys,
    /// Transport interfaces, send.
    pub tises: Table<Tis>,
    /// Transport interfaces, receive.
    pub tirs: Table<Tir>,
    /// Receive queue tables.
    pub rqts: Table<Rqt>,
    /// Receive queues, send queues and queue pairs.
    pub queues: Table<Queue>,
    /// Queue pairs of service GSI among them. Drivers create one; the lowest number takes the datagrams.
    #[serde(skip)]
    gsi: RwLock<BTreeMap<u32, Arc<Qp>>>,
    /// Receive memory pools.
    pub rmps: Table<Rmp>,
    /// XRC shared receive queues.
    pub xrc_srqs: Table<XrcSrq>,
    /// Queue counter sets.
    pub queue_counters: Table<QueueCounters>,
    /// Members of multicast groups by GID.
    #[serde(skip)]
    pub multicast_groups: Mutex<BTreeMap<[u8; 16], GroupMembers>>,
    /// Flow steering.
    #[serde(skip)]
    pub steering: Steering,
    /// The physical port.
    pub port: PhysicalPort,
    /// The virtual port. Lock order: before the table of queues and the state of a queue pair. It must not be locked
    /// while waiting for the data path, which reads it.
    #[serde(skip)]
    pub vport: RwLock<Vport>,
    /// MAC address that the device was made with.
    #[serde(skip)]
    factory_mac: Mac,
    /// Counters of the physical port.
    #[serde(skip)]
    pub port_counters: PortCounters,
    /// Priorities of frames.
    #[serde(skip)]
    pub priorities: Priorities,
    /// Readers of payloads; see [`Hca::revoke`].
    #[serde(skip)]
    readers: Readers,
    /// Free-running clock.
    #[serde(skip)]
    pub clock: Clock,
    /// Completions of all queues.
    #[serde(skip)]
    pub completion_counters: Arc<CompletionCounters>,
}

impl Hca {
    /// Creates the state of a function after reset; `uars` are the page numbers of its UARs.
    pub fn new(parts: HcaParts, mac: Mac, uars: Range<u32>, limits: Limits) -> Self {
        let HcaParts {
            dma,
            msix,
            tracer,
            door,
            pcie_latency,
            findings,
            check_wqes,
            tape,
            spoof_check,
            random_numbers,
            budget,
        } = parts;
        let mut random = random_numbers.map(Rng::with_seed);
        let mut fork = || random.as_mut().map(Rng::fork);
        let clock = Clock::start(tape);
        let eqs = Arc::new(Eqs::new(&budget));
        Self {
            dma,
            msix,
            spoof_check,
            budget: budget.clone(),
            tracer,
            door,
            pcie_latency,
            destroyed: Mutex::default(),
            findings,
            check_wqes,
            scheduler: Arc::new(Scheduler::new(clock.clone())),
            blue_flame: BlueFlame::new(clock.clone()),
            uars: Table::new(uars, &budget),
            pds: Table::new(1..1 << limits::LOG_MAX_PD, &budget),
            transport_domains: Table::new(1..1 << limits::LOG_MAX_TRANSPORT_DOMAIN, &budget),
            xrcds: Table::new(1..1 << limits::LOG_MAX_XRCD, &budget),
            uctxs: Table::new(1..1 << 10, &budget),
            eqs: eqs.clone(),
            cqs: Table::new(1..1 << limits::LOG_MAX_CQ, &budget),
            mkeys: Table::with_random_start(mkey::FIRST_INDEX..1 << limits.log_max_mkey, &budget, fork()),
            retired_keys: RetiredKeys::default(),
            tises: Table::new(1..1 << limits::LOG_MAX_TIS, &budget),
            tirs: Table::new(1..1 << limits::LOG_MAX_TIR, &budget),
            rqts: Table::new(1..1 << limits::LOG_MAX_RQT, &budget),
            // 0 and 1 are InfiniBand's special queue pairs.
            queues: Table::with_random_start(0x40..1 << limits::LOG_MAX_QP, &budget, fork()),
            gsi: RwLock::default(),
            rmps: Table::new(1..1 << limits::LOG_MAX_RMP, &budget),
            // The driver keeps RMPs and XRC SRQs in one table by number (`mlx5_cmd_destroy_srq`,
            // infiniband/hw/mlx5/srq_cmd.c).
            xrc_srqs: Table::new(1 << limits::LOG_MAX_RMP..1 << limits::LOG_MAX_SRQ, &budget),
            queue_counters: Table::new(1..1 << 8, &budget),
            multicast_groups: Mutex::default(),
            steering: Steering::new(&budget),
            port: PhysicalPort::new(eqs),
            vport: RwLock::new(Vport::new(mac, 1500)),
            factory_mac: mac,
            port_counters: PortCounters::default(),
            priorities: Priorities::default(),
            readers: Readers::default(),
            clock,
            completion_counters: Arc::default(),
        }
    }

    /// Creates a queue pair for `send_wqes` send WQEs with the next free number; `None` if there are too many queues,
    /// or no memory is left for it.
    pub fn add_queue_pair(&self, send_wqes: usize, make: impl FnOnce(u32) -> Qp) -> Option<Arc<Qp>> {
        let make = |number| Queue::Pair(Arc::new(make(number)));
        let queue = self.queues.insert_sized(Qp::bytes(send_wqes), make)?;
        let Queue::Pair(qp) = &*queue else { return None };
        if qp.parameters().service == qp::service::GSI {
            self.gsi.write().insert(qp.number, qp.clone());
        }
        Some(qp.clone())
    }

    /// Removes a queue pair.
    pub fn remove_queue_pair(&self, number: u32) {
        self.gsi.write().remove(&number);
        self.remove_queue(number);
    }

    /// Removes a queue or queue pair.
    pub fn remove_queue(&self, number: u32) {
        let account = || self.queues.get(number).map(|queue| queue.account());
        self.account_destroyed(|| account().unwrap_or_default(), || self.queues.remove(number));
    }

    /// Keeps the account of an object that `remove` takes out of its table.
    pub(crate) fn account_destroyed<T>(&self, account: impl FnOnce() -> PcieAccount, remove: impl FnOnce() -> T) {
        let mut destroyed = self.destroyed.lock();
        *destroyed += account();
        remove();
    }

    /// Returns the PCIe transactions of all objects, destroyed ones included.
    pub fn account(&self) -> PcieAccount {
        let destroyed = self.destroyed.lock();
        let mut account = self.live_account();
        account += *destroyed;
        account
    }

    fn live_account(&self) -> PcieAccount {
        let mut account = PcieAccount::default();
        self.queues.all().iter().for_each(|queue| account += queue.account());
        self.cqs.all().iter().for_each(|cq| account += cq.account());
        self.eqs.table.all().iter().for_each(|eq| account += eq.account());
        account
    }

    /// Returns the queue pair of a number.
    pub fn queue_pair(&self, number: u32) -> Option<Arc<Qp>> {
        match self.queues.get(number).as_deref() {
            Some(Queue::Pair(qp)) => Some(qp.clone()),
            _ => None,
        }
    }

    /// Returns the queue pair of management datagrams, which has the number 1 on the wire.
    pub fn management_queue_pair(&self) -> Option<Arc<Qp>> {
        self.gsi.read().values().next().cloned()
    }

    /// Quiesces all queues, then drops every object and its state.
    pub fn clear(&self) {
        self.scheduler.clear();
        self.blue_flame.clear();
        self.quiesce();
        self.steering.clear();
        self.multicast_groups.lock().clear();
        self.tirs.clear();
        self.rqts.clear();
        self.tises.clear();
        self.gsi.write().clear();
        let remove_all = || {
            self.queues.clear();
            self.cqs.clear();
            self.eqs.table.clear();
        };
        self.account_destroyed(|| self.live_account(), remove_all);
        self.rmps.clear();
        self.xrc_srqs.clear();
        self.mkeys.clear();
        self.retired_keys.clear();
        self.queue_counters.clear();
        for domains in [&self.uars, &self.pds, &self.transport_domains, &self.xrcds, &self.uctxs] {
            domains.clear();
        }
        self.revoke();
        let mut vport = self.vport.write();
        *vport = Vport::new(vport.permanent, 1500);
    }

    /// Returns the only MAC address that the function may send from, if it is restricted.
    pub fn bound_address(&self) -> Option<Mac> {
        self.spoof_check.then_some(self.factory_mac)
    }

    /// Drops what outlives a reset of the function: the MAC address that the guest set, and the counters of the port.
    pub fn power_cycle(&self) {
        let mut vport = self.vport.write();
        *vport = Vport::new(self.factory_mac, 1500);
        drop(vport);
        self.port.power_cycle();
        self.port_counters.clear();
        self.completion_counters.overruns.store(0, Ordering::Relaxed);
    }

    /// Quiesces all queues; waits for packets in flight.
    fn quiesce(&self) {
        let vport = self.vport.read().clone();
        for queue in self.queues.all() {
            match &*queue {
                Queue::Receive(rq) => rq.lock().become_state(QueueState::Reset),
                Queue::Send(sq) => sq.lock().become_state(QueueState::Reset),
                Queue::Pair(qp) => qp.retire(&vport, &self.queue_counters),
            }
        }
    }

    /// Reports the objects that a driver left at `occasion`, one finding per kind with the lowest numbers.
    pub fn report_left(&self, occasion: &str) {
        for (kind, numbers, count) in self.numbers() {
            let evidence: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
            let object = Object::new(kind, numbers.first().copied().unwrap_or(0).into());
            let text = format_args!("{count} of {kind} left at {occasion}");
            self.findings.report(Finding::ObjectLeft, object, &evidence, text);
        }
    }

    /// Returns kind, lowest numbers and count of the objects, for kinds of which there are any.
    fn numbers(&self) -> Vec<(&'static str, Vec<u32>, usize)> {
        const FEW: usize = 16;
        let numbered = [
            ("uar", self.uars.numbers(FEW)),
            ("pd", self.pds.numbers(FEW)),
            ("transport_domain", self.transport_domains.numbers(FEW)),
            ("xrcd", self.xrcds.numbers(FEW)),
            ("uctx", self.uctxs.numbers(FEW)),
            ("eq", self.eqs.table.numbers(FEW)),
            ("cq", self.cqs.numbers(FEW)),
            ("mkey", self.mkeys.numbers(FEW)),
            ("tis", self.tises.numbers(FEW)),
            ("tir", self.tirs.numbers(FEW)),
            ("rqt", self.rqts.numbers(FEW)),
            ("queue", self.queues.numbers(FEW)),
            ("rmp", self.rmps.numbers(FEW)),
            ("xrc_srq", self.xrc_srqs.numbers(FEW)),
            ("queue_counter", self.queue_counters.numbers(FEW)),
        ];
        let counts = self.object_counts().into_iter();
        counts
            .map(|(kind, count)| {
                let numbers = numbered.iter().find(|(name, _)| *name == kind);
                (
                    kind,
                    numbers.map_or_else(Vec::new, |(_, numbers)| numbers.clone()),
                    count,
                )
            })
            .collect()
    }

    /// Returns the number of objects by kind; kinds without any are left out.
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

#[cfg(test)]
mod tests {
    use mlx5_prm::qp::Qpc;
    use qp::{QpParts, ReceiveSource};

    use super::*;

    fn parts() -> HcaParts {
        HcaParts {
            dma: Arc::default(),
            msix: Arc::new(Msix::new(1)),
            tracer: Tracer::default(),
            door: None,
            pcie_latency: Arc::default(),
            findings: Arc::default(),
            check_wqes: false,
            tape: None,
            spoof_check: false,
            random_numbers: None,
            budget: Arc::default(),
        }
    }

    fn add(hca: &Hca, service: u8) -> u32 {
        let mut context = Qpc::default();
        context.set_st(service);
        let parts = QpParts {
            send_cq: None,
            receive_cq: None,
            send_queue: None,
            receives: ReceiveSource::None,
            held: Vec::new(),
        };
        let vport = hca.vport.read();
        let make = |number| Qp::new(number, context, parts, &vport);
        hca.add_queue_pair(0, make).unwrap().number
    }

    #[test]
    fn live_objects_serialise_by_kind_and_number() {
        let hca = Hca::new(parts(), Mac([2, 0, 0, 0, 0, 1]), 16..17, Limits::default());
        hca.uars.insert_with(Domain::new).unwrap();
        let number = add(&hca, qp::service::UC);
        let tree = serde_json::to_value(&hca).unwrap();
        let qp = &tree["queues"][number.to_string()]["pair"];
        assert_eq!(qp["parameters"]["state"], "reset");
        assert_eq!(qp["parameters"]["service"], qp::service::UC);
        assert_eq!(
            (&qp["requester"]["messages"], &qp["send_cq"]),
            (&0.into(), &serde_json::Value::Null)
        );
        assert_eq!(tree["uars"]["16"]["references"], 0);
        assert_eq!(tree["port"]["state"]["admin_up"], true);
    }

    #[test]
    fn management_datagrams_go_to_the_first_queue_pair_for_them() {
        let hca = Hca::new(parts(), Mac([2, 0, 0, 0, 0, 1]), 0..1, Limits::default());
        let receiver = || hca.management_queue_pair().map(|qp| qp.number);
        add(&hca, qp::service::UD);
        assert_eq!(receiver(), None);
        let (first, second) = (add(&hca, qp::service::GSI), add(&hca, qp::service::GSI));
        assert_eq!(receiver(), Some(first));
        hca.remove_queue_pair(first);
        assert_eq!(receiver(), Some(second));
        hca.clear();
        assert_eq!((receiver(), hca.queues.len()), (None, 0));
    }
}
