//! Sets of counters that queues share (ALLOC_Q_COUNTER).

use std::sync::atomic::{AtomicU32, Ordering};

use mlx5_prm::queue_entry::Syndrome;
use serde::Serialize;

/// What is counted; the names are those of `query_q_counter_out` (mlx5_ifc.h). What they mean is said in the driver's list of counters
/// (networking/device_drivers/ethernet/mellanox/mlx5/counters.rst) and in the vendor's of `hw_counters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum QueueCounter {
    /// Writes that came.
    RxWriteRequests,
    /// Reads that came.
    RxReadRequests,
    /// Atomic operations that came.
    RxAtomicRequests,
    /// Packets without a receive WQE.
    OutOfBuffer,
    /// Requests that came too early.
    OutOfSequence,
    /// Requests that came again.
    DuplicateRequest,
    /// Refusals for want of a receive that were followed by another attempt.
    RnrNakRetryErr,
    /// Refusals of a sequence number that were followed by another attempt.
    PacketSeqErr,
    /// Answers from which it follows that an earlier one was lost.
    ImpliedNakSeqErr,
    /// Timeouts that were followed by another attempt.
    LocalAckTimeoutErr,
    /// Requests that met no receive too often.
    ReqRnrRetriesExceeded,
    /// Messages longer than their receive.
    RespLocalLengthError,
    /// Requests too long to be sent.
    ReqLocalLengthError,
    /// Send WQEs that make no sense.
    LocalOperationError,
    /// Receives into memory that the queue pair may not write.
    RespLocalProtection,
    /// Requests with memory that the queue pair may not access.
    ReqLocalProtection,
    /// Receives that completed with an error.
    RespCqeError,
    /// Requests that completed with an error.
    ReqCqeError,
    /// Changes of keys that failed.
    ReqMwBinding,
    /// Answers that do not fit.
    ReqBadResponse,
    /// Requests that the other side found invalid.
    ReqRemoteInvalidRequest,
    /// Requests that were found invalid.
    RespRemoteInvalidRequest,
    /// Requests that the other side did not allow.
    ReqRemoteAccessErrors,
    /// Requests that were not allowed.
    RespRemoteAccessErrors,
    /// Requests that the other side could not carry out.
    ReqRemoteOperationErrors,
    /// Requests that were not answered too often.
    ReqTransportRetriesExceeded,
    /// Receives that were flushed.
    RespCqeFlushError,
    /// Requests that were flushed.
    ReqCqeFlushError,
}

/// How many there are.
const COUNTERS: usize = QueueCounter::ReqCqeFlushError as usize + 1;

/// A set of counters.
#[derive(Debug, Serialize)]
pub struct QueueCounters {
    /// Its id.
    pub id: u8,
    #[serde(skip)]
    counts: [AtomicU32; COUNTERS],
}

impl QueueCounters {
    /// A set of this id.
    pub fn new(id: u8) -> Self {
        Self {
            id,
            counts: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Counts one.
    pub fn count(&self, what: QueueCounter) {
        self.counts[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted; from zero again, if `clear`.
    pub fn get(&self, what: QueueCounter, clear: bool) -> u32 {
        let counter = &self.counts[what as usize];
        if clear {
            counter.swap(0, Ordering::Relaxed)
        } else {
            counter.load(Ordering::Relaxed)
        }
    }

    /// Counts a request that completes with an error.
    pub fn count_request_error(&self, syndrome: Syndrome) {
        let special = match syndrome {
            Syndrome::LocalLength => Some(QueueCounter::ReqLocalLengthError),
            Syndrome::LocalQpOperation => Some(QueueCounter::LocalOperationError),
            Syndrome::LocalProtection => Some(QueueCounter::ReqLocalProtection),
            Syndrome::WrFlush => Some(QueueCounter::ReqCqeFlushError),
            Syndrome::MwBind => Some(QueueCounter::ReqMwBinding),
            Syndrome::BadResponse => Some(QueueCounter::ReqBadResponse),
            Syndrome::RemoteInvalidRequest => Some(QueueCounter::ReqRemoteInvalidRequest),
            Syndrome::RemoteAccess => Some(QueueCounter::ReqRemoteAccessErrors),
            Syndrome::RemoteOperation => Some(QueueCounter::ReqRemoteOperationErrors),
            Syndrome::TransportRetryExceeded => Some(QueueCounter::ReqTransportRetriesExceeded),
            Syndrome::RnrRetryExceeded => Some(QueueCounter::ReqRnrRetriesExceeded),
            Syndrome::LocalAccess | Syndrome::RemoteAborted => None,
        };
        self.count(QueueCounter::ReqCqeError);
        special.into_iter().for_each(|special| self.count(special));
    }

    /// Counts a receive that completes with an error.
    pub fn count_receive_error(&self, syndrome: Syndrome) {
        let special = match syndrome {
            Syndrome::LocalLength => Some(QueueCounter::RespLocalLengthError),
            Syndrome::LocalProtection => Some(QueueCounter::RespLocalProtection),
            Syndrome::WrFlush => Some(QueueCounter::RespCqeFlushError),
            _ => None,
        };
        self.count(QueueCounter::RespCqeError);
        special.into_iter().for_each(|special| self.count(special));
    }
}
