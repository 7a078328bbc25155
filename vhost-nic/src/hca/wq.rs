//! Work queues: rings of WQEs of receive and send queues.

use std::sync::Arc;

use mlx5_prm::wq::Wq;
use mlx5_prm::wqe::{DataSegment, INVALID_LKEY, NextSegment, SEND_WQE_BB};
use serde::Serialize;
use thiserror::Error;
use zerocopy::FromBytes;

use super::buffer::{Buffer, BufferError};
use super::memory_budget::Budget;
use super::nic_finding::{Finding, Findings, queue};
use crate::dma::{self, Dma, Purpose};

/// Largest log2 of the number of WQEs.
pub const MAX_LOG_WQ_SIZE: u8 = 16;
/// Range of log2 of a receive WQE's bytes.
pub const RECEIVE_STRIDES: std::ops::RangeInclusive<u8> = 4..=11;
/// Log2 of a send WQE's stride in bytes: one basic block.
pub const SEND_STRIDE: u8 = 6;

/// Order of the WQEs of a queue (`enum mlx5_wq_type`, mlx5_ifc.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WqType {
    /// Each WQE names the next.
    LinkedList,
    /// WQEs follow in the order of the ring.
    Cyclic,
}

/// Reason why a context describes no valid work queue.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WqError {
    /// Unsupported `wq_type`.
    #[error("work queue type {0} is not supported")]
    Type(u8),
    /// Stride too small or too large.
    #[error("a WQE of 2^{0} bytes is not supported")]
    Stride(u8),
    /// Too many WQEs.
    #[error("a work queue of 2^{0} WQEs is not supported")]
    Size(u8),
    /// Invalid buffer.
    #[error(transparent)]
    Buffer(#[from] BufferError),
}

/// Parameters of a ring, from a `wq` or an `xrc_srqc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingContext {
    /// Order of the WQEs (`enum mlx5_wq_type`, mlx5_ifc.h).
    pub wq_type: u8,
    /// Log2 of the size of a page in the list, in adapter pages.
    pub log_page_size: u8,
    /// Offset of the ring in its first page, in 1/64 page. A `wq` has five bits for it, an `xrc_srqc` six.
    pub page_offset: u8,
    /// Log2 of the number of WQEs.
    pub log_size: u8,
    /// Log2 of the bytes of a WQE.
    pub log_stride: u8,
    /// Guest address of the doorbell record.
    pub dbr_addr: u64,
}

impl From<&Wq> for RingContext {
    fn from(wq: &Wq) -> Self {
        Self {
            wq_type: wq.wq_type(),
            log_page_size: wq.log_wq_pg_sz(),
            page_offset: wq.page_offset(),
            log_size: wq.log_wq_sz(),
            log_stride: wq.log_wq_stride(),
            dbr_addr: wq.dbr_addr(),
        }
    }
}

/// A ring of WQEs and its doorbell record.
#[derive(Debug, Clone, Serialize)]
pub struct WorkQueue {
    /// Order of the WQEs.
    pub wq_type: WqType,
    #[serde(skip)]
    buffer: Buffer,
    /// Offset of the ring in the buffer, in bytes.
    start: u64,
    log_size: u8,
    log_stride: u8,
    dbr_addr: u64,
}

impl WorkQueue {
    /// Creates the ring a context describes. `pas` is the page list as in the command, charged to `budget`.
    pub fn new(context: RingContext, pas: &[u8], budget: &Arc<Budget>) -> Result<Self, WqError> {
        let RingContext {
            log_size,
            log_stride,
            dbr_addr,
            ..
        } = context;
        let wq_type = match context.wq_type {
            0 => WqType::LinkedList,
            1 => WqType::Cyclic,
            other => return Err(WqError::Type(other)),
        };
        if !RECEIVE_STRIDES.contains(&log_stride) {
            return Err(WqError::Stride(log_stride));
        }
        if log_size > MAX_LOG_WQ_SIZE {
            return Err(WqError::Size(log_size));
        }
        let length = 1 << (log_size + log_stride);
        let buffer = Buffer::new(context.log_page_size, context.page_offset, length, pas, budget)?;
        Ok(Self {
            wq_type,
            buffer,
            start: 0,
            log_size,
            log_stride,
            dbr_addr,
        })
    }

    /// Creates a ring in a part of a buffer, as of a queue pair: `2^log_size` WQEs of `2^log_stride` bytes from byte
    /// `start` on, all of which must be in the buffer.
    pub fn part(buffer: Buffer, start: u64, log_size: u8, log_stride: u8, dbr_addr: u64) -> Self {
        Self {
            wq_type: WqType::Cyclic,
            buffer,
            start,
            log_size,
            log_stride,
            dbr_addr,
        }
    }

