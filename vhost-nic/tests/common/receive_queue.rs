//! Receive queues: rings of scatter lists, a frame each (`core/en_rx.c`, cyclic).

use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::{Cqe, CqeOpcode};
use mlx5_prm::wq::{
    CreateRqIn, CreateRqOut, DestroyRqIn, DestroyRqOut, ModifyRqIn, ModifyRqOut, QueryRqIn, QueryRqOut, Rqc,
};
use mlx5_prm::wqe::{DataSegment, INVALID_LKEY};
use zerocopy::IntoBytes;

use super::buffer::Buffer;
use super::command::Result;
use super::completion_queue::CompletionQueue;
use super::hca::Hca;
use super::memory::Block;

/// What a byte of a receive buffer is before anything was received.
const UNTOUCHED: u8 = 0xa5;

/// How a receive queue is to be.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Log2 of the number of WQEs.
    pub log_size: u8,
    /// Lengths in bytes of the parts of a WQE's buffer.
    pub parts: Vec<u32>,
    /// The set of queue counters, or 0.
    pub counters: u8,
    /// Whether VLAN tags stay in the frames.
    pub keep_vlan: bool,
}

/// A receive queue.
pub struct ReceiveQueue {
    /// Its number.
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
    /// A queue that completes to `cq` and uses memory key `key`. It is in reset.
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

    /// Brings it from one state to another.
    pub fn modify(&self, hca: &Hca, from: u8, to: u8) -> Result<()> {
        let mut input = ModifyRqIn::default();
        input.set_rqn(self.number);
        input.set_rq_state(from);
        input.ctx_mut().set_state(to);
        hca.commands.call::<_, ModifyRqOut>(Opcode::MODIFY_RQ, &input).map(drop)
    }

    /// Its context in the device.
    pub fn query(&self, hca: &Hca) -> Result<Rqc> {
        let mut input = QueryRqIn::default();
        input.set_rqn(self.number);
        hca.commands
            .call(Opcode::QUERY_RQ, &input)
            .map(|output: QueryRqOut| output.rq_context().clone())
    }

    /// Destroys it in the device.
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

    /// WQEs the device can use.
    pub fn available(&self) -> u16 {
        self.posted.wrapping_sub(self.received)
    }

    /// Posts as many WQEs as there is room for.
    pub fn fill(&mut self) {
        self.post(self.size() - self.available());
    }

    /// Posts some WQEs.
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

    /// Writes a scatter list.
    pub fn write_wqe(&self, index: u16, list: &[DataSegment]) {
        self.ring.write(u64::from(index) << self.log_stride, list.as_bytes());
    }

    /// Forgets what was posted, after a reset of the queue.
    pub fn forget(&mut self) {
        (self.posted, self.received) = (0, 0);
        self.record.store(0, 0);
    }

    /// The frame that a completion tells of, after checks of what the driver relies on. Its WQE is free then.
    #[track_caller]
    pub fn take(&mut self, cqe: &Cqe) -> Vec<u8> {
        assert_eq!(cqe.op_own >> 4, CqeOpcode::ResponderSend as u8, "{cqe:?}");
        assert_eq!(cqe.wqe_counter.get(), self.received, "WQEs are used in order");
        let buffer = &self.buffers[usize::from(self.received % self.size())];
        let mut rest = cqe.byte_count.get() as usize;
        let mut frame = Vec::with_capacity(rest);
        for (block, &length) in buffer.iter().zip(&self.shape.parts) {
            let here = rest.min(length as usize);
            let bytes = block.read(0, block.length() as usize);
            frame.extend_from_slice(&bytes[..here]);
            assert!(
                bytes[here..].iter().all(|&byte| byte == UNTOUCHED),
                "nothing is written behind the frame"
            );
            rest -= here;
        }
        assert_eq!(rest, 0, "the frame fits");
        self.received = self.received.wrapping_add(1);
        frame
    }

    /// The guest addresses of its ring's pages and of its doorbell record.
    pub fn addresses(&self) -> (Vec<u64>, u64) {
        (self.ring.addresses(), self.record.address())
    }

    /// The guest address of the first part of a WQE's buffer.
    pub fn buffer_address(&self, index: u16) -> u64 {
        self.buffers[usize::from(index)][0].address()
    }
}

/// A data segment.
pub fn segment(address: u64, length: u32, key: u32) -> DataSegment {
    let mut segment = DataSegment::default();
    segment.byte_count.set(length);
    segment.lkey.set(key);
    segment.address.set(address);
    segment
}
