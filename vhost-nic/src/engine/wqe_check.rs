//! Comparison of a send WQE in memory with what was executed, at its completion (`--check-wqes`).
//!
//! The WQE must not change before that. What is written after the doorbell and before the device reads the WQE for the
//! first time is not noticed.

use crate::hca::Hca;
use crate::hca::nic_finding::{Finding, queue};
use crate::hca::wq::WorkQueue;

/// Maximum bytes of a WQE.
const MAX_WQE: usize = 1024;

/// Reports a WQE that differs from the `executed` bytes. The evidence is what is in memory.
pub(super) fn compare(hca: &Hca, number: u32, ring: &WorkQueue, index: u16, executed: &[u8]) {
    let mut memory = [0; MAX_WQE];
    let Some(memory) = memory.get_mut(..executed.len()) else {
        return;
    };
    if ring.look_at_send_bytes(&hca.dma, index, memory).is_ok() && memory != executed {
        let text = format_args!("queue {number:#x}: WQE {index:#x} was changed before its completion");
        hca.findings.report(Finding::WqeChanged, queue(number), memory, text);
    }
}
