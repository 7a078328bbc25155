//! Entrance of a peer's frames to the switch, and the link that it depends on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::arrival::{Arrived, admit};
use super::medium::DropReason;
use crate::net::{Burst, Frame, SwitchPort};

/// The port at the switch, as the thread uses it that receives from the peer.
pub(super) struct Entrance {
    shared: Arc<Shared>,
    port: SwitchPort,
}

impl Entrance {
    pub fn new(shared: Arc<Shared>, port: SwitchPort) -> Self {
        Self { shared, port }
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Checks a frame, and appends it to those for [`deliver`](Self::deliver).
    pub fn admit(&self, frame: &[u8], arrived: &mut Vec<Arrived>) {
        match admit(frame) {
            Some(frame) => arrived.push(frame),
            None => drop(self.shared.drops.bad_icrc.increment()),
        }
    }

    /// Counts a frame that was dropped.
    pub fn count_dropped(&self, reason: DropReason) {
        self.shared.drops.of(reason).increment();
    }

    /// Delivers the frames, consecutive ones of a kind with the same addresses together.
    pub fn deliver(&self, arrived: &mut Vec<Arrived>) {
        let together = |a: &Arrived, b: &Arrived| {
            let is_packet = |arrived: &Arrived| matches!(arrived, Arrived::Packet(_));
            is_packet(a) == is_packet(b) && a.frame().addresses() == b.frame().addresses()
        };
        for burst in arrived.chunk_by(together) {
            let frames: Vec<Frame<'_>> = burst.iter().map(Arrived::frame).collect();
            self.port.send_burst(&Burst::new(&frames));
        }
        arrived.clear();
    }

    /// A peer is there: the link is up.
    pub fn connect(&self) {
        self.shared.connections.increment();
        self.shared.connected.store(true, Ordering::Release);
        self.port.set_enabled(true);
    }

    /// The peer is gone: the link is down, and the frames that wait for it are dropped, with `in_hand` frames that have
    /// left the queue.
    pub fn disconnect(&self, in_hand: usize) {
        self.shared.connected.store(false, Ordering::Release);
        self.port.set_enabled(false);
        let waiting = self.shared.departure.clear();
        self.shared.drops.disconnected.add((waiting + in_hand) as u64);
    }
}
