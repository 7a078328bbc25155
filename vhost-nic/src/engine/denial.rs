//! Accesses to memory that a key or the mappings do not allow, as findings.

use super::memory::AccessError;
use crate::hca::Hca;
use crate::hca::mkey::MkeyError;
use crate::hca::nic_finding::{Finding, Object, queue};

/// Reports an access of a queue, or of its peer, that was denied. The evidence is the range in the form of a data
/// segment.
#[cold]
pub(super) fn report(hca: &Hca, number: u32, error: &AccessError) {
    match error {
        AccessError::Mkey(cause, range) => {
            let kind = match *cause {
                MkeyError::Unknown(key) if hca.retired_keys.contains(key) => Finding::StaleKey,
                MkeyError::Unknown(_) => Finding::UnknownKey,
                MkeyError::Domain(_) => Finding::WrongPd,
                MkeyError::Queue(_)
                | MkeyError::Access(_)
                | MkeyError::Range(..)
                | MkeyError::Translation(_)
                | MkeyError::Steps(_)
                | MkeyError::Indirection(_) => Finding::KeyViolation,
            };
            let evidence = [
                &(range.length as u32).to_be_bytes()[..],
                &range.key.to_be_bytes(),
                &range.address.to_be_bytes(),
            ]
            .concat();
            let object = Object::new("mkey", cause.key().into());
            let stale = if kind == Finding::StaleKey { " any more" } else { "" };
            hca.findings.report(
                kind,
                object,
                &evidence,
                format_args!("queue {number:#x}: {cause}{stale}"),
            );
        }
        AccessError::Dma(cause) => hca.findings.report_dma(queue(number), cause),
        // Of the message, not of the memory.
        AccessError::Length | AccessError::Split => {}
    }
}
