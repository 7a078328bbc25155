//! Queue pairs: context, state transitions, and the requester's and the responder's state.

mod message;
mod message_ring;
mod parameters;
mod requester;
mod responder;
mod send_window;
mod state;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use mlx5_prm::opcode::Opcode;
use mlx5_prm::qp::{Ads, Qpc};
use parking_lot::{Mutex, RwLock};
use serde::Serialize;

pub use message::{Data, DataList, Message, Work};
pub use parameters::Parameters;
use requester::MAX_MESSAGES;
pub use requester::{MAX_PACKETS, Requester, Timers};
pub use responder::{Incoming, Receive, Resource, Responder};
pub use state::{QpState, service};

use super::blue_flame::Slot;
use super::cq::Cq;
use super::inspect;
use super::object_table::Table;
use super::pcie_account::PcieAccount;
use super::queue_counter::QueueCounters;
use super::refcount::{RefCount, Reference};
use super::srq::Rmp;
use super::vport::Vport;
use super::wq::WorkQueue;
use crate::roce::psn::Psn;

/// Source of a queue pair's receive WQEs.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiveSource {
    /// The queue pair's own receive queue.
    Own(WorkQueue),
    /// A receive memory pool.
    Pool(#[serde(serialize_with = "inspect::number")] Arc<Rmp>),
    /// The shared receive queue that the packet names.
    Xrc,
    /// No source.
    None,
}

/// A queue pair.
#[derive(Debug, Serialize)]
pub struct Qp {
    /// QP number (24 bits).
    pub number: u32,
    /// Completion queue of the send queue, if there is one.
    #[serde(serialize_with = "inspect::number")]
    pub send_cq: Option<Arc<Cq>>,
    /// Completion queue of the receive queue, if there is one.
    #[serde(serialize_with = "inspect::number")]
    pub receive_cq: Option<Arc<Cq>>,
    /// UAR page that its doorbells come through.
    pub uar: u32,
    /// The send queue, if there is one.
    pub send_queue: Option<WorkQueue>,
    /// Source of receive WQEs.
    pub receives: ReceiveSource,
    /// Doorbells and the latest WQE from doorbell registers, with the account of both.
    #[serde(rename = "pcie")]
    pub blue_flame: Slot,
    /// Number of revocations when it was stopped last: payloads from before are out of reach.
    #[serde(skip)]
    pub(super) stopped_at: AtomicU64,
    /// Memberships in multicast groups.
    pub references: RefCount,
    /// Requester state. Lock order: requester, responder, state, parameters.
    pub requester: Mutex<Requester>,
    /// Responder state.
    pub responder: Mutex<Responder>,
    #[serde(skip)]
    state: Mutex<(QpState, Qpc)>,
    parameters: RwLock<Arc<Parameters>>,
    /// References to the objects that the context names.
    #[serde(skip)]
    held: Mutex<Vec<Reference>>,
}

/// Refusal of a command that the state of the queue pair does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongState(pub QpState);

/// Parts of a queue pair besides its context.
#[derive(Debug)]
pub(crate) struct QpParts {
    pub(crate) send_cq: Option<Arc<Cq>>,
    pub(crate) receive_cq: Option<Arc<Cq>>,
    pub(crate) send_queue: Option<WorkQueue>,
    pub(crate) receives: ReceiveSource,
    pub(crate) held: Vec<Reference>,
}

impl Qp {
    pub(crate) fn new(number: u32, context: Qpc, parts: QpParts, vport: &Vport) -> Self {
        let QpParts {
            send_cq,
            receive_cq,
            send_queue,
            receives,
            mut held,
        } = parts;
        held.extend(
            [&send_cq, &receive_cq]
                .into_iter()
                .flatten()
                .map(|cq| cq.references.acquire()),
        );
        Self {
            number,
            send_cq,
            receive_cq,
            uar: context.uar_page(),
            send_queue,
            receives,
            blue_flame: Slot::default(),
            stopped_at: AtomicU64::new(0),
            references: RefCount::default(),
            requester: Mutex::new(Requester::new()),
            responder: Mutex::new(Responder::new()),
            parameters: RwLock::new(Arc::new(Parameters::new(QpState::Reset, 0, &context, vport, None))),
            state: Mutex::new((QpState::Reset, context)),
            held: Mutex::new(held),
        }
    }

    /// Most bytes that a queue pair for `send_wqes` send WQEs takes, besides the lists of its buffer.
    pub fn bytes(send_wqes: usize) -> usize {
        size_of::<Self>() + send_wqes.min(MAX_MESSAGES) * size_of::<Message>()
    }

