//! A peer at a port of the switch that is no NIC: sends hand-made packets, and keeps received ones.

use std::sync::Arc;

use mlx5_test_driver::node::{self, Node};
use parking_lot::Mutex;
use vhost_nic::frame::view::FrameView;
use vhost_nic::net::{Frame, Port, Switch, SwitchPort};
use vhost_nic::roce::gid::Gid;
use vhost_nic::roce::headers::Headers;
use vhost_nic::roce::icrc;
use vhost_nic::roce::packet::{Packet, emit_headers};
use vhost_nic::roce::path::{Addresses, Path};

/// A port without a NIC.
pub struct RawPeer {
    /// MAC address.
    pub mac: [u8; 6],
    /// GID.
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

impl RawPeer {
    /// A peer with the addresses that guest `number` would have.
    pub fn new(switch: &Arc<Switch>, number: u8) -> Self {
        let inbox = Arc::new(Inbox::default());
        let weak = Arc::downgrade(&inbox);
        Self {
            mac: [0x52, 0x54, 0, 0, 0xc5, number],
            gid: node::gid(number),
            port: switch.attach("peer", weak),
            inbox,
        }
    }

    /// Builds a packet of RoCE v2 to a node, with a valid ICRC.
    pub fn packet(&self, to: &Node, headers: &Headers, payload: &[u8]) -> Vec<u8> {
        let addresses = Addresses::new(Gid(self.gid), Gid(to.gid));
        self.packet_with(addresses, to, headers, payload)
    }

    /// Builds a packet of RoCE v1 to a node, with a valid ICRC.
    pub fn v1_packet(&self, to: &Node, headers: &Headers, payload: &[u8]) -> Vec<u8> {
        let addresses = Addresses::Grh {
            source: self.gid,
            destination: to.gid,
        };
        self.packet_with(addresses, to, headers, payload)
    }

    fn packet_with(&self, addresses: Addresses, to: &Node, headers: &Headers, payload: &[u8]) -> Vec<u8> {
        let path = Path {
            source_mac: self.mac.into(),
            destination_mac: to.mac.into(),
            vlan: None,
            addresses,
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

    /// Frames received since the last call.
    fn taken(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.inbox.0.lock())
    }

    /// RoCE packets received since the last call, without payload.
    pub fn packets(&self) -> Vec<Packet> {
        self.taken()
            .iter()
            .filter_map(|frame| Packet::new_checked(&FrameView::new(frame)?).ok())
            .collect()
    }
}

/// Appends payload, padding and ICRC to the headers of a packet.
fn seal(head: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let view = FrameView::new(head).expect("not a frame");
    assert!(
        icrc::append(&view, [payload], &mut frame),
        "not the headers of a packet"
    );
    frame
}
