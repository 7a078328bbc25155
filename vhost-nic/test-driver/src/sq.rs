//! Send queues of an Ethernet driver (`core/en_tx.c`, `core/en/txrx.h`).

use std::sync::Arc;

use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::{Cqe, CqeOpcode};
use mlx5_prm::wq::{
    CreateSqIn, CreateSqOut, DestroySqIn, DestroySqOut, ModifySqIn, ModifySqOut, QuerySqIn, QuerySqOut, Sqc,
};
use mlx5_prm::wqe::{ControlSegment, DataSegment, EthernetSegment, SEND_WQE_BB, SEND_WQE_DS, WqeOpcode};
use zerocopy::IntoBytes;

use crate::buffer::Buffer;
use crate::command::Result;
use crate::cq::CompletionQueue;
use crate::hca::Hca;
use crate::machine::Machine;
use crate::memory::Block;

/// Send doorbell of a UAR page (`MLX5_BF_OFFSET`).
const DOORBELL: u64 = 0x800;
/// Offset of the send producer index in a doorbell record (`MLX5_SND_DBR`).
const SEND_RECORD: u64 = 4;
/// States of send and receive queues (`MLX5_SQC_STATE_*`, `MLX5_RQC_STATE_*`).
pub mod state {
    /// RST.
    pub const RESET: u8 = 0;
    /// RDY.
    pub const READY: u8 = 1;
    /// ERR.
    pub const ERROR: u8 = 3;
}

/// A frame to send, or a super-packet (LSO).
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// Inline header.
    pub inline: &'a [u8],
    /// Addresses and bytes of the data segments.
    pub data: &'a [(u64, u32)],
    /// Checksum offloads (`cs_flags`); see [`EthernetSegment`].
    pub checksums: u8,
    /// Maximum segment size for LSO, or 0.
    pub mss: u16,
    /// VLAN tag to insert.
    pub vlan: Option<u16>,
    /// Whether it is unsignaled.
    pub silent: bool,
}

/// A send queue.
pub struct SendQueue {
    /// SQ number.
    pub number: u32,
    machine: Arc<Machine>,
    buffer: Buffer,
    record: Block,
    producer: u16,
    key: u32,
    uar: u32,
}

impl SendQueue {
    /// Creates a queue of `1 << log_size` basic blocks, in RST, that completes to `cq` and uses memory key `key`.
    pub fn create(hca: &Hca, cq: &CompletionQueue, tisn: Option<u32>, pd: u32, key: u32, log_size: u8) -> Result<Self> {
        let memory = &hca.machine.memory;
        let (buffer, record) = (
            Buffer::new(memory, (SEND_WQE_BB as u64) << log_size),
            memory.allocate(8),
        );
        let mut input = CreateSqIn::default();
        let context = input.ctx_mut();
        context.set_cqn(cq.number);
        context.set_tis_lst_sz(tisn.is_some().into());
        context.set_tis_num_0(tisn.unwrap_or(0));
        context.set_flush_in_error_en(true);
        let wq = context.wq_mut();
        wq.set_wq_type(1);
        wq.set_pd(pd);
        wq.set_uar_page(hca.uar);
        wq.set_dbr_addr(record.address());
        wq.set_log_wq_stride(SEND_WQE_BB.ilog2() as u8);
        wq.set_log_wq_sz(log_size);
        let (output, _): (CreateSqOut, _) =
            hca.commands
                .call_with(Opcode::CREATE_SQ, 0, &input, &buffer.page_list(), 0)?;
        let machine = Arc::clone(&hca.machine);
        Ok(Self {
            number: output.sqn(),
            machine,
            buffer,
            record,
            producer: 0,
            key,
            uar: hca.uar,
        })
    }

    /// Moves it from one state to another.
    pub fn modify(&self, hca: &Hca, from: u8, to: u8) -> Result<()> {
        let mut input = ModifySqIn::default();
        input.set_sqn(self.number);
        input.set_sq_state(from);
        input.ctx_mut().set_state(to);
        hca.commands.call::<_, ModifySqOut>(Opcode::MODIFY_SQ, &input).map(drop)
    }

    /// Queries its context.
    pub fn query(&self, hca: &Hca) -> Result<Sqc> {
        let mut input = QuerySqIn::default();
        input.set_sqn(self.number);
        hca.commands
            .call(Opcode::QUERY_SQ, &input)
            .map(|output: QuerySqOut| output.sq_context().clone())
    }

    /// Destroys the queue in the device.
    pub fn destroy(&self, hca: &Hca) -> Result<()> {
        let mut input = DestroySqIn::default();
        input.set_sqn(self.number);
        hca.commands
            .call::<_, DestroySqOut>(Opcode::DESTROY_SQ, &input)
            .map(drop)
    }