    /// Stops the queue pair and drops its references, even if an `Arc` outlives DESTROY_QP.
    pub fn retire(&self, vport: &Vport, counters: &Table<QueueCounters>) {
        // Reset is reachable from every state.
        let _ = self.transition(Opcode::QP_2RST, 0, &Qpc::default(), vport, counters);
        self.held.lock().clear();
    }

    /// Returns the transactions so far.
    pub fn account(&self) -> PcieAccount {
        let mut account = PcieAccount::default();
        account.add_sends(self.blue_flame.account());
        account.add_payload(self.requester.lock().payload());
        let responder = self.responder.lock();
        account.add_payload(responder.payload());
        account.receive_wqe_reads += responder.wqe_reads();
        account
    }

    /// The decoded context.
    pub fn parameters(&self) -> Arc<Parameters> {
        self.parameters.read().clone()
    }

    /// Whether the queue pair is in the state of these parameters, and has not been reset since. While the requester or
    /// responder is locked, the answer stays valid for it: a reset or a destruction waits for the lock.
    pub fn is_still(&self, parameters: &Parameters) -> bool {
        let now = self.parameters.read();
        (now.state, now.generation) == (parameters.state, parameters.generation)
    }

    /// Moves to the error state without a command. Returns whether the state changed.
    pub fn fail(&self, vport: &Vport) -> bool {
        let (state, context) = &mut *self.state.lock();
        let changed = !matches!(state, QpState::Error | QpState::Reset);
        if changed {
            *state = QpState::Error;
            context.set_state(QpState::Error as u8);
            let before = self.parameters();
            let (generation, counters) = (before.generation, before.counters.clone());
            *self.parameters.write() = Arc::new(Parameters::new(*state, generation, context, vport, counters));
        }
        changed
    }

    /// Executes a command that changes the state, with the fields of `new` that belong to the command.
    pub fn transition(
        &self,
        command: Opcode,
        optional: u32,
        new: &Qpc,
        vport: &Vport,
        counters: &Table<QueueCounters>,
    ) -> Result<(), WrongState> {
        use QpState::*;
        // Both locks first, as in the data path: it must not see the new state with old sequence numbers.
        let mut requester = self.requester.lock();
        let mut responder = self.responder.lock();
        let (state, context) = &mut *self.state.lock();
        let next = match (command, *state) {
            (Opcode::QP_2RST, _) => Reset,
            (Opcode::QP_2ERR, _) => Error,
            (Opcode::RST2INIT_QP, Reset) => Init,
            (Opcode::INIT2INIT_QP, Init) => Init,
            (Opcode::INIT2RTR_QP, Init) => ReadyToReceive,
            (Opcode::RTR2RTS_QP, ReadyToReceive) => ReadyToSend,
            (Opcode::RTS2RTS_QP, ReadyToSend) => ReadyToSend,
            (Opcode::SQERR2RTS_QP, SendQueueError) => ReadyToSend,
            (Opcode::SQD_RTS_QP, SendQueueDrained) => ReadyToSend,
            (_, now) => return Err(WrongState(now)),
        };
        match command {
            Opcode::RST2INIT_QP => merge_init(context, new),
            Opcode::INIT2RTR_QP => merge_rtr(context, new),
            Opcode::RTR2RTS_QP => merge_rts(context, new),
            _ => {}
        }
        merge_optional(context, optional, new);
        *state = next;
        context.set_state(next as u8);
        match command {
            Opcode::QP_2RST | Opcode::RST2INIT_QP => {
                self.blue_flame.clear();
                requester.reset();
                responder.reset();
            }
            Opcode::INIT2RTR_QP => responder.start_at(Psn::new(context.next_rcv_psn())),
            Opcode::RTR2RTS_QP => requester.start_at(Psn::new(context.next_send_psn())),
            _ => {}
        }
        let counters = counters.get(context.counter_set_id().into());
        let generation = self.parameters.read().generation + u64::from(command == Opcode::QP_2RST);
        *self.parameters.write() = Arc::new(Parameters::new(next, generation, context, vport, counters));
        Ok(())
    }

    /// The context, with the current state and sequence numbers.
    pub fn query(&self) -> Qpc {
        let mut context = self.state.lock().1.clone();
        let requester = self.requester.lock();
        context.set_next_send_psn(requester.next_psn().value());
        context.set_hw_sq_wqebb_counter(requester.fetched());
        drop(requester);
        context.set_next_rcv_psn(self.responder.lock().expected().value());
        context
    }
}

// A command that changes the state fills in only the fields that belong to the change; the others are zero
// (`__mlx5_ib_modify_qp`, mlx5_ib/qp.c).

macro_rules! merge {
    ($to:ident, $from:ident: $($set:ident = $get:ident),* $(,)?) => {
        $($to.$set($from.$get());)*
    };
}

