//! Findings of a NIC: mistakes of the guest's driver or program, reported with object and evidence, and traced.

use std::fmt;
use std::sync::Arc;

use pci_function::attachment::vhost_user_pci;
use vhost_daemon::finding::{self, Kind, KindInfo, Observer};
use vhost_daemon::trace::{COMPILED_IN, Tracer};

pub use vhost_daemon::finding::Object;

use super::nic_event::NicEvent;
use super::tape::Tape;
use crate::dma::DmaError;

/// Catalogues of the findings of a guest: those of its NIC, then those of its attachment. An event has the row of its
/// kind, counted through both.
pub const CATALOGUES: [&[KindInfo]; 2] = [Finding::INFOS, vhost_user_pci::Finding::INFOS];

/// Records the findings of a guest's attachment in its trace.
pub fn trace_attachment(tracer: Tracer) -> Observer<vhost_user_pci::Finding> {
    trace(tracer, Finding::INFOS.len())
}

/// Records findings of kinds whose first row is this.
fn trace<K: Kind>(tracer: Tracer, first: usize) -> Observer<K> {
    Box::new(move |kind, object, count| {
        let arguments = || [object.number as u32, count as u32, 0, 0];
        tracer.record(NicEvent::Finding, (first + kind.index()) as u32, arguments);
    })
}

/// The findings of a NIC.
#[derive(Debug, Default)]
pub struct Findings {
    all: Arc<finding::Findings<Finding>>,
    tape: Option<Arc<dyn Tape>>,
}

impl Findings {
    /// Creates the findings of the guest of this name, none so far.
    pub fn new(guest: &str, tracer: Tracer, tape: Option<Arc<dyn Tape>>) -> Self {
        Self {
            all: Arc::new(finding::Findings::new(guest).observed_by(trace(tracer, 0))),
            tape,
        }
    }

    /// Counts, logs, keeps and traces a finding.
    #[cold]
    pub fn report(&self, kind: Finding, object: Object, evidence: &[u8], text: fmt::Arguments<'_>) {
        if !COMPILED_IN {
            return;
        }
        if let Some(tape) = &self.tape {
            tape.finding(kind.name(), object, evidence, text);
        }
        self.all.report(kind, object, evidence, text);
    }

    /// Reports an access to guest memory that failed.
    #[cold]
    pub fn report_dma(&self, object: Object, error: &DmaError) {
        let kind = match error {
            DmaError::AfterUnmap { .. } => Finding::DmaAfterUnmap,
            _ => Finding::DmaOutside,
        };
        let evidence = error.address().to_be_bytes();
        self.report(
            kind,
            object,
            &evidence,
            format_args!("{} {:#x}: {error}", object.kind, object.number),
        );
    }

    /// Reports a doorbell record that cannot be read.
    #[cold]
    pub fn report_doorbell_record(&self, object: Object, error: &DmaError) {
        let evidence = error.address().to_be_bytes();
        let text = format_args!("{} {:#x}: {error}", object.kind, object.number);
        self.report(Finding::UnreadableDoorbellRecord, object, &evidence, text);
        self.report_dma(object, error);
    }

    /// Returns the findings, to be read.
    pub fn all(&self) -> &Arc<finding::Findings<Finding>> {
        &self.all
    }
}

/// A queue or queue pair, as an object.
pub fn queue(number: u32) -> Object {
    Object::new("queue", number.into())
}

