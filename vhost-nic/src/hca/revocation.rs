//! Revocation of the permission to read guest memory: payloads by reference keep addresses, and are read after their
//! keys are unlocked. A command or work request that takes a key or a queue pair away returns only when none of them
//! can be read any more.

use std::sync::atomic::Ordering;

use super::Hca;
use super::mkey::{Access, Accessor, Segment, translate};
use super::qp::Qp;
use crate::net::{Origin, Permissions, Readers};

impl Hca {
    /// Puts out of reach what was taken away before the call. Waits for payloads that are being read; queues may be
    /// locked, as the readers lock none.
    pub fn revoke(&self) {
        self.readers.revoke();
    }

    /// Puts the payloads of a queue pair that was stopped out of reach.
    pub fn revoke_payloads_of(&self, qp: &Qp) {
        let next = self.readers.revocations() + 1;
        qp.stopped_at.fetch_max(next, Ordering::AcqRel);
        self.revoke();
    }
}

impl Permissions for Hca {
    fn readers(&self) -> &Readers {
        &self.readers
    }

    fn memory_of(&self, origin: &Origin, since: u64) -> Vec<(u64, usize)> {
        let mut memory = Vec::new();
        let Some(qp) = self.queue_pair(origin.queue) else {
            return memory;
        };
        if qp.stopped_at.load(Ordering::Acquire) > since {
            return memory;
        }
        let parameters = qp.parameters();
        let accessor = Accessor {
            pd: parameters.pd,
            qpn: qp.number,
            reserved_lkey: parameters.reserved_lkey,
        };
        let access = if origin.remote {
            Access::RemoteRead
        } else {
            Access::LocalRead
        };
        let Origin {
            key, address, length, ..
        } = *origin;
        let collect = |segment| {
            if let Segment::Memory(address, length) = segment {
                memory.push((address, length));
            }
            Ok::<(), ()>(())
        };
        match translate(&self.mkeys, key, accessor, address, length as u64, access, collect) {
            Ok(_) => memory,
            Err(_) => Vec::new(),
        }
    }
}
