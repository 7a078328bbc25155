//! The rings of WQEs behind receive and send queues.

use mlx5_prm::wq::Wq;
use mlx5_prm::wqe::{DataSegment, INVALID_LKEY, NextSegment, SEND_WQE_BB};
use serde::Serialize;
use thiserror::Error;
use zerocopy::FromBytes;

use super::buffer::{Buffer, BufferError};
use crate::dma::{self, Dma, Purpose};

/// Largest log2 of the number of WQEs.
pub const MAX_LOG_WQ_SIZE: u8 = 16;
/// Log2 of the size in bytes of receive WQEs, least and most.
pub const RECEIVE_STRIDES: std::ops::RangeInclusive<u8> = 4..=11;
/// The same of send WQEs: always one basic block.
pub const SEND_STRIDE: u8 = 6;

/// How the WQEs of a queue follow each other (`enum mlx5_wq_type`, mlx5_ifc.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WqType {
    /// Each names the next one.
    LinkedList,
    /// In the order of the ring.
    Cyclic,
}

/// Why a context describes no ring.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WqError {
    /// A type of queue that is not there.
    #[error("Work queues of type {0} are not supported.")]
    Type(u8),
    /// WQEs too small or too large.
    #[error("A WQE of 2^{0} bytes is not possible.")]
    Stride(u8),
    /// Too many WQEs.
    #[error("A work queue of 2^{0} WQEs is not possible.")]
    Size(u8),
    /// Its buffer is not right.
    #[error(transparent)]
    Buffer(#[from] BufferError),
}

/// What a context says of a ring, wherever it says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingContext {
    /// How WQEs follow each other (`enum mlx5_wq_type`, mlx5_ifc.h).
    pub wq_type: u8,
    /// Log2 of the adapter pages in a page of the list.
    pub log_page_size: u8,
    /// Where in its first page the ring begins. A `wq` context has five bits for it, an `xrc_srqc` six.
    pub page_offset: u8,
    /// Log2 of the number of WQEs.
    pub log_size: u8,
    /// Log2 of the bytes of a WQE.
    pub log_stride: u8,
    /// Where the doorbell record is.
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
    /// How WQEs follow each other.
    pub wq_type: WqType,
    #[serde(skip)]
    buffer: Buffer,
    /// Where in the buffer the ring begins, in bytes.
    start: u64,
    log_size: u8,
    log_stride: u8,
    dbr_addr: u64,
}

impl WorkQueue {
    /// The ring that a context describes, whose page list `pas` is as it is in the command.
    pub fn new(context: RingContext, pas: &[u8]) -> Result<Self, WqError> {
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
        let buffer = Buffer::new(context.log_page_size, context.page_offset, length, pas)?;
        Ok(Self {
            wq_type,
            buffer,
            start: 0,
            log_size,
            log_stride,
            dbr_addr,
        })
    }

    /// A ring that is a part of a buffer, as those of a queue pair: `2^log_size` WQEs of `2^log_stride` bytes from byte `start` on, which are all in the
    /// buffer.
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

    /// How far the guest has posted receive WQEs, modulo 2^16.
    pub fn receive_producer(&self, dma: &Dma) -> dma::Result<u16> {
        self.record(dma, 0)
    }

    /// How far the guest has posted send WQEs, in basic blocks modulo 2^16.
    pub fn send_producer(&self, dma: &Dma) -> dma::Result<u16> {
        self.record(dma, 4)
    }

    fn record(&self, dma: &Dma, offset: u64) -> dma::Result<u16> {
        let word: u32 = dma.load(Purpose::DoorbellRecord, self.dbr_addr.wrapping_add(offset))?;
        Ok(u32::from_be(word) as u16)
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
            // Of what is received this bit says how it may be padded (`MLX5_HW_START_PADDING`, qp.h), and is no part of the length.
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

    /// Reads from the ring, across its end.
    fn read(&self, dma: &Dma, purpose: Purpose, offset: u64, data: &mut [u8]) -> dma::Result<()> {
        let size = 1 << (self.log_size + self.log_stride);
        let offset = offset & (size - 1);
        let (first, rest) = data.split_at_mut((data.len() as u64).min(size - offset) as usize);
        self.buffer.read(dma, purpose, self.start + offset, first)?;
        self.buffer.read(dma, purpose, self.start, rest)
    }

    /// Reads a send queue's bytes from basic block `index` on, across the end of the ring.
    pub fn send_bytes(&self, dma: &Dma, index: u16, data: &mut [u8]) -> dma::Result<()> {
        self.read(dma, Purpose::SendWqe, u64::from(index) * SEND_WQE_BB as u64, data)
    }
}
