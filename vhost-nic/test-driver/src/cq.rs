//! Completion queues (`core/cq.c`, `core/wq.h`).

use mlx5_prm::cq::{
    Cqc, CreateCqIn, CreateCqOut, DestroyCqIn, DestroyCqOut, ModifyCqIn, ModifyCqOut, QueryCqIn, QueryCqOut,
};
use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::{Cqe, CqeOpcode, MiniCqe};
use zerocopy::FromBytes;

use crate::buffer::Buffer;
use crate::command::Result;
use crate::cqe_session::{Compressed, MiniFormat, Session};
use crate::hca::Hca;
use crate::memory::Block;
use crate::wait::await_some;

/// CQ doorbell register of a UAR page (`MLX5_CQ_DOORBELL`).
const CQ_ARM: u64 = 0x20;
/// `MLX5_CQ_DB_REQ_NOT_SOL`: request an event for solicited completions only.
const SOLICITED_ONLY: u32 = 1 << 24;
/// `op_own` of an entry that was never written.
const INVALID: u8 = (CqeOpcode::Invalid as u8) << 4 | 1;
/// `MLX5_CQ_OPMOD_RESIZE`.
const RESIZE: u16 = 1;
/// `MLX5_CQ_MODIFY_PERIOD`, `MLX5_CQ_MODIFY_COUNT`.
const MODIFY_PERIOD: u32 = 1 << 0;
const MODIFY_COUNT: u32 = 1 << 1;
/// Bytes of a completion, the upper half of an entry of 128 bytes.
const CQE: u64 = size_of::<Cqe>() as u64;

/// Properties of a completion queue.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Log2 of the number of entries.
    pub log_size: u8,
    /// Whether entries have 128 bytes (`cqe_sz`).
    pub large: bool,
    /// Overrun ignore (`oi`).
    pub overrun_ignored: bool,
    /// Content of mini CQEs, if completions may be compressed.
    pub compression: Option<MiniFormat>,
}

impl Shape {
    /// Entries of 64 bytes, overrun detected.
    pub fn plain(log_size: u8) -> Self {
        Self {
            log_size,
            large: false,
            overrun_ignored: false,
            compression: None,
        }
    }

    fn entry(self) -> u64 {
        if self.large { 2 * CQE } else { CQE }
    }

    fn buffer(self, hca: &Hca) -> Buffer {
        let buffer = Buffer::new(&hca.machine.memory, self.entry() << self.log_size);
        for index in 0..1 << self.log_size {
            buffer.write((index + 1) * self.entry() - 1, &[INVALID]);
        }
        buffer
    }
}

/// A completion queue.
pub struct CompletionQueue {
    /// CQ number.
    pub number: u32,
    shape: Shape,
    buffer: Buffer,
    record: Block,
    consumer: u32,
    session: Session,
    counts: Compressed,
    events: u32,
    uar: u32,
}

impl CompletionQueue {
    /// Creates a queue that reports to event queue `eqn`.
    pub fn create(hca: &Hca, eqn: u8, shape: Shape) -> Result<Self> {
        let (buffer, record) = (shape.buffer(hca), hca.machine.memory.allocate(8));
        let mut input = CreateCqIn::default();
        let context = input.cq_context_mut();
        context.set_log_cq_size(shape.log_size);
        context.set_cqe_sz(shape.large.into());
        context.set_oi(shape.overrun_ignored);
        if let Some(format) = shape.compression {
            context.set_cqe_comp_en(true);
            context.set_mini_cqe_res_format(format as u8);
        }
        context.set_uar_page(hca.uar);
        context.set_c_eqn_or_apu_element(eqn.into());
        context.set_dbr_addr(record.address());
        let (output, _): (CreateCqOut, _) =
            hca.commands
                .call_with(Opcode::CREATE_CQ, 0, &input, &buffer.page_list(), 0)?;
        Ok(Self {
            number: output.cqn(),
            shape,
            buffer,
            record,
            consumer: 0,
            session: Session::default(),
            counts: Compressed::default(),
            events: 0,
            uar: hca.uar,
        })
    }

