//! Checks of a plain doorbell of a send queue, when it arrives: the order of WQE, doorbell record and doorbell.
//!
//! The register carries the first eight bytes of the control segment of the WQE that was posted last. The device may be
//! slow to get them, and record and ring may be ahead by then; they may never be behind.

use mlx5_prm::wqe::ControlSegment;
use zerocopy::IntoBytes;

use crate::hca::nic_finding::{Finding, queue};
use crate::hca::{Hca, Queue};

/// Checks a doorbell with these bytes.
pub(super) fn check(hca: &Hca, rung: &Queue, doorbell: [u8; 8]) {
    let (number, findings) = (rung.number(), &hca.findings);
    let (ring, slot) = match rung {
        Queue::Send(sq) => (&sq.wq, &sq.blue_flame),
        Queue::Pair(qp) => match &qp.send_queue {
            Some(ring) => (ring, &qp.blue_flame),
            None => return,
        },
        Queue::Receive(_) => return,
    };
    let [_, high, low, ..] = doorbell;
    let index = u16::from_be_bytes([high, low]);
    if slot.names_again(index) {
        let text = format_args!("queue {number:#x}: a second doorbell for WQE {index:#x}");
        findings.report(Finding::DoorbellWithoutWqe, queue(number), &doorbell, text);
    }
    // What cannot be read is reported where it is executed.
    let Ok(record) = ring.look_at_send_producer(&hca.dma) else {
        return;
    };
    if is_behind(record, index.wrapping_add(1)) {
        let evidence = [&doorbell[..], &record.to_be_bytes()].concat();
        let text = format_args!("queue {number:#x}: doorbell for WQE {index:#x}, but the record says {record:#x}");
        findings.report(Finding::DoorbellRecordBehind, queue(number), &evidence, text);
    }
    let mut control = ControlSegment::default();
    if ring
        .look_at_send_bytes(&hca.dma, index, control.as_mut_bytes())
        .is_err()
    {
        return;
    }
    let bytes = control.as_bytes();
    if bytes[..8] != doorbell && is_behind(control.index(), index.wrapping_add(1)) {
        let evidence = [&doorbell[..], bytes].concat();
        let text = format_args!("queue {number:#x}: doorbell for WQE {index:#x}, which is not in memory");
        findings.report(Finding::DoorbellBeforeWqe, queue(number), &evidence, text);
    }
}

/// Whether an index, modulo 2^16, is before another.
fn is_behind(index: u16, other: u16) -> bool {
    (index.wrapping_sub(other) as i16) < 0
}
