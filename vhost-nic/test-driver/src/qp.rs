//! Queue pairs (`mlx5_ib/qp.c`).

use std::sync::Arc;

use mlx5_prm::opcode::Opcode;
use mlx5_prm::qp::*;
use mlx5_prm::queue_entry::{Cqe, CqeOpcode};
use mlx5_prm::rdma_wqe::AddressVector;
use mlx5_prm::wqe::{SEND_WQE_BB, WqeOpcode};

use crate::buffer::Buffer;
use crate::command::Result;
use crate::cq::{self, CompletionQueue};
use crate::machine::Machine;
use crate::memory::Block;
use crate::node::{GID_INDEX, Node, V1_GID_INDEX};
pub use crate::request::{Data, Request, Scatter, scatter_list};

/// BlueFlame register of a UAR page, also the send doorbell (`MLX5_BF_OFFSET`).
const DOORBELL: u64 = 0x800;
/// Bytes of each of its two buffers.
const BLUE_FLAME_BUFFER: u64 = 0x100;
/// Log2 of the bytes of a receive WQE: four data segments.
const LOG_RQ_STRIDE: u8 = 6;
/// Transport services (`MLX5_QP_ST_*`).
pub mod service {
    #![expect(missing_docs, reason = "the names are those of the services")]
    pub const RC: u8 = 0;
    pub const UC: u8 = 1;
    pub const UD: u8 = 2;
    pub const XRC: u8 = 3;
    pub const GSI: u8 = 8;
    pub const RAW_ETHERNET: u8 = 9;
    pub const REG_UMR: u8 = 0xc;
}
/// `MLX5_SRQ_RQ`.
const RQ_SHARED: u8 = 1;
/// `MLX5_ZERO_LEN_RQ`: no receive queue.
pub const RQ_NONE: u8 = 3;

/// Properties of a queue pair.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Transport service.
    pub service: u8,
    /// Whether it has a send queue.
    pub sends: bool,
    /// Number of the shared receive queue, in place of a receive queue.
    pub srq: Option<u32>,
    /// XRC domain, or 0.
    pub xrcd: u32,
    /// Log2 of the basic blocks of the send queue.
    pub log_sq: u8,
    /// Log2 of the receive WQEs.
    pub log_rq: u8,
    /// Log2 of the entries of each completion queue.
    pub log_cq: u8,
    /// Whether completions have 128 bytes.
    pub large_cqes: bool,
    /// `cs_req`: scatter data of reads and atomics to CQEs.
    pub cs_req: u8,
    /// `cs_res`: scatter data of sends to CQEs.
    pub cs_res: u8,
    /// Protection domain, if not the node's.
    pub pd: Option<u32>,
    /// Whether WQEs may register memory (`fre`).
    pub fast_register: bool,
}

impl Shape {
    /// A queue pair with queues of 256 basic blocks and 256 receive WQEs, and completion queues of 512 entries.
    pub fn new(service: u8) -> Self {
        Self {
            service,
            sends: true,
            srq: None,
            xrcd: 0,
            log_sq: 8,
            log_rq: 8,
            log_cq: 9,
            large_cqes: false,
            cs_req: 0,
            cs_res: 0,
            pd: None,
            fast_register: false,
        }
    }
}

/// Properties of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    /// Path MTU code: 128 << `mtu` bytes.
    pub mtu: u8,
    /// First PSN in each direction: sent, received.
    pub psn: (u32, u32),
    /// Retries without a response.
    pub retry_count: u8,
    /// Retries after RNR NAK.
    pub rnr_retry: u8,
    /// RNR NAK timer code.
    pub min_rnr_nak: u8,
    /// Local ACK timeout code.
    pub ack_timeout: u8,
    /// Rights of the peer: read, write, atomics.
    pub access: (bool, bool, bool),
    /// Log2 of outstanding reads and atomics.
    pub log_depth: u8,
    /// Queue counter set, or 0.
    pub counters: u8,
    /// Whether the address path is of RoCE v1.
    pub v1: bool,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            mtu: 3,
            psn: (0x12_3456, 0x65_4321),
            retry_count: 7,
            rnr_retry: 7,
            min_rnr_nak: 1,
            ack_timeout: 12,
            access: (true, true, true),
            log_depth: 4,
            counters: 0,
            v1: false,
        }
    }
}