    /// Destroys the queue in the device.
    pub fn destroy(&self, hca: &Hca) -> Result<()> {
        let mut input = DestroyCqIn::default();
        input.set_cqn(self.number);
        hca.commands
            .call::<_, DestroyCqOut>(Opcode::DESTROY_CQ, &input)
            .map(drop)
    }

    /// Queries its context.
    pub fn query(&self, hca: &Hca) -> Result<Cqc> {
        let mut input = QueryCqIn::default();
        input.set_cqn(self.number);
        hca.commands
            .call::<_, QueryCqOut>(Opcode::QUERY_CQ, &input)
            .map(|output| output.cq_context().clone())
    }

    /// Resizes the queue. Returns the completions that were left in the old buffer.
    pub fn resize(&mut self, hca: &Hca, log_size: u8) -> Result<Vec<Cqe>> {
        let shape = Shape { log_size, ..self.shape };
        let buffer = shape.buffer(hca);
        let mut input = ModifyCqIn::default();
        input.set_cqn(self.number);
        let context = input.cq_context_mut();
        context.set_log_cq_size(log_size);
        context.set_cqe_sz(shape.large.into());
        hca.commands
            .call_with::<_, ModifyCqOut>(Opcode::MODIFY_CQ, RESIZE, &input, &buffer.page_list(), 0)?;
        let mut rest = Vec::new();
        loop {
            let cqe = await_some("the resize CQE that ends the old buffer", || self.poll());
            if cqe.op_own >> 4 == CqeOpcode::ResizeCq as u8 {
                break;
            }
            rest.push(cqe);
        }
        (self.shape, self.buffer) = (shape, buffer);
        Ok(rest)
    }

    /// Delays events by `period` microseconds (`mlx5_core_modify_cq_moderation`).
    pub fn moderate(&self, hca: &Hca, period: u16) -> Result<()> {
        self.moderate_by(hca, period, 0)
    }

    /// Delays events by `period` microseconds, or until there are `count` completions, unless that is 0.
    pub fn moderate_by(&self, hca: &Hca, period: u16, count: u16) -> Result<()> {
        let mut input = ModifyCqIn::default();
        input.set_cqn(self.number);
        input
            .modify_field_select_resize_field_select_mut()
            .copy_from_slice(&(MODIFY_PERIOD | MODIFY_COUNT).to_be_bytes());
        let context = input.cq_context_mut();
        context.set_cq_period(period);
        context.set_cq_max_count(count);
        hca.commands.call::<_, ModifyCqOut>(Opcode::MODIFY_CQ, &input).map(drop)
    }

    /// Consumes the next completion, if there is one.
    pub fn poll(&mut self) -> Option<Cqe> {
        if self.session.left() == 0 {
            let cqe = self.read(self.entry(0)?);
            if cqe.op_own & Cqe::FORMAT != Cqe::COMPRESSED {
                self.consumer += 1;
                return Some(cqe);
            }
            self.begin_session(cqe);
        }
        let (distance, first) = self.session.position();
        // The array of the first completions is behind the title, every other one in the entry of its first completion.
        if let Some(array) = first.then(|| self.read(self.offset(u32::from(distance == 0)))) {
            self.session.set_array(&array);
        }
        let cqe = self.session.take();
        // What the device left in the entry must not be taken for a completion of the next lap.
        self.buffer
            .write(self.offset(0) + CQE - 1, &[(self.owner(0) as u8) & Cqe::OWNER]);
        self.consumer += 1;
        Some(cqe)
    }

    /// Sessions and their completions that were consumed so far.
    pub fn compressed(&self) -> Compressed {
        self.counts
    }