    /// Producer index in basic blocks.
    pub fn producer(&self) -> u16 {
        self.producer
    }

    /// Guest address of the send producer index.
    pub fn record(&self) -> u64 {
        self.record.address() + SEND_RECORD
    }

    /// Clears the producer index, after a reset of the queue.
    pub fn forget(&mut self) {
        self.producer = 0;
        self.record.store(SEND_RECORD, 0);
    }

    /// Posts a frame and rings the doorbell. Returns its WQE counter.
    pub fn send(&mut self, request: &Request<'_>) -> u16 {
        let wqe = self.wqe(request);
        self.post(&wqe)
    }

    /// Posts a NOP and rings the doorbell. Returns its WQE counter.
    pub fn nop(&mut self) -> u16 {
        let control = self.control(WqeOpcode::Nop as u8, SEND_WQE_DS, false);
        self.post(control.as_bytes())
    }

    /// The WQE of a frame, for the next index.
    pub fn wqe(&self, request: &Request<'_>) -> Vec<u8> {
        let mut ethernet = EthernetSegment {
            cs_flags: request.checksums,
            ..Default::default()
        };
        ethernet.mss.set(request.mss);
        let inline = match request.vlan {
            Some(tag) => {
                assert!(
                    request.inline.is_empty(),
                    "inline header and VLAN insertion exclude each other"
                );
                ethernet.inline_header_size.set(EthernetSegment::INSERT_VLAN);
                ethernet.inline_header_start = tag.to_be_bytes();
                &[]
            }
            None => request.inline,
        };
        let mut body = ethernet.as_bytes().to_vec();
        if !inline.is_empty() {
            body[12..14].copy_from_slice(&(inline.len() as u16).to_be_bytes());
            body.truncate(EthernetSegment::INLINE_HEADER_START);
            body.extend_from_slice(inline);
            body.resize(
                body.len()
                    .max(size_of::<EthernetSegment>())
                    .next_multiple_of(SEND_WQE_DS),
                0,
            );
        }
        for &(address, length) in request.data {
            let mut segment = DataSegment::default();
            segment.byte_count.set(length);
            segment.lkey.set(self.key);
            segment.address.set(address);
            body.extend_from_slice(segment.as_bytes());
        }
        let opcode = if request.mss == 0 {
            WqeOpcode::Send
        } else {
            WqeOpcode::Lso
        };
        let control = self.control(opcode as u8, SEND_WQE_DS + body.len(), request.silent);
        [control.as_bytes(), &body].concat()
    }

    /// The control segment of a WQE of `length` bytes, for the next index.
    pub fn control(&self, opcode: u8, length: usize, silent: bool) -> ControlSegment {
        let mut control = ControlSegment::default();
        control
            .opmod_idx_opcode
            .set(u32::from(self.producer) << 8 | u32::from(opcode));
        control.qpn_ds.set(self.number << 8 | (length / SEND_WQE_DS) as u32);
        control.fm_ce_se = if silent { 0 } else { ControlSegment::CQ_UPDATE };
        control
    }

    /// Posts a WQE and rings the doorbell. Returns its WQE counter.
    pub fn post(&mut self, wqe: &[u8]) -> u16 {
        let counter = self.put(wqe);
        self.ring(*wqe.first_chunk().unwrap());
        counter
    }

    /// Writes a WQE to the ring, without the doorbell. Returns its WQE counter.
    pub fn put(&mut self, wqe: &[u8]) -> u16 {
        let counter = self.producer;
        self.buffer.write(u64::from(counter) * SEND_WQE_BB as u64, wqe);
        self.producer = counter.wrapping_add(wqe.len().div_ceil(SEND_WQE_BB) as u16);
        counter
    }

    /// Rings the doorbell for everything in the ring; `value` is the start of the last WQE.
    pub fn ring(&self, value: [u8; 8]) {
        self.set_record(self.producer.into());
        self.machine.write_pair(u64::from(self.uar) * 4096 + DOORBELL, value);
    }

    /// Writes a producer index to the doorbell record.
    pub fn set_record(&self, producer: u32) {
        self.record.store(SEND_RECORD, producer);
    }

    /// Guest addresses of the pages and of the doorbell record.
    pub fn addresses(&self) -> (Vec<u64>, u64) {
        (self.buffer.addresses(), self.record.address())
    }

    /// Checks the fields of the successful completion of WQE `counter`.
    #[track_caller]
    pub fn check(&self, cqe: &Cqe, opcode: WqeOpcode, counter: u16) {
        assert_eq!(cqe.op_own >> 4, CqeOpcode::Request as u8, "{cqe:?}");
        assert_eq!(cqe.wqe_counter.get(), counter);
        assert_eq!(cqe.sop_drop_qpn.get(), (opcode as u32) << 24 | self.number);
    }
}
