//! Findings: mistakes of a guest's driver or program, and of its VMM.

vhost_daemon::findings! {
    /// A mistake of a guest: answered as the device's specification says, counted, never fatal.
    pub enum Finding {
        /// A control request or a move that is unknown, of the wrong length, or out of limits.
        BadRequest = Error "bad_request" {
            rule: "A request has a known command, its length, and parameters within the limits.",
            source: "device.md, Control queue",
            answer: "status ERR",
        },
        /// A move that ends beyond its DMB.
        MoveOutside = Error "move_outside" {
            rule: "A move ends within its DMB.",
            source: "device.md, Moves",
            answer: "status ERR; nothing is written",
        },
        /// A control request without a writable byte, or with descriptors that point outside guest memory.
        BadChain = Error "bad_chain" {
            rule: "A request has room for its status, and descriptors that point to guest memory.",
            source: "device.md, Control queue; virtio 1.2, 2.7.5",
            answer: "the chain is returned with used length 0",
        },
        /// A ring with impossible indices; the queue is not served until the device is reset.
        BadRing = Error "bad_ring" {
            rule: "The available index is ahead of what was used by at most the size of the ring.",
            source: "virtio 1.2, 2.7.6 and 2.7.13",
            answer: "the queue is not served until the device is reset",
        },
        /// A doorbell byte that belongs to no attached DMB.
        StrayDoorbell = Error "stray_doorbell" {
            rule: "A doorbell is the byte of the first chunk of an attached DMB.",
            source: "device.md, Doorbell",
            answer: "the doorbell is dropped",
        },
        /// An event buffer too small for its event.
        ShortEventBuffer = Error "short_event_buffer" {
            rule: "Event buffers have at least 64 bytes.",
            source: "device.md, Event queue",
            answer: "the buffer is returned empty; the event waits",
        },
        /// An allocation refused to a peer because the guest does not take its events.
        EventOverflow = Error "event_overflow" {
            rule: "A driver posts event buffers, and takes its events.",
            source: "device.md, Event queue",
            answer: "the peer's request gets ENOSPC: the guest could not be told of the peer's end",
        },
        /// A request with a token that names no live DMB, or none of the guest.
        UnknownToken = Suspicion "unknown_token" {
            rule: "A token is that of a live DMB, which the guest may use in this request.",
            source: "device.md, Control queue and Life",
            answer: "status ENOENT",
        },
        /// An attachment or a move that the owner of the DMB has not permitted.
        AttachDenied = Suspicion "attach_denied" {
            rule: "A guest attaches a DMB once, or moves data to it, with the access that its owner granted.",
            source: "device.md, Control queue and Moves",
            answer: "status PERM_EATTACH, PERM_EREAD or PERM_EWRITE",
        },
        /// A DMB that its owner freed while a peer had it attached.
        DmbFreedAttached = Suspicion "dmb_freed_attached" {
            rule: "An owner frees a DMB after its peers have detached it.",
            source: "device.md, DETACH; `smcd_buf_detach`, net/smc/smc_core.c",
            answer: "the token dies; the memory is kept until the peers detach",
        },
        /// DMBs that a session owned when it ended.
        DmbLeft = Suspicion "dmb_left" {
            rule: "A driver detaches its DMBs before it resets the device.",
            source: "device.md, Life; `unregister_dmb` of `struct dibs_dev_ops`, linux/dibs.h",
            answer: "the DMBs are freed",
        },
        /// DMBs of peers that a session had attached when it ended.
        AttachmentLeft = Suspicion "attachment_left" {
            rule: "A driver detaches what it attached before it resets the device.",
            source: "device.md, Life; `detach_dmb` of `struct dibs_dev_ops`, linux/dibs.h",
            answer: "the attachments end",
        },
    }
}

/// Evidence of a chain that cannot be used: its first descriptor, as in the descriptor table (virtio 1.2, 2.7.5), or if
/// that cannot be read its index, 2 bytes.
pub type Descriptor = Vec<u8>;

impl Finding {
    /// Returns the text of a finding without more to say.
    pub fn text(self) -> &'static str {
        match self {
            Self::BadRequest => "malformed control request",
            Self::MoveOutside => "move that ends beyond its DMB",
            Self::BadChain => "control request without room for the answer",
            Self::BadRing => "ring with impossible indices",
            Self::StrayDoorbell => "doorbell for a DMB that is not attached",
            Self::ShortEventBuffer => "event buffer too small",
            Self::EventOverflow => "no place for the departure of a peer, the guest does not take its events",
            Self::UnknownToken => "request with a token of no DMB",
            Self::AttachDenied => "attachment or move that is not permitted",
            Self::DmbFreedAttached => "DMB freed while a peer has it attached",
            Self::DmbLeft => "session ended with DMBs",
            Self::AttachmentLeft => "session ended with attached DMBs",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vhost_daemon::finding::Kind;
    use vhost_daemon::testing::assert_catalogue;

    use super::*;

    #[test]
    fn the_catalogue_is_up_to_date() {
        let page = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/findings.md"));
        assert_catalogue(page, "vhost-ism", Finding::INFOS);
    }
}
