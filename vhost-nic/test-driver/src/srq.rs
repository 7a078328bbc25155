//! Shared receive queues: RMP and XRC SRQ (`core/` and `mlx5_ib/srq.c`, `srq_cmd.c`).

use mlx5_prm::opcode::Opcode;
use mlx5_prm::wq::*;
use mlx5_prm::wqe::NextSegment;
use zerocopy::IntoBytes;

use crate::buffer::Buffer;
use crate::command::Result;
use crate::cq::CompletionQueue;
use crate::hca::Hca;
use crate::memory::{Block, PAGE};
use crate::request::{Scatter, scatter_list};

/// Log2 of the bytes of a WQE: a next segment and three data segments.
const LOG_STRIDE: u8 = 6;

enum Kind {
    Rmp,
    Xrc,
}

/// A shared receive queue.
pub struct Srq {
    /// RMP or XRC SRQ number.
    pub number: u32,
    kind: Kind,
    buffer: Buffer,
    record: Block,
    log_size: u8,
    posted: u16,
}

impl Srq {
    /// Creates a receive memory pool.
    pub fn rmp(hca: &Hca, pd: u32, log_size: u8) -> Result<Self> {
        let memory = &hca.machine.memory;
        let (buffer, record) = (Buffer::new(memory, 1 << (log_size + LOG_STRIDE)), memory.allocate(8));
        let mut input = CreateRmpIn::default();
        input.ctx_mut().set_state(1);
        let wq = input.ctx_mut().wq_mut();
        wq.set_pd(pd);
        wq.set_dbr_addr(record.address());
        wq.set_log_wq_stride(LOG_STRIDE);
        wq.set_log_wq_sz(log_size);
        let (output, _): (CreateRmpOut, _) =
            hca.commands
                .call_with(Opcode::CREATE_RMP, 0, &input, &buffer.page_list(), 0)?;
        Ok(Self {
            number: output.rmpn(),
            kind: Kind::Rmp,
            buffer,
            record,
            log_size,
            posted: 0,
        })
    }

    /// Creates an XRC SRQ.
    pub fn xrc(hca: &Hca, pd: u32, xrcd: u32, cq: &CompletionQueue, log_size: u8) -> Result<Self> {
        Self::xrc_at(hca, pd, xrcd, cq, log_size, (0, 0))
    }

    /// Creates an XRC SRQ in large pages: `log_page_size` is relative to 4 KiB, `page_offset` in units of 1/64 page.
    pub fn xrc_at(
        hca: &Hca,
        pd: u32,
        xrcd: u32,
        cq: &CompletionQueue,
        log_size: u8,
        (log_page_size, page_offset): (u8, u8),
    ) -> Result<Self> {
        let memory = &hca.machine.memory;
        let page = PAGE << log_page_size;
        let start = page / 64 * u64::from(page_offset);
        let buffer = Buffer::in_pages(memory, 1 << (log_size + LOG_STRIDE), page, start);
        let record = memory.allocate(8);
        let mut input = CreateXrcSrqIn::default();
        let context = input.xrc_srq_context_entry_mut();
        context.set_log_xrc_srq_size(log_size);
        context.set_log_rq_stride(LOG_STRIDE - 4);
        context.set_log_page_size(log_page_size);
        context.set_page_offset(page_offset);
        context.set_xrcd(xrcd);
        context.set_cqn(cq.number);
        context.set_pd(pd);
        context.set_user_index(0xabcd);
        context.set_db_record_addr_h((record.address() >> 32) as u32);
        context.set_db_record_addr_l(record.address() as u32 >> 2);
        let (output, _): (CreateXrcSrqOut, _) =
            hca.commands
                .call_with(Opcode::CREATE_XRC_SRQ, 0, &input, &buffer.page_list(), 0)?;
        Ok(Self {
            number: output.xrc_srqn(),
            kind: Kind::Xrc,
            buffer,
            record,
            log_size,
            posted: 0,
        })
    }

