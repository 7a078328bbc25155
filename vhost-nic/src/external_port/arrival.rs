//! Frames from a peer: RoCE packets are checked here, and travel on as those of a NIC do.

use crate::frame::view::FrameView;
use crate::net::{Frame, Payload, SuperPacket};
use crate::roce::packet::{Packet, is_roce};
use crate::roce::{MAX_PAYLOAD, icrc};

/// A frame from a peer.
#[derive(Debug)]
pub enum Arrived {
    /// Any frame that is not a RoCE packet.
    Bytes(Vec<u8>),
    /// A RoCE packet whose ICRC is correct.
    Packet(Box<SuperPacket<'static>>),
}

impl Arrived {
    /// The frame for the switch.
    pub fn frame(&self) -> Frame<'_> {
        match self {
            Self::Bytes(bytes) => Frame::new(bytes),
            Self::Packet(packet) => Frame::SuperPacket(packet),
        }
    }
}

/// Checks a frame. `None` if it is a RoCE packet with a wrong ICRC, which is dropped without an answer (IBTA volume 1,
/// section 9.6, packet validation).
pub fn admit(bytes: &[u8]) -> Option<Arrived> {
    let packet = FrameView::new(bytes).filter(is_roce).and_then(|view| {
        let head = Packet::new_checked(&view).ok()?;
        (head.payload_length <= MAX_PAYLOAD).then_some((view, head))
    });
    let Some((view, head)) = packet else {
        return Some(Arrived::Bytes(bytes.to_vec()));
    };
    if !icrc::check(&view) {
        return None;
    }
    let mut payload = Payload::new();
    payload.push_bytes(bytes.get(head.payload_offset..head.payload_offset + head.payload_length)?);
    Some(Arrived::Packet(Box::new(SuperPacket::single(head, payload))))
}
