//! Receive queues of an Ethernet driver: a scatter list for every frame (`core/en_rx.c`, cyclic).

use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::{Cqe, CqeOpcode};
use mlx5_prm::wq::{
    CreateRqIn, CreateRqOut, DestroyRqIn, DestroyRqOut, ModifyRqIn, ModifyRqOut, QueryRqIn, QueryRqOut, Rqc,
};
use mlx5_prm::wqe::{DataSegment, INVALID_LKEY};
use zerocopy::IntoBytes;

use crate::buffer::Buffer;
use crate::command::Result;
use crate::cq::CompletionQueue;
use crate::hca::Hca;
use crate::memory::Block;

/// Fill pattern of receive buffers.
const UNTOUCHED: u8 = 0xa5;

/// Properties of a receive queue.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Log2 of the number of WQEs.
    pub log_size: u8,
    /// Bytes of each data segment of a WQE.
    pub parts: Vec<u32>,
    /// Queue counter set, or 0.
    pub counters: u8,
    /// VLAN stripping disable (`vsd`).
    pub keep_vlan: bool,
}

/// A receive queue.
pub struct ReceiveQueue {
    /// RQ number.
    pub number: u32,
    shape: Shape,
    ring: Buffer,
    record: Block,
    buffers: Vec<Vec<Block>>,
    log_stride: u8,
    posted: u16,
    received: u16,
    key: u32,
}

impl ReceiveQueue {
    /// Creates a queue, in RST, that completes to `cq` and uses memory key `key`.
    pub fn create(hca: &Hca, cq: &CompletionQueue, pd: u32, key: u32, shape: Shape) -> Result<Self> {
        let memory = &hca.machine.memory;
        let log_stride = (shape.parts.len() * size_of::<DataSegment>())
            .next_power_of_two()
            .ilog2() as u8;
        let (ring, record) = (
            Buffer::new(memory, 1 << (shape.log_size + log_stride)),
            memory.allocate(8),
        );
        let buffers = (0..1 << shape.log_size)
            .map(|_| {
                shape
                    .parts
                    .iter()
                    .map(|&length| memory.allocate(u64::from(length) + 16))
                    .collect()
            })
            .collect();
        let mut input = CreateRqIn::default();
        let context = input.ctx_mut();
        context.set_cqn(cq.number);
        context.set_vsd(shape.keep_vlan);
        context.set_flush_in_error_en(true);
        context.set_counter_set_id(shape.counters);
        let wq = context.wq_mut();
        wq.set_wq_type(1);
        wq.set_pd(pd);
        wq.set_dbr_addr(record.address());
        wq.set_log_wq_stride(log_stride);
        wq.set_log_wq_sz(shape.log_size);
        let (output, _): (CreateRqOut, _) =
            hca.commands
                .call_with(Opcode::CREATE_RQ, 0, &input, &ring.page_list(), 0)?;
        let number = output.rqn();
        Ok(Self {
            number,
            shape,
            ring,
            record,
            buffers,
            log_stride,
            posted: 0,
            received: 0,
            key,
        })
    }

    /// Moves it from one state to another.
    pub fn modify(&self, hca: &Hca, from: u8, to: u8) -> Result<()> {
        let mut input = ModifyRqIn::default();
        input.set_rqn(self.number);
        input.set_rq_state(from);
        input.ctx_mut().set_state(to);
        hca.commands.call::<_, ModifyRqOut>(Opcode::MODIFY_RQ, &input).map(drop)
    }

    /// Queries its context.
    pub fn query(&self, hca: &Hca) -> Result<Rqc> {
        let mut input = QueryRqIn::default();
        input.set_rqn(self.number);
        hca.commands
            .call(Opcode::QUERY_RQ, &input)
            .map(|output: QueryRqOut| output.rq_context().clone())
    }

    /// Destroys the queue in the device.
    pub fn destroy(&self, hca: &Hca) -> Result<()> {
        let mut input = DestroyRqIn::default();
        input.set_rqn(self.number);
        hca.commands
            .call::<_, DestroyRqOut>(Opcode::DESTROY_RQ, &input)
            .map(drop)
    }

    /// Number of WQEs.
    pub fn size(&self) -> u16 {
        1 << self.shape.log_size
    }

    /// WQEs posted and not consumed.
    pub fn available(&self) -> u16 {
        self.posted.wrapping_sub(self.received)
    }

    /// Posts WQEs until the ring is full.
    pub fn fill(&mut self) {
        self.post(self.size() - self.available());
    }

    /// Posts `count` WQEs.
    pub fn post(&mut self, count: u16) {
        for _ in 0..count {
            let index = self.posted % self.size();
            let mut list: Vec<DataSegment> = Vec::new();
            for (block, &length) in self.buffers[usize::from(index)].iter().zip(&self.shape.parts) {
                block.write(0, &vec![UNTOUCHED; block.length() as usize]);
                list.push(segment(block.address(), length, self.key));
            }
            if list.len() * size_of::<DataSegment>() < 1 << self.log_stride {
                list.push(segment(0, 0, INVALID_LKEY));
            }
            self.write_wqe(index, &list);
            self.posted = self.posted.wrapping_add(1);
        }
        self.record.store(0, self.posted.into());
    }

    /// Writes a scatter list to a WQE of the ring.
    pub fn write_wqe(&self, index: u16, list: &[DataSegment]) {
        self.ring.write(u64::from(index) << self.log_stride, list.as_bytes());
    }

    /// Clears the indices, after a reset of the queue.
    pub fn forget(&mut self) {
        (self.posted, self.received) = (0, 0);
        self.record.store(0, 0);
    }

    /// Takes the frame of a completion and frees its WQE. Checks the order of WQEs, and that nothing is written after
    /// the frame.
    #[track_caller]
    pub fn take(&mut self, cqe: &Cqe) -> Vec<u8> {
        assert_eq!(cqe.op_own >> 4, CqeOpcode::ResponderSend as u8, "{cqe:?}");
        assert_eq!(cqe.wqe_counter.get(), self.received, "WQEs are consumed out of order");
        let buffer = &self.buffers[usize::from(self.received % self.size())];
        let mut rest = cqe.byte_count.get() as usize;
        let mut frame = Vec::with_capacity(rest);
        for (block, &length) in buffer.iter().zip(&self.shape.parts) {
            let here = rest.min(length as usize);
            let bytes = block.read(0, block.length() as usize);
            frame.extend_from_slice(&bytes[..here]);
            assert!(
                bytes[here..].iter().all(|&byte| byte == UNTOUCHED),
                "bytes after the frame were written"
            );
            rest -= here;
        }
        assert_eq!(rest, 0, "the frame is longer than its buffer");
        self.received = self.received.wrapping_add(1);
        frame
    }

    /// Guest addresses of the pages and of the doorbell record.
    pub fn addresses(&self) -> (Vec<u64>, u64) {
        (self.ring.addresses(), self.record.address())
    }

    /// Guest address of the first data segment of a WQE.
    pub fn buffer_address(&self, index: u16) -> u64 {
        self.buffers[usize::from(index)][0].address()
    }
}

/// Builds a data segment.
pub fn segment(address: u64, length: u32, key: u32) -> DataSegment {
    let mut segment = DataSegment::default();
    segment.byte_count.set(length);
    segment.lkey.set(key);
    segment.address.set(address);
    segment
}