    /// Number of WQEs, a power of two.
    pub fn size(&self) -> u32 {
        1 << self.log_size
    }

    /// Bytes of a WQE.
    pub fn stride(&self) -> usize {
        1 << self.log_stride
    }

    /// Reads the producer index of receive WQEs from the doorbell record, modulo 2^16.
    pub fn receive_producer(&self, dma: &Dma) -> dma::Result<u16> {
        self.record(dma, Purpose::DoorbellRecord, 0)
    }

    /// Reads the producer index of send WQEs from the doorbell record, in basic blocks modulo 2^16.
    pub fn send_producer(&self, dma: &Dma) -> dma::Result<u16> {
        self.record(dma, Purpose::DoorbellRecord, 4)
    }

    /// Reads the producer index of receive WQEs, not to execute them ([`Purpose::Look`]).
    pub fn look_at_receive_producer(&self, dma: &Dma) -> dma::Result<u16> {
        self.record(dma, Purpose::Look, 0)
    }

    /// Reads the producer index of send WQEs, not to execute them ([`Purpose::Look`]).
    pub fn look_at_send_producer(&self, dma: &Dma) -> dma::Result<u16> {
        self.record(dma, Purpose::Look, 4)
    }

    fn record(&self, dma: &Dma, purpose: Purpose, offset: u64) -> dma::Result<u16> {
        let word: u32 = dma.load(purpose, self.dbr_addr.wrapping_add(offset))?;
        Ok(u32::from_be(word) as u16)
    }

    /// Reports a producer index that is farther ahead of the consumer index than the ring has WQEs.
    #[inline]
    pub fn check_overrun(&self, findings: &Findings, number: u32, producer: u16, consumer: u16) {
        if u32::from(producer.wrapping_sub(consumer)) > self.size() {
            let evidence = [producer.to_be_bytes(), consumer.to_be_bytes()].concat();
            let text = format_args!("queue {number:#x}: producer {producer:#x}, consumer {consumer:#x}");
            findings.report(Finding::QueueOverrun, queue(number), &evidence, text);
        }
    }

    /// Reads the scatter list of receive WQE `index` into `segments`, and returns the index of the next one.
    pub fn receive_wqe(&self, dma: &Dma, index: u32, segments: &mut Vec<DataSegment>) -> dma::Result<u32> {
        let mut wqe = [0; 1 << *RECEIVE_STRIDES.end()];
        let wqe = &mut wqe[..self.stride()];
        let index = index & (self.size() - 1);
        self.read(dma, Purpose::ReceiveWqe, u64::from(index) << self.log_stride, wqe)?;
        let (next, list) = match self.wq_type {
            WqType::Cyclic => (index.wrapping_add(1), &*wqe),
            WqType::LinkedList => match NextSegment::read_from_prefix(wqe) {
                Ok((segment, list)) => (segment.next_wqe_index.get().into(), list),
                Err(_) => (0, &[][..]),
            },
        };
        segments.clear();
        for segment in list.as_chunks::<{ size_of::<DataSegment>() }>().0 {
            let Ok(mut segment) = DataSegment::read_from_bytes(segment) else {
                break;
            };
            // In a receive WQE this bit selects padding (`MLX5_HW_START_PADDING`, qp.h) and is not part of the length.
            segment.byte_count.set(segment.byte_count.get() & !DataSegment::INLINE);
            if segment.lkey.get() == INVALID_LKEY {
                break;
            }
            if segment.byte_count.get() > 0 {
                segments.push(segment);
            }
        }
        Ok(next)
    }

    /// Reads from the ring, wrapping at its end.
    fn read(&self, dma: &Dma, purpose: Purpose, offset: u64, data: &mut [u8]) -> dma::Result<()> {
        let size = 1 << (self.log_size + self.log_stride);
        let offset = offset & (size - 1);
        let (first, rest) = data.split_at_mut((data.len() as u64).min(size - offset) as usize);
        self.buffer.read(dma, purpose, self.start + offset, first)?;
        self.buffer.read(dma, purpose, self.start, rest)
    }

    /// Reads bytes of a send queue from basic block `index` on, wrapping at the end of the ring.
    pub fn send_bytes(&self, dma: &Dma, index: u16, data: &mut [u8]) -> dma::Result<()> {
        self.read(dma, Purpose::SendWqe, u64::from(index) * SEND_WQE_BB as u64, data)
    }

    /// Reads the same, not to execute it ([`Purpose::Look`]).
    pub fn look_at_send_bytes(&self, dma: &Dma, index: u16, data: &mut [u8]) -> dma::Result<()> {
        self.read(dma, Purpose::Look, u64::from(index) * SEND_WQE_BB as u64, data)
    }
}
