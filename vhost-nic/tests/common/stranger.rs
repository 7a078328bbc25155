//! Somebody at a port of the switch who is no NIC of ours: it sends packets made by hand, and keeps what comes for it.

use std::sync::Arc;

use parking_lot::Mutex;
use vhost_nic::frame::view::FrameView;
use vhost_nic::net::{Frame, Port, Switch, SwitchPort};
use vhost_nic::roce::gid::Gid;
use vhost_nic::roce::headers::Headers;
use vhost_nic::roce::icrc;
use vhost_nic::roce::packet::{Packet, emit_headers};
use vhost_nic::roce::path::{Addresses, Path};

use super::node::{self, Node};

/// Somebody at a port.
pub struct Stranger {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its address as a GID.
    pub gid: [u8; 16],
    port: SwitchPort,
    inbox: Arc<Inbox>,
}

#[derive(Default)]
struct Inbox(Mutex<Vec<Vec<u8>>>);

impl Port for Inbox {
    fn receive(&self, frame: Frame<'_>) {
        if let Some(bytes) = frame.to_bytes() {
            self.0.lock().push(bytes.into_owned());
        }
    }
}

impl Stranger {
    /// Somebody with the addresses that guest `number` would have.
    pub fn new(switch: &Arc<Switch>, number: u8) -> Self {
        let inbox = Arc::new(Inbox::default());
        let weak = Arc::downgrade(&inbox);
        Self {
            mac: [0x52, 0x54, 0, 0, 0xc5, number],
            gid: node::gid(number),
            port: switch.attach("stranger", weak),
            inbox,
        }
    }

    /// A packet to a node, with the right ICRC.
    pub fn packet(&self, to: &Node, headers: &Headers, payload: &[u8]) -> Vec<u8> {
        let path = Path {
            source_mac: self.mac.into(),
            destination_mac: to.mac.into(),
            vlan: None,
            addresses: Addresses::new(Gid(self.gid), Gid(to.gid)),
            udp_source_port: 0xc123,
            traffic_class: 0,
            hop_limit: 64,
            flow_label: 0,
        };
        let mut head = Vec::new();
        emit_headers(&path, headers, payload.len(), &mut head);
        seal(&head, payload)
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) {
        self.port.send(Frame::new(frame));
    }

    /// The frames that came since this was asked last.
    pub fn taken(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.inbox.0.lock())
    }

    /// The RoCE packets among them, without their payload.
    pub fn packets(&self) -> Vec<Packet> {
        self.taken()
            .iter()
            .filter_map(|frame| Packet::new_checked(&FrameView::new(frame)?).ok())
            .collect()
    }
}

/// Puts payload, padding and ICRC behind the head of a packet.
pub fn seal(head: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let view = FrameView::new(head).expect("this is no frame");
    assert!(
        icrc::append(&view, [payload], &mut frame),
        "this is no head of a packet"
    );
    frame
}