    /// Posts a receive. Returns its WQE index, the counter of its completion.
    pub fn post(&mut self, scatter: &[Scatter]) -> u16 {
        let mask = (1 << self.log_size) - 1;
        let index = self.posted & mask;
        let mut next = NextSegment::default();
        next.next_wqe_index.set((index + 1) & mask);
        self.post_bytes(&[next.as_bytes(), &scatter_list(scatter, 3)].concat());
        index
    }

    /// Posts the bytes of a WQE.
    pub fn post_bytes(&mut self, wqe: &[u8]) {
        let index = self.posted & ((1 << self.log_size) - 1);
        self.buffer.write(u64::from(index) << LOG_STRIDE, wqe);
        self.posted = self.posted.wrapping_add(1);
        self.record.store(0, self.posted.into());
    }

    /// Arms the limit event: fewer than `limit` receives left.
    pub fn arm(&self, hca: &Hca, limit: u16) -> Result<()> {
        match self.kind {
            Kind::Rmp => {
                let mut input = ModifyRmpIn::default();
                input.set_rmpn(self.number);
                input.set_rmp_state(1);
                input.bitmask_mut().set_lwm(true);
                input.ctx_mut().set_state(1);
                input.ctx_mut().wq_mut().set_lwm(limit);
                hca.commands
                    .call::<_, ModifyRmpOut>(Opcode::MODIFY_RMP, &input)
                    .map(drop)
            }
            Kind::Xrc => {
                let mut input = ArmXrcSrqIn::default();
                input.set_op_mod(1);
                input.set_xrc_srqn(self.number);
                input.set_lwm(limit);
                hca.commands
                    .call::<_, ArmXrcSrqOut>(Opcode::ARM_XRC_SRQ, &input)
                    .map(drop)
            }
        }
    }

    /// Returns the limit at which the event is raised, 0 if it is not armed.
    pub fn limit(&self, hca: &Hca) -> Result<u16> {
        match self.kind {
            Kind::Rmp => {
                let mut input = QueryRmpIn::default();
                input.set_rmpn(self.number);
                let output: QueryRmpOut = hca.commands.call(Opcode::QUERY_RMP, &input)?;
                Ok(output.rmp_context().wq().lwm())
            }
            Kind::Xrc => {
                let mut input = QueryXrcSrqIn::default();
                input.set_xrc_srqn(self.number);
                let output: QueryXrcSrqOut = hca.commands.call(Opcode::QUERY_XRC_SRQ, &input)?;
                Ok(output.xrc_srq_context_entry().lwm())
            }
        }
    }

    /// Whether the queue is in error, by its context.
    pub fn is_in_error(&self, hca: &Hca) -> Result<bool> {
        match self.kind {
            Kind::Rmp => {
                let mut input = QueryRmpIn::default();
                input.set_rmpn(self.number);
                let output: QueryRmpOut = hca.commands.call(Opcode::QUERY_RMP, &input)?;
                Ok(output.rmp_context().state() == 3)
            }
            Kind::Xrc => {
                let mut input = QueryXrcSrqIn::default();
                input.set_xrc_srqn(self.number);
                let output: QueryXrcSrqOut = hca.commands.call(Opcode::QUERY_XRC_SRQ, &input)?;
                Ok(output.xrc_srq_context_entry().state() == 1)
            }
        }
    }

    /// Destroys the queue in the device.
    pub fn destroy(&self, hca: &Hca) -> Result<()> {
        match self.kind {
            Kind::Rmp => {
                let mut input = DestroyRmpIn::default();
                input.set_rmpn(self.number);
                hca.commands
                    .call::<_, DestroyRmpOut>(Opcode::DESTROY_RMP, &input)
                    .map(drop)
            }
            Kind::Xrc => {
                let mut input = DestroyXrcSrqIn::default();
                input.set_xrc_srqn(self.number);
                hca.commands
                    .call::<_, DestroyXrcSrqOut>(Opcode::DESTROY_XRC_SRQ, &input)
                    .map(drop)
            }
        }
    }
}