impl Connection {
    /// Path MTU in bytes.
    pub fn mtu(&self) -> usize {
        128 << self.mtu
    }

    /// Returns the connection as the peer sees it.
    pub fn reverse(self) -> Self {
        Self {
            psn: (self.psn.1, self.psn.0),
            ..self
        }
    }
}

/// A queue pair with completion queues of its own.
pub struct QueuePair {
    /// QP number.
    pub number: u32,
    /// Properties it was created with.
    pub shape: Shape,
    /// CQ of the send queue.
    pub send_cq: CompletionQueue,
    /// CQ of the receive queue.
    pub receive_cq: CompletionQueue,
    pd: u32,
    machine: Arc<Machine>,
    buffer: Buffer,
    record: Block,
    sent: u16,
    /// The beginning of the WQE that was put last: the value of its doorbell.
    head: [u8; 8],
    posted: u16,
    uar: u32,
}

impl QueuePair {
    /// Creates a queue pair, in reset, and its completion queues.
    pub fn create(node: &Node, shape: Shape) -> Result<Self> {
        let hca = &node.hca;
        let own_rq = shape.srq.is_none() && shape.service != service::XRC;
        let rq_bytes = if own_rq {
            1_u64 << (shape.log_rq + LOG_RQ_STRIDE)
        } else {
            0
        };
        let sq_bytes = if shape.sends {
            (SEND_WQE_BB as u64) << shape.log_sq
        } else {
            0
        };
        let memory = &hca.machine.memory;
        let (buffer, record) = (Buffer::new(memory, rq_bytes + sq_bytes), memory.allocate(8));
        let send_cq = node.completion_queue(shape.log_cq, shape.large_cqes);
        let receive_cq = node.completion_queue(shape.log_cq, shape.large_cqes);
        let pd = shape.pd.unwrap_or(node.pd);
        let mut input = CreateQpIn::default();
        let context = input.qpc_mut();
        context.set_st(shape.service);
        context.set_pd(pd);
        context.set_uar_page(hca.uar);
        context.set_dbr_addr(record.address());
        context.set_cqn_snd(send_cq.number);
        context.set_cqn_rcv(receive_cq.number);
        context.set_user_index(0x12_3456);
        context.set_cs_req(shape.cs_req);
        context.set_cs_res(shape.cs_res);
        context.set_fre(shape.fast_register);
        context.set_xrcd(shape.xrcd);
        context.set_no_sq(!shape.sends);
        if shape.sends {
            context.set_log_sq_size(shape.log_sq);
        }
        match shape.srq {
            Some(number) => {
                context.set_rq_type(RQ_SHARED);
                context.set_srqn_rmpn_xrqn(number);
            }
            None if own_rq => {
                context.set_log_rq_size(shape.log_rq);
                context.set_log_rq_stride(LOG_RQ_STRIDE - 4);
            }
            None => context.set_rq_type(RQ_NONE),
        }
        let (output, _): (CreateQpOut, _) =
            hca.commands
                .call_with(Opcode::CREATE_QP, 0, &input, &buffer.page_list(), 0)?;
        Ok(Self {
            number: output.qpn(),
            shape,
            send_cq,
            receive_cq,
            pd,
            machine: Arc::clone(&hca.machine),
            buffer,
            record,
            sent: 0,
            head: [0; 8],
            posted: 0,
            uar: hca.uar,
        })
    }

    fn modify(&self, node: &Node, opcode: Opcode, optional: u32, context: &Qpc) -> Result<()> {
        let mut input = Rst2initQpIn::default();
        input.set_qpn(self.number);
        input.set_opt_param_mask(optional);
        *input.qpc_mut() = context.clone();
        node.hca.commands.call::<_, Rst2initQpOut>(opcode, &input).map(drop)
    }

    /// Moves it from RST to RTS, connected to QP `remote` of `peer`.
    pub fn connect(&self, node: &Node, peer: &Node, remote: u32, how: &Connection) -> Result<()> {
        self.initialize(node, how)?;
        self.make_ready_to_receive(node, (peer.mac, peer.gid), remote, how)?;
        self.make_ready_to_send(node, how)
    }