    /// Begins to consume a session. Checks that the device has written no entry but those of the title and the arrays.
    #[track_caller]
    fn begin_session(&mut self, title: Cqe) {
        let format = self.shape.compression.expect("the CQ allows no compression");
        let count = title.byte_count.get();
        assert!((2..=64).contains(&count), "a session of {count} completions");
        assert!(count <= 1 << self.shape.log_size, "a session larger than the CQ");
        for distance in (2..count).filter(|distance| distance % MiniCqe::ARRAY as u32 != 0) {
            assert_eq!(self.entry(distance), None, "an entry without use was written");
        }
        self.counts.sessions += 1;
        self.counts.completions += u64::from(count);
        self.session = Session::begin(format, title);
    }

    /// Skips completions that were overwritten.
    pub fn skip(&mut self, completions: u32) {
        self.consumer += completions;
    }

    /// Whether a completion is pending.
    pub fn has_more(&self) -> bool {
        self.session.left() > 0 || self.entry(0).is_some()
    }

    fn read(&self, offset: u64) -> Cqe {
        Cqe::read_from_bytes(&self.buffer.read(offset, CQE as usize)).unwrap()
    }

    /// Offset of the completion in the entry that is `distance` behind the next.
    fn offset(&self, distance: u32) -> u64 {
        let index = u64::from(self.consumer + distance) % (1 << self.shape.log_size);
        (index + 1) * self.shape.entry() - CQE
    }

    /// Value of the owner bit of that entry when it is the consumer's.
    fn owner(&self, distance: u32) -> u32 {
        (self.consumer + distance) >> self.shape.log_size & 1
    }

    /// Offset of that completion, if it is the consumer's.
    fn entry(&self, distance: u32) -> Option<u64> {
        let offset = self.offset(distance);
        let op_own = self.buffer.load(offset + CQE - 4) as u8;
        let there = op_own >> 4 != CqeOpcode::Invalid as u8 && u32::from(op_own & Cqe::OWNER) == self.owner(distance);
        there.then_some(offset)
    }

    /// The half with inline data of the last consumed entry of 128 bytes.
    pub fn lower_half(&self) -> Vec<u8> {
        assert!(self.shape.large, "entries have 64 bytes");
        let index = u64::from(self.consumer.wrapping_sub(1)) % (1 << self.shape.log_size);
        self.buffer.read(index * self.shape.entry(), CQE as usize)
    }

    /// Waits for a completion.
    #[track_caller]
    pub fn wait(&mut self) -> Cqe {
        await_some("a completion", || self.poll())
    }

    /// Publishes the consumer index in the doorbell record.
    pub fn release(&self) {
        self.record.store(0, self.consumer & 0xff_ffff);
    }

    /// Arms the queue: requests an event for the next completion, or the next solicited one.
    pub fn arm(&mut self, hca: &Hca, solicited_only: bool) {
        let command = if solicited_only { SOLICITED_ONLY } else { 0 };
        let word = (self.events & 3) << 28 | command | self.consumer & 0xff_ffff;
        self.record.store(4, word);
        let mut doorbell = [0; 8];
        doorbell[..4].copy_from_slice(&word.to_be_bytes());
        doorbell[4..].copy_from_slice(&self.number.to_be_bytes());
        hca.machine.write_pair(u64::from(self.uar) * 4096 + CQ_ARM, doorbell);
    }

    /// Counts an event received, for the sequence number of the next arming.
    pub fn event(&mut self) {
        self.events += 1;
    }

    /// Guest addresses of the pages and of the doorbell record.
    pub fn addresses(&self) -> (Vec<u64>, u64) {
        (self.buffer.addresses(), self.record.address())
    }
}

/// `vendor_err_synd` of an error completion.
pub fn vendor_error_of(cqe: &Cqe) -> u8 {
    zerocopy::IntoBytes::as_bytes(cqe)[54]
}

/// Syndrome and WQE counter of a completion, if it is an error.
pub fn error_of(cqe: &Cqe) -> Option<(u8, u16)> {
    let error = [CqeOpcode::RequestError as u8, CqeOpcode::ResponderError as u8].contains(&(cqe.op_own >> 4));
    let bytes = zerocopy::IntoBytes::as_bytes(cqe);
    error.then(|| (bytes[55], cqe.wqe_counter.get()))
}
