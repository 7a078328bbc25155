//! Queue counters: sets of counters that queues share (ALLOC_Q_COUNTER).

use std::sync::atomic::{AtomicU32, Ordering};

use mlx5_prm::queue_entry::Syndrome;
use serde::Serialize;

/// A queue counter, named as in `query_q_counter_out` (mlx5_ifc.h). The meanings are those of the driver's list of
/// counters (networking/device_drivers/ethernet/mellanox/mlx5/counters.rst) and of the vendor's `hw_counters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum QueueCounter {
    /// RDMA write requests received.
    RxWriteRequests,
    /// RDMA read requests received.
    RxReadRequests,
    /// Atomic requests received.
    RxAtomicRequests,
    /// Packets dropped or refused without a receive WQE.
    OutOfBuffer,
    /// Requests received ahead of the expected PSN.
    OutOfSequence,
    /// Duplicate requests received.
    DuplicateRequest,
    /// RNR NAKs followed by a retry.
    RnrNakRetryErr,
    /// PSN sequence error NAKs followed by a retry.
    PacketSeqErr,
    /// Implied NAKs: responses that show the loss of an earlier one.
    ImpliedNakSeqErr,
    /// Acknowledgement timeouts followed by a retry.
    LocalAckTimeoutErr,
    /// Requests that exceeded the RNR retry limit.
    ReqRnrRetriesExceeded,
    /// Messages longer than their receive WQE.
    RespLocalLengthError,
    /// Requests longer than the largest message.
    ReqLocalLengthError,
    /// Invalid send WQEs.
    LocalOperationError,
    /// Receives into memory the QP may not write.
    RespLocalProtection,
    /// Requests with memory the QP may not access.
    ReqLocalProtection,
    /// Receives that completed with an error.
    RespCqeError,
    /// Requests that completed with an error.
    ReqCqeError,
    /// UMRs that failed.
    ReqMwBinding,
    /// Responses that do not match a request.
    ReqBadResponse,
    /// Requests the responder refused as invalid.
    ReqRemoteInvalidRequest,
    /// Requests refused as invalid.
    RespRemoteInvalidRequest,
    /// Requests the responder refused for lack of access rights.
    ReqRemoteAccessErrors,
    /// Requests refused for lack of access rights.
    RespRemoteAccessErrors,
    /// Requests the responder failed to execute.
    ReqRemoteOperationErrors,
    /// Requests that exceeded the transport retry limit.
    ReqTransportRetriesExceeded,
    /// Receives that were flushed.
    RespCqeFlushError,
    /// Requests that were flushed.
    ReqCqeFlushError,
}

const COUNTERS: usize = QueueCounter::ReqCqeFlushError as usize + 1;

/// A set of queue counters.
#[derive(Debug, Serialize)]
pub struct QueueCounters {
    /// Counter set id (8 bits).
    pub id: u8,
    #[serde(skip)]
    counts: [AtomicU32; COUNTERS],
}

impl QueueCounters {
    /// Creates a set with all counters at 0.
    pub fn new(id: u8) -> Self {
        Self {
            id,
            counts: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Increments a counter.
    pub fn count(&self, counter: QueueCounter) {
        self.counts[counter as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns a counter, and resets it if `clear`.
    pub fn get(&self, counter: QueueCounter, clear: bool) -> u32 {
        let counter = &self.counts[counter as usize];
        if clear {
            counter.swap(0, Ordering::Relaxed)
        } else {
            counter.load(Ordering::Relaxed)
        }
    }

    /// Counts a request that completes in error.
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

    /// Counts a receive that completes in error.
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