vhost_daemon::findings! {
    /// A mistake of a guest's driver or program.
    pub enum Finding {
        /// A command that the device does not implement.
        UnknownCommand = Error "unknown_command" {
            rule: "A command has an opcode that the device implements.",
            source: "docs/supported.md; `enum` of opcodes, mlx5_ifc.h",
            answer: "status BAD_OP",
        },
        /// A command answered with a status other than OK.
        CommandRefused = Error "command_refused" {
            rule: "The parameters of a command are valid and name live objects.",
            source: "PRM, Command Interface; `MLX5_CMD_STAT_*`, mlx5/device.h",
            answer: "a status other than OK, with a syndrome",
        },
        /// A command whose queue entry or mailboxes could not be read or written.
        CommandUnreadable = Error "command_unreadable" {
            rule: "Entry and mailboxes of a command are in memory, with token and block number.",
            source: "PRM, Command Interface; `struct mlx5_cmd_layout`, mlx5/device.h",
            answer: "a delivery status other than OK, or none if the entry itself cannot be accessed",
        },
        /// Reserved bits that are set in the input of a command.
        ReservedBits = Suspicion "reserved_bits" {
            rule: "Reserved bits of a command's input are 0.",
            source: "PRM, Conventions; the `reserved_at_*` fields, mlx5_ifc.h",
            answer: "the bits are ignored",
        },
        /// A BAR access that hits no register, or has the wrong width for it.
        StrayAccess = Error "stray_access" {
            rule: "An access hits a register, in the register's width.",
            source: "PRM, Initialization Segment and UAR; `struct mlx5_init_seg`, mlx5/device.h",
            answer: "a write is dropped, a read is 0",
        },
        /// A doorbell for a queue that does not exist, or in the UAR of another queue.
        StrayDoorbell = Error "stray_doorbell" {
            rule: "A doorbell names a live queue, in the UAR that the queue's context names.",
            source: "PRM, UAR; `mlx5_write64`, mlx5/doorbell.h",
            answer: "the doorbell is dropped",
        },
        /// A doorbell that names the same WQE as the one before.
        DoorbellWithoutWqe = Suspicion "doorbell_without_wqe" {
            rule: "A doorbell follows a new WQE.",
            source: "PRM, Send Doorbell; `mlx5e_notify_hw`, core/en/txrx.h",
            answer: "none: there is nothing to execute",
        },
        /// A doorbell that names a WQE behind the end of what the doorbell record posts.
        DoorbellRecordBehind = Error "doorbell_record_behind" {
            rule: "The doorbell record is updated before the doorbell register.",
            source: "PRM, Doorbell Record; `mlx5r_ring_db`, mlx5_ib/wr.c",
            answer: "WQEs are executed as far as the record says",
        },
        /// A doorbell whose WQE is not in memory.
        DoorbellBeforeWqe = Error "doorbell_before_wqe" {
            rule: "A WQE is in memory before its doorbell.",
            source: "PRM, Posting a WQE; `mlx5r_ring_db`, mlx5_ib/wr.c",
            answer: "whatever is in memory is executed",
        },
        /// A posted WQE whose index is not its position.
        StaleWqe = Error "stale_wqe" {
            rule: "The index in a WQE's control segment is its position in the queue.",
            source: "PRM, Control Segment; `struct mlx5_wqe_ctrl_seg`, mlx5/qp.h",
            answer: "the WQE is executed as it is, or completed in error if malformed",
        },
        /// A WQE in memory that differs from what was executed, at its completion.
        WqeChanged = Error "wqe_changed" {
            rule: "A WQE belongs to the device from its doorbell to its completion.",
            source: "IBTA vol. 1, 10.8 (work requests); PRM, Posting a WQE",
            answer: "what was read at first is executed; only checked with --check-wqes",
        },
        /// More WQEs posted than the queue holds.
        QueueOverrun = Error "queue_overrun" {
            rule: "A producer index is ahead of the consumer index by at most the size of the queue.",
            source: "PRM, Work Queues; `mlx5r_wq_overflow`, mlx5_ib/wr.c",
            answer: "the ring is executed as often as the index says",
        },
        /// A doorbell record that cannot be read.
        UnreadableDoorbellRecord = Error "unreadable_doorbell_record" {
            rule: "A doorbell record is in memory.",
            source: "PRM, Doorbell Record; `dbr_addr`, mlx5_ifc.h",
            answer: "a QP, RQ, SQ, SRQ or CQ that needs it goes to error, with an event",
        },
        /// A malformed send WQE.
        BadSendWqe = Error "bad_send_wqe" {
            rule: "A send WQE has an opcode of its service, and segments that fit its size.",
            source: "PRM, Send WQE; mlx5/qp.h",
            answer: "an error CQE; the queue goes to error",
        },
        /// A malformed receive WQE.
        BadReceiveWqe = Error "bad_receive_wqe" {
            rule: "A receive WQE has room for the frame, in memory that its keys allow.",
            source: "PRM, Receive WQE; mlx5/qp.h",
            answer: "an error CQE; the queue goes to error",
        },
        /// An access to memory that is not mapped, or not for this access.
        DmaOutside = Error "dma_outside" {
            rule: "Addresses given to the device are those of mapped memory, writable where it writes.",
            source: "Documentation/core-api/dma-api-howto.rst",
            answer: "nothing is accessed; the operation fails",
        },
        /// An access to memory that was unmapped.
        DmaAfterUnmap = Error "dma_after_unmap" {
            rule: "Memory stays mapped until the device is done with it.",
            source: "Documentation/core-api/dma-api-howto.rst",
            answer: "nothing is accessed; the operation fails",
        },
        /// A key that does not exist.
        UnknownKey = Error "unknown_key" {
            rule: "A WQE or a request names a memory key that exists.",
            source: "IBTA vol. 1, 10.6 (memory management)",
            answer: "a protection error, locally or as a NAK",
        },
        /// A key that was destroyed or invalidated.
        StaleKey = Error "stale_key" {
            rule: "A memory key is not used after its destruction or invalidation.",
            source: "IBTA vol. 1, 10.6 (memory management); `ib_dereg_mr`, rdma/ib_verbs.h",
            answer: "a protection error, locally or as a NAK",
        },
        /// A key of another protection domain.
        WrongPd = Error "wrong_pd" {
            rule: "A memory key has the protection domain of the queue that uses it.",
            source: "IBTA vol. 1, 10.2.3 (protection domains)",
            answer: "a protection error, locally or as a NAK",
        },
        /// A key that does not allow the access.
        KeyViolation = Error "key_violation" {
            rule: "An access is within the range, the rights and the queue of its memory key.",
            source: "IBTA vol. 1, 10.6 (memory management)",
            answer: "a protection error, locally or as a NAK",
        },
        /// A CQE that could not be written.
        LostCqe = Error "lost_cqe" {
            rule: "The buffer of a CQ is in memory.",
            source: "PRM, Completion Queues; `pas` of CREATE_CQ, mlx5_ifc.h",
            answer: "as `cq_overrun`",
        },
        /// A completion for a full CQ.
        CqOverrun = Error "cq_overrun" {
            rule: "A CQ has room for the completions of its queues.",
            source: "PRM, Completion Queues; `MLX5_EVENT_TYPE_CQ_ERROR`, mlx5/device.h",
            answer: "a CQ error event; the CQ takes no more completions, and queues that complete there go to error",
        },
        /// A CQ with unread completions and no event to come, at its destruction.
        CqNotRearmed = Suspicion "cq_not_rearmed" {
            rule: "A CQ that notifies by events is read until it is empty, or armed again.",
            source: "`ib_req_notify_cq`, rdma/ib_verbs.h",
            answer: "none",
        },
        /// An EQE that could not be written.
        LostEqe = Error "lost_eqe" {
            rule: "The buffer of an EQ is in memory.",
            source: "PRM, Event Queues; `pas` of CREATE_EQ, mlx5_ifc.h",
            answer: "the event is lost",
        },
        /// An event for a full EQ.
        EqOverrun = Error "eq_overrun" {
            rule: "The consumer index of an EQ is updated before the EQ is full.",
            source: "PRM, Event Queues; `eq_update_ci`, core/eq.c",
            answer: "the event is lost",
        },
        /// An EQ with unread events and no interrupt to come, at its destruction.
        EqNotRearmed = Suspicion "eq_not_rearmed" {
            rule: "An EQ is armed again after its events were read.",
            source: "PRM, Event Queues; `eq_update_ci`, core/eq.c",
            answer: "none",
        },
        /// A queue pair that was destroyed while its send queue had work.
        QpInFlight = Suspicion "qp_in_flight" {
            rule: "A queue pair is drained, or in the error state, before its destruction.",
            source: "`ib_drain_qp`, rdma/ib_verbs.h",
            answer: "the work is dropped without completions",
        },
        /// Objects that are left when the driver ends, or at a reset.
        ObjectLeft = Suspicion "object_left" {
            rule: "A driver destroys its objects before it disables the HCA or resets the function.",
            source: "PRM, Driver Stop; `mlx5_unload`, core/main.c",
            answer: "the objects are dropped",
        },
        /// Pages of memory that the driver has not reclaimed when it ends, or at a reset.
        PageLeft = Suspicion "page_left" {
            rule: "A driver reclaims the pages that it gave to the device before DISABLE_HCA.",
            source: "PRM, MANAGE_PAGES; `mlx5_reclaim_startup_pages`, core/pagealloc.c",
            answer: "the device forgets the pages",
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vhost_daemon::testing::assert_catalogue;

    use super::*;

    #[test]
    fn the_catalogue_is_up_to_date() {
        let page = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/findings.md"));
        assert_catalogue(page, "vhost-nic", Finding::INFOS);
        assert_catalogue(
            page,
            "vhost-nic, attached by vhost-user",
            vhost_user_pci::Finding::INFOS,
        );
    }
}