fn merge_init(to: &mut Qpc, from: &Qpc) {
    merge!(to, from:
        set_pm_state = pm_state, set_pd = pd, set_rre = rre, set_rwe = rwe, set_rae = rae,
        set_atomic_mode = atomic_mode, set_q_key = q_key, set_counter_set_id = counter_set_id, set_rlky = rlky,
        set_mtu = mtu, set_log_msg_max = log_msg_max,
        set_log_ack_req_freq = log_ack_req_freq, set_lag_tx_port_affinity = lag_tx_port_affinity,
    );
    if from.cqn_snd() != 0 {
        to.set_cqn_snd(from.cqn_snd());
    }
    if from.cqn_rcv() != 0 {
        to.set_cqn_rcv(from.cqn_rcv());
    }
    if from.dbr_addr() != 0 {
        to.set_dbr_addr(from.dbr_addr());
    }
    let (to, from) = (to.primary_address_path_mut(), from.primary_address_path());
    merge!(to, from: set_pkey_index = pkey_index, set_vhca_port_num = vhca_port_num);
}

fn merge_path(to: &mut Ads, from: &Ads) {
    merge!(to, from:
        set_grh = grh, set_rlid = rlid, set_src_addr_index = src_addr_index, set_stat_rate = stat_rate,
        set_hop_limit = hop_limit, set_tclass = tclass, set_flow_label = flow_label, set_dscp = dscp, set_ecn = ecn,
        set_udp_sport = udp_sport, set_eth_prio = eth_prio, set_rmac_47_32 = rmac_47_32, set_rmac_31_0 = rmac_31_0,
        set_sl = sl, set_fl = fl, set_free_ar = free_ar,
    );
    *to.rgid_rip_mut() = *from.rgid_rip();
}

fn merge_rtr(to: &mut Qpc, from: &Qpc) {
    merge!(to, from:
        set_remote_qpn = remote_qpn, set_mtu = mtu, set_log_msg_max = log_msg_max, set_next_rcv_psn = next_rcv_psn,
        set_log_rra_max = log_rra_max, set_min_rnr_nak = min_rnr_nak, set_log_ack_req_freq = log_ack_req_freq,
    );
    merge_path(to.primary_address_path_mut(), from.primary_address_path());
}

fn merge_rts(to: &mut Qpc, from: &Qpc) {
    merge!(to, from:
        set_next_send_psn = next_send_psn, set_retry_count = retry_count, set_rnr_retry = rnr_retry,
        set_log_sra_max = log_sra_max, set_log_ack_req_freq = log_ack_req_freq,
    );
    to.primary_address_path_mut()
        .set_ack_timeout(from.primary_address_path().ack_timeout());
}

