//! Events of the execution trace.

use std::time::Duration;

use mlx5_prm::queue_entry::CqeOpcode;
use vhost_daemon::NamedEvent;
use vhost_daemon::trace::Tracer;

use crate::dma::MemoryAccess;
use crate::roce::packet::Packet;

vhost_daemon::trace_events! {
    /// An event of the execution trace.
    pub enum NicEvent {
        /// A doorbell of a send queue, or the part of a WQE that rings it.
        Doorbell = "doorbell" of "queue" [],
        /// A whole WQE came through a doorbell register (BlueFlame).
        BlueFlame = "blue_flame" of "queue" [wqe_index, bytes],
        /// An arm doorbell of a CQ.
        ArmCq = "arm_cq" of "cq" [consumer],
        /// A doorbell of an EQ.
        UpdateEq = "update_eq" of "eq" [consumer, arm],
        /// A doorbell of the command queue; `slots` has a bit for each slot that was rung.
        CommandDoorbell = "command_doorbell" of "command_queue" [slots],
        /// The NIC's thread turned to a queue: after a doorbell or a response, or because it polled the queue.
        Service = "service" of "queue" [polled],
        /// The NIC's thread began to poll a queue, or polls it no longer.
        HotPeriod = "hot_period" of "queue" [begins],
        /// A timer of a queue pair was set; `timer` is its kind ([`Timer`]).
        TimerSet = "timer_set" of "queue" [timer, delay_us],
        /// A timer of a queue pair expired.
        TimerExpired = "timer_expired" of "queue" [],
        /// A CQ delays its event (`cq_period`).
        ModerationSet = "moderation_set" of "cq" [delay_us],
        /// The delay of a CQ's event is over.
        ModerationExpired = "moderation_expired" of "cq" [],
        /// The NIC reads guest memory.
        DmaRead = "dma_read" of "purpose" [address_high, address_low, bytes],
        /// The NIC writes to guest memory.
        DmaWrite = "dma_write" of "purpose" [address_high, address_low, bytes],
        /// A send WQE of a queue pair was read. The PSNs are those of its packets, responses included.
        Wqe = "wqe" of "queue" [wqe_index, wqe_opcode, psn, packets],
        /// A send WQE of an SQ was read.
        FrameWqe = "frame_wqe" of "queue" [wqe_index, wqe_opcode],
        /// Packets of one message left together: `bth` is opcode and PSN.
        PacketOut = "packet_out" of "queue" [bth, destination_qp, bytes, route],
        /// Packets of one message arrived together at a queue pair.
        PacketIn = "packet_in" of "queue" [bth, bytes, route],
        /// The responder acknowledges requests, or refuses one; syndrome and MSN are those of the AETH.
        AckOut = "ack_out" of "queue" [psn, syndrome, msn],
        /// The requester received an acknowledgement or a NAK.
        AckIn = "ack_in" of "queue" [psn, syndrome, msn],
        /// Nothing was acknowledged in time; packets are sent again, or the queue pair fails after the last retry.
        AckTimeout = "ack_timeout" of "queue" [psn],
        /// The peer was not ready to receive; packets are sent again after a delay.
        RnrNak = "rnr_nak" of "queue" [psn, delay_us],
        /// Packets or their responses were lost; they are sent again.
        Retransmission = "retransmission" of "queue" [psn],
        /// A frame was written to a receive WQE of an RQ.
        FrameIn = "frame_in" of "queue" [wqe_index, bytes],
        /// A CQE was written; the syndrome is 0 but in an error CQE.
        Cqe = "cqe" of "cq" [queue, wqe_index, cqe_opcode, syndrome],
        /// An EQE was written; `source` is the number of the object, or the slots of a command completion.
        Eqe = "eqe" of "eq" [event_type, sub_type, source],
        /// An MSI-X vector was raised.
        Interrupt = "interrupt" of "vector" [eq],
        /// A fault of the plan struck; `door` is its place (docs/faults.md).
        Fault = "fault" of "object" [door],
        /// A command was executed. Duration in nanoseconds; delivery status in bits 15:8 of `status`, status in 7:0.
        Command = "command" of "command_queue" [opcode, status, syndrome, duration],
        /// A finding; its object is the row of its kind in docs/findings.md, from 0, counted through the two catalogues
        /// of this daemon. `number` is that of the finding's
        /// own object, `count` that of the findings of the kind.
        Finding = "finding" of "kind" [number, count],
    }
}

/// Timers of a queue pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Acknowledgement timeout.
    Acknowledgement,
    /// Delay that the peer asked for in an RNR NAK.
    ReceiverNotReady,
    /// Next check of a queue pair in the error state.
    Flush,
}

impl Timer {
    /// All timers, by their number in events.
    pub const ALL: [Self; 3] = [Self::Acknowledgement, Self::ReceiverNotReady, Self::Flush];
}

/// An error CQE.
pub const ERROR_CQE: NamedEvent = NamedEvent {
    name: "error_cqe",
    event: NicEvent::Cqe as u16,
    is: is_error_cqe,
};

/// Whether the arguments of a [`NicEvent::Cqe`] are those of an error CQE.
pub fn is_error_cqe([_, _, opcode, _]: &[u32; 4]) -> bool {
    [CqeOpcode::RequestError, CqeOpcode::ResponderError]
        .map(|error| error as u32)
        .contains(opcode)
}

/// Duration in microseconds as an argument of an event.
pub fn microseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

/// Records an access to guest memory.
#[inline]
pub fn record_access(tracer: Tracer, access: &MemoryAccess) {
    let event = if access.write {
        NicEvent::DmaWrite
    } else {
        NicEvent::DmaRead
    };
    tracer.record(event, access.purpose as u32, || {
        let bytes = u32::try_from(access.length).unwrap_or(u32::MAX);
        [(access.address >> 32) as u32, access.address as u32, bytes, 0]
    });
}

/// Folds the addresses of a packet: equal at sender and receiver, and different for most pairs of ports.
pub fn route(packet: &Packet) -> u32 {
    let fold = |mac: &[u8; 6]| u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]);
    let path = &packet.path;
    fold(&path.source_mac.0).rotate_left(16) ^ fold(&path.destination_mac.0)
}

/// Opcode and PSN of a packet, as in the first and the last word of its BTH.
pub fn bth(packet: &Packet) -> u32 {
    let bth = &packet.headers.bth;
    u32::from(bth.opcode) << 24 | bth.psn().value()
}

#[cfg(test)]
mod tests {
    use pci_function::dma::Purpose as _;
    use vhost_daemon::testing::assert_events_documented;
    use vhost_daemon::trace::Events;

    use super::*;
    use crate::dma::Purpose;

    #[test]
    fn every_event_is_documented() {
        assert_events_documented(include_str!("../../../docs/trace.md"), NicEvent::EVENTS);
    }

    #[test]
    fn every_purpose_is_documented_with_its_number() {
        let names = Purpose::NAMES.iter().enumerate();
        let list: Vec<String> = names.map(|(number, name)| format!("{number} `{name}`")).collect();
        let page = include_str!("../../../docs/trace.md")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        assert!(page.contains(&format!("{}.", list.join(", "))), "{list:?}");
    }
}
