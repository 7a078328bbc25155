//! Events of the execution trace.

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
        /// A send WQE of a queue pair was read. The PSNs are those of its packets, responses included.
        Wqe = "wqe" of "queue" [wqe_index, wqe_opcode, psn, packets],
        /// A send WQE of an SQ was read.
        FrameWqe = "frame_wqe" of "queue" [wqe_index, wqe_opcode],
        /// Packets of one message left together: `bth` is opcode and PSN.
        PacketOut = "packet_out" of "queue" [bth, destination_qp, bytes, route],
        /// Packets of one message arrived together at a queue pair.
        PacketIn = "packet_in" of "queue" [bth, bytes, route],
        /// Nothing was acknowledged in time; packets are sent again.
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
        /// A finding; its object is the row of its kind in docs/findings.md, from 0. `number` is that of the finding's
        /// own object, `count` that of the findings of the kind.
        Finding = "finding" of "kind" [number, count],
    }
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
    use vhost_daemon::testing::assert_events_documented;
    use vhost_daemon::trace::Events;

    use super::*;

    #[test]
    fn every_event_is_documented() {
        assert_events_documented(include_str!("../../../docs/trace.md"), NicEvent::EVENTS);
    }
}
