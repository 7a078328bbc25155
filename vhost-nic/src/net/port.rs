//! Interface between the switch and what sends and receives on it.

use super::burst::Burst;
use super::wire_frame::Frame;

/// Receiver of frames from a switch.
///
/// Its methods are called on the threads of the senders, concurrently, without a lock of the switch held: they may
/// send.
pub trait Port: Send + Sync {
    /// Receives a single frame. The port drops and counts a frame that it cannot take.
    fn receive(&self, frame: Frame<'_>);

    /// Receives the frames of a burst, super-packets among them.
    fn receive_burst(&self, burst: &Burst<'_>) {
        burst.each(|frame| self.receive(frame));
    }

    /// The cable between the port and the switch was plugged in or pulled.
    fn cable_changed(&self, _plugged: bool) {}
}