    /// Moves it from RST to INIT.
    pub fn initialize(&self, node: &Node, how: &Connection) -> Result<()> {
        let mut context = Qpc::default();
        let (read, write, atomic) = how.access;
        context.set_pd(self.pd);
        context.set_q_key(Q_KEY);
        context.set_rre(read);
        context.set_rwe(write);
        context.set_rae(atomic);
        context.set_atomic_mode(1);
        context.set_counter_set_id(how.counters);
        context.primary_address_path_mut().set_vhca_port_num(1);
        self.modify(node, Opcode::RST2INIT_QP, 0, &context)
    }

    /// Moves it from INIT to RTR, connected to QP `remote` at an address.
    pub fn make_ready_to_receive(
        &self,
        node: &Node,
        (mac, gid): ([u8; 6], [u8; 16]),
        remote: u32,
        how: &Connection,
    ) -> Result<()> {
        let mut context = Qpc::default();
        context.set_mtu(how.mtu);
        context.set_log_msg_max(30);
        context.set_remote_qpn(remote);
        context.set_next_rcv_psn(how.psn.1);
        context.set_log_rra_max(how.log_depth);
        context.set_min_rnr_nak(how.min_rnr_nak);
        let path = context.primary_address_path_mut();
        path.set_hop_limit(64);
        if how.v1 {
            path.set_src_addr_index(V1_GID_INDEX);
            path.set_tclass(V1_TRAFFIC_CLASS);
            path.set_flow_label(V1_FLOW_LABEL);
        } else {
            path.set_src_addr_index(GID_INDEX);
            path.set_udp_sport(0xc123);
        }
        path.set_rmac_47_32(u16::from_be_bytes([mac[0], mac[1]]));
        path.set_rmac_31_0(u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]));
        *path.rgid_rip_mut() = gid;
        self.modify(node, Opcode::INIT2RTR_QP, 0, &context)
    }

    /// Moves it from RTR to RTS.
    pub fn make_ready_to_send(&self, node: &Node, how: &Connection) -> Result<()> {
        let mut context = Qpc::default();
        context.set_next_send_psn(how.psn.0);
        context.set_retry_count(how.retry_count);
        context.set_rnr_retry(how.rnr_retry);
        context.set_log_sra_max(how.log_depth);
        context.primary_address_path_mut().set_ack_timeout(how.ack_timeout);
        self.modify(node, Opcode::RTR2RTS_QP, 0, &context)
    }

    /// Moves it to ERR.
    pub fn fail(&self, node: &Node) -> Result<()> {
        let mut input = Qp2errIn::default();
        input.set_qpn(self.number);
        node.hca
            .commands
            .call::<_, Qp2errOut>(Opcode::QP_2ERR, &input)
            .map(drop)
    }

    /// Moves it to RST and clears the producer indices.
    pub fn reset(&mut self, node: &Node) -> Result<()> {
        let mut input = Qp2rstIn::default();
        input.set_qpn(self.number);
        node.hca.commands.call::<_, Qp2rstOut>(Opcode::QP_2RST, &input)?;
        (self.sent, self.posted) = (0, 0);
        self.record.store(0, 0);
        self.record.store(4, 0);
        Ok(())
    }

    /// Queries its context.
    pub fn query(&self, node: &Node) -> Result<Qpc> {
        let mut input = QueryQpIn::default();
        input.set_qpn(self.number);
        node.hca
            .commands
            .call(Opcode::QUERY_QP, &input)
            .map(|output: QueryQpOut| output.qpc().clone())
    }

    /// Destroys the queue pair and its completion queues.
    pub fn destroy(&self, node: &Node) -> Result<()> {
        let mut input = DestroyQpIn::default();
        input.set_qpn(self.number);
        node.hca.commands.call::<_, DestroyQpOut>(Opcode::DESTROY_QP, &input)?;
        self.send_cq.destroy(&node.hca)?;
        self.receive_cq.destroy(&node.hca)
    }

    fn send_start(&self) -> u64 {
        let sq_bytes = if self.shape.sends {
            (SEND_WQE_BB as u64) << self.shape.log_sq
        } else {
            0
        };
        self.buffer.length() - sq_bytes
    }

    /// Writes a request to the ring, without the doorbell. Returns its WQE counter.
    pub fn put(&mut self, request: &Request) -> u16 {
        self.put_bytes(&self.wqe(request))
    }

    /// Writes the bytes of a WQE to the ring, without the doorbell. Returns its WQE counter.
    pub fn put_bytes(&mut self, wqe: &[u8]) -> u16 {
        let counter = self.sent;
        if let Some(head) = wqe.first_chunk() {
            self.head = *head;
        }
        for block in wqe.chunks(SEND_WQE_BB) {
            let index = u64::from(self.sent) & ((1 << self.shape.log_sq) - 1);
            self.buffer.write(self.send_start() + index * SEND_WQE_BB as u64, block);
            self.sent = self.sent.wrapping_add(1);
        }
        counter
    }

    /// Advances the producer index over `blocks` basic blocks that are in the ring from before.
    pub fn put_again(&mut self, blocks: u16) {
        self.sent = self.sent.wrapping_add(blocks);
    }

    /// Posts `count` requests of `blocks` basic blocks again that are in the ring, with their new WQE counters.
    pub fn repost(&mut self, count: u16, blocks: u16) {
        for _ in 0..count {
            let counter = self.sent.to_be_bytes();
            let index = u64::from(self.sent) & ((1 << self.shape.log_sq) - 1);
            // Bits 23:8 of the first word of the control segment.
            self.buffer
                .write(self.send_start() + index * SEND_WQE_BB as u64 + 1, &counter);
            self.head[1..3].copy_from_slice(&counter);
            self.sent = self.sent.wrapping_add(blocks);
        }
    }

    /// Producer index of the send queue, in basic blocks.
    pub fn posted_sends(&self) -> u16 {
        self.sent
    }

    /// Rings the doorbell for everything in the ring.
    pub fn ring(&self) {
        self.publish();
        let mut value = self.head;
        // A WQE that makes no sense may name another queue.
        value[4..7].copy_from_slice(&self.number.to_be_bytes()[1..]);
        self.ring_value(value);
    }

    /// Writes a value to the doorbell register, whatever is posted.
    pub fn ring_value(&self, value: [u8; 8]) {
        self.machine.write_pair(u64::from(self.uar) * 4096 + DOORBELL, value);
    }

    /// Publishes the send producer index in the doorbell record, without the doorbell.
    pub fn publish(&self) {
        self.record.store(4, self.sent.into());
    }

    /// Rings with BlueFlame: writes a WQE to buffer `half` of the register, eight bytes at a time.
    pub fn ring_with(&self, half: u64, wqe: &[u8]) {
        self.ring_with_loss(half, wqe, usize::MAX);
    }

    /// Rings with BlueFlame as [`Self::ring_with`] does, but without the store of index `lost`.
    pub fn ring_with_loss(&self, half: u64, wqe: &[u8], lost: usize) {
        self.publish();
        let mut copied = wqe.to_vec();
        copied.resize(wqe.len().next_multiple_of(SEND_WQE_BB), 0);
        let register = u64::from(self.uar) * 4096 + DOORBELL + half * BLUE_FLAME_BUFFER;
        for (index, (at, store)) in (register..).step_by(8).zip(copied.as_chunks::<8>().0).enumerate() {
            if index != lost {
                self.machine.write_pair(at, *store);
            }
        }
    }

    /// The WQE of a request, for the next index.
    pub fn wqe(&self, request: &Request) -> Vec<u8> {
        request.wqe(self.number, self.sent)
    }

    /// Writes any values to the doorbell record.
    pub fn set_records(&self, receives: u32, sends: u32) {
        self.record.store(0, receives);
        self.record.store(4, sends);
    }

    /// Posts a request and rings the doorbell. Returns its WQE counter.
    pub fn post(&mut self, request: &Request) -> u16 {
        let counter = self.put(request);
        self.ring();
        counter
    }

    /// Posts a receive. Returns its WQE counter.
    pub fn receive(&mut self, scatter: &[Scatter]) -> u16 {
        self.receive_bytes(&scatter_list(scatter, 4))
    }

    /// Posts the bytes of a receive WQE. Returns its WQE counter.
    pub fn receive_bytes(&mut self, wqe: &[u8]) -> u16 {
        let index = u64::from(self.posted) & ((1 << self.shape.log_rq) - 1);
        self.buffer.write(index << LOG_RQ_STRIDE, wqe);
        let counter = self.posted;
        self.posted = self.posted.wrapping_add(1);
        self.record.store(0, self.posted.into());
        counter
    }

    /// Waits for the successful completion of a request.
    #[track_caller]
    pub fn sent(&mut self, opcode: WqeOpcode, counter: u16) -> Cqe {
        let cqe = self.send_cq.wait();
        self.send_cq.release();
        assert_eq!(cq::error_of(&cqe), None, "{cqe:02x?}");
        assert_eq!(cqe.op_own >> 4, CqeOpcode::Request as u8, "{cqe:02x?}");
        assert_eq!(cqe.wqe_counter.get(), counter);
        assert_eq!(cqe.sop_drop_qpn.get(), (opcode as u32) << 24 | self.number);
        assert_eq!(cqe.srqn_uidx.get(), 0x12_3456);
        cqe
    }

    /// Waits for the successful completion of a receive.
    #[track_caller]
    pub fn received(&mut self, opcode: CqeOpcode, counter: u16, length: usize) -> Cqe {
        let cqe = self.receive_cq.wait();
        self.receive_cq.release();
        assert_eq!(cq::error_of(&cqe), None, "{cqe:02x?}");
        assert_eq!(cqe.op_own >> 4, opcode as u8, "{cqe:02x?}");
        assert_eq!(cqe.wqe_counter.get(), counter);
        assert_eq!(cqe.sop_drop_qpn.get() & 0xff_ffff, self.number);
        assert_eq!(cqe.byte_count.get() as usize, length);
        cqe
    }

    /// Waits for the error completion of a request. Returns its syndrome.
    #[track_caller]
    pub fn send_error(&mut self, counter: u16) -> u8 {
        let cqe = self.send_cq.wait();
        self.send_cq.release();
        assert_eq!(cqe.op_own >> 4, CqeOpcode::RequestError as u8, "{cqe:02x?}");
        let (syndrome, wqe) = cq::error_of(&cqe).unwrap();
        assert_eq!(wqe, counter);
        syndrome
    }

    /// Waits for the error completion of a receive. Returns its syndrome.
    #[track_caller]
    pub fn receive_error(&mut self, counter: u16) -> u8 {
        let cqe = self.receive_cq.wait();
        self.receive_cq.release();
        assert_eq!(cqe.op_own >> 4, CqeOpcode::ResponderError as u8, "{cqe:02x?}");
        let (syndrome, wqe) = cq::error_of(&cqe).unwrap();
        assert_eq!(wqe, counter);
        syndrome
    }

    /// Panics if there is a completion.
    #[track_caller]
    pub fn silent(&mut self) {
        assert!(self.send_cq.poll().is_none() && self.receive_cq.poll().is_none());
    }
}

