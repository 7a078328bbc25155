//! The findings of a machine's NIC, without times and texts.

use mlx5_test_driver::machine::Machine;
use vhost_daemon::finding::{Kind, Object, Source};
use vhost_nic::hca::nic_finding::Finding;

use crate::inspect::Inspect;

/// A finding: kind, object and evidence.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Name of the kind.
    pub kind: &'static str,
    /// The object.
    pub object: Object,
    /// The bytes that show the mistake.
    pub evidence: Vec<u8>,
}

impl Found {
    /// A finding to be expected.
    pub fn new(kind: Finding, object: &'static str, number: u64, evidence: &[u8]) -> Self {
        Self {
            kind: kind.name(),
            object: Object::new(object, number),
            evidence: evidence.to_vec(),
        }
    }
}

/// Returns all findings, in order.
pub fn found(machine: &Machine) -> Vec<Found> {
    let records = machine.nic().findings().recent();
    records
        .iter()
        .map(|record| Found {
            kind: record.kind.name,
            object: record.object,
            evidence: record.evidence.clone(),
        })
        .collect()
}