/// Merges optional fields, one bit each (`enum mlx5_qp_optpar`, qp.h).
fn merge_optional(to: &mut Qpc, mask: u32, from: &Qpc) {
    let selected = |bit: u32| mask & 1 << bit != 0;
    macro_rules! when {
        ($($bit:literal: $set:ident = $get:ident),* $(,)?) => {
            $(if selected($bit) { to.$set(from.$get()); })*
        };
    }
    when! {
        1: set_rre = rre, 2: set_rae = rae, 3: set_rwe = rwe, 5: set_q_key = q_key, 6: set_min_rnr_nak = min_rnr_nak,
        8: set_log_sra_max = log_sra_max, 9: set_log_rra_max = log_rra_max, 10: set_pm_state = pm_state,
        12: set_retry_count = retry_count, 13: set_rnr_retry = rnr_retry,
        15: set_lag_tx_port_affinity = lag_tx_port_affinity,
        18: set_srqn_rmpn_xrqn = srqn_rmpn_xrqn, 19: set_cqn_rcv = cqn_rcv, 25: set_counter_set_id = counter_set_id,
    }
    if selected(2) {
        to.set_atomic_mode(from.atomic_mode());
    }
    let (to, from) = (to.primary_address_path_mut(), from.primary_address_path());
    if selected(7) {
        merge_path(to, from);
    }
    if selected(4) {
        to.set_pkey_index(from.pkey_index());
    }
    if selected(14) {
        to.set_ack_timeout(from.ack_timeout());
    }
    if selected(16) {
        to.set_vhca_port_num(from.vhca_port_num());
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::frame::mac::Mac;

    fn sets() -> Table<QueueCounters> {
        Table::new(1..1 << 8, &Arc::default())
    }

    fn qp() -> (Qp, Vport) {
        let parts = QpParts {
            send_cq: None,
            receive_cq: None,
            send_queue: None,
            receives: ReceiveSource::None,
            held: Vec::new(),
        };
        let vport = Vport::new(Mac([2, 0, 0, 0, 0, 1]), 1500);
        (Qp::new(7, Qpc::default(), parts, &vport), vport)
    }

    #[test]
    fn sparse_contexts_are_merged() {
        let (qp, vport) = qp();
        let mut init = Qpc::default();
        init.set_pd(3);
        init.primary_address_path_mut().set_pkey_index(1);
        qp.transition(Opcode::RST2INIT_QP, 0, &init, &vport, &sets()).unwrap();
        let mut rtr = Qpc::default();
        rtr.set_remote_qpn(0x1234);
        rtr.set_rwe(true);
        rtr.primary_address_path_mut().set_udp_sport(0xc123);
        qp.transition(Opcode::INIT2RTR_QP, 1 << 3, &rtr, &vport, &sets())
            .unwrap();
        let mut rts = Qpc::default();
        rts.primary_address_path_mut().set_ack_timeout(14);
        qp.transition(Opcode::RTR2RTS_QP, 0, &rts, &vport, &sets()).unwrap();
        let context = qp.query();
        assert_eq!(
            (context.pd(), context.remote_qpn(), context.rwe(), context.rre()),
            (3, 0x1234, true, false)
        );
        let path = context.primary_address_path();
        assert_eq!(
            (path.pkey_index(), path.udp_sport(), path.ack_timeout()),
            (1, 0xc123, 14)
        );
        assert_eq!(context.state(), QpState::ReadyToSend as u8);
    }

    #[test]
    fn states_follow_each_other() {
        let (qp, vport) = qp();
        assert_eq!(
            qp.transition(Opcode::RTR2RTS_QP, 0, &Qpc::default(), &vport, &sets()),
            Err(WrongState(QpState::Reset))
        );
        qp.transition(Opcode::QP_2ERR, 0, &Qpc::default(), &vport, &sets())
            .unwrap();
        assert!(
            qp.transition(Opcode::RST2INIT_QP, 0, &Qpc::default(), &vport, &sets())
                .is_err()
        );
        qp.transition(Opcode::QP_2RST, 0, &Qpc::default(), &vport, &sets())
            .unwrap();
        qp.transition(Opcode::RST2INIT_QP, 0, &Qpc::default(), &vport, &sets())
            .unwrap();
    }

    /// Executes a command while `side` is locked, and checks that the state does not change meanwhile.
    fn stands_still<T>(qp: &Qp, side: &Mutex<T>, command: Opcode, new: &Qpc, vport: &Vport) {
        let before = qp.parameters();
        thread::scope(|scope| {
            let held = side.lock();
            let change = scope.spawn(|| qp.transition(command, 0, new, vport, &sets()));
            let end = Instant::now() + Duration::from_millis(100);
            while Instant::now() < end && qp.is_still(&before) {
                thread::yield_now();
            }
            let stood = qp.is_still(&before);
            drop(held);
            change.join().unwrap().unwrap();
            assert!(stood, "{command} overtook a packet");
        });
    }

    #[test]
    fn a_queue_pair_is_another_one_after_a_reset() {
        let (qp, vport) = qp();
        let connect = || {
            for command in [Opcode::RST2INIT_QP, Opcode::INIT2RTR_QP, Opcode::RTR2RTS_QP] {
                qp.transition(command, 0, &Qpc::default(), &vport, &sets()).unwrap();
            }
            qp.parameters()
        };
        let first = connect();
        assert!(qp.is_still(&first));
        qp.transition(Opcode::QP_2RST, 0, &Qpc::default(), &vport, &sets())
            .unwrap();
        let second = connect();
        assert_eq!(first.state, second.state);
        assert!(!qp.is_still(&first) && qp.is_still(&second));
        // The error state is one of the same connection.
        assert!(qp.fail(&vport));
        assert_eq!(qp.parameters().generation, second.generation);
    }

    #[test]
    fn who_holds_a_side_sees_no_new_state_with_old_sequence_numbers() {
        let (qp, vport) = qp();
        let mut rtr = Qpc::default();
        rtr.set_next_rcv_psn(0x90_0000);
        let mut rts = Qpc::default();
        rts.set_next_send_psn(0x12_3456);
        qp.transition(Opcode::RST2INIT_QP, 0, &Qpc::default(), &vport, &sets())
            .unwrap();
        stands_still(&qp, &qp.responder, Opcode::INIT2RTR_QP, &rtr, &vport);
        assert_eq!(qp.responder.lock().expected(), Psn::new(0x90_0000));
        stands_still(&qp, &qp.requester, Opcode::RTR2RTS_QP, &rts, &vport);
        assert_eq!(qp.requester.lock().send_psn(), Psn::new(0x12_3456));
        stands_still(&qp, &qp.responder, Opcode::QP_2RST, &Qpc::default(), &vport);
        assert_eq!(qp.responder.lock().expected(), Psn::default());
    }
}