/// Q_Key of datagrams.
pub const Q_KEY: u32 = 0x1111_1111;

/// Connects two queue pairs.
pub fn connect(a: (&Node, &QueuePair), b: (&Node, &QueuePair), how: &Connection) {
    a.1.connect(a.0, b.0, b.1.number, how).unwrap();
    b.1.connect(b.0, a.0, a.1.number, &how.reverse()).unwrap();
}

/// TClass of address paths of RoCE v1.
pub const V1_TRAFFIC_CLASS: u8 = 0x6a;
/// FlowLabel of address paths of RoCE v1.
pub const V1_FLOW_LABEL: u32 = 0x5_4321;

/// Address vector of a datagram to a queue pair over RoCE v1.
pub fn v1_address(peer: &Node, qpn: u32, q_key: u32) -> AddressVector {
    let mut vector = address(peer, qpn, q_key);
    // The driver leaves it 0 (`mlx5_get_roce_udp_sport_min`).
    vector.udp_sport.set(0);
    vector.tclass = V1_TRAFFIC_CLASS;
    let index = u32::from(V1_GID_INDEX) << 20;
    vector.grh_gid_fl.set(AddressVector::GRH | index | V1_FLOW_LABEL);
    vector
}

/// Address vector of a datagram to a queue pair.
pub fn address(peer: &Node, qpn: u32, q_key: u32) -> AddressVector {
    let mut vector = AddressVector::default();
    vector.qkey.set(q_key);
    vector.dqp_dct.set(AddressVector::EXTENDED | qpn);
    vector.udp_sport.set(0xc321);
    vector.rmac = peer.mac;
    vector.hop_limit = 64;
    vector.grh_gid_fl.set(AddressVector::GRH | u32::from(GID_INDEX) << 20);
    vector.rgid = peer.gid;
    vector
}
