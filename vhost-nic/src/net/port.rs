//! What sends and receives Ethernet frames.

/// A frame on its way, without preamble and frame check sequence. Its bytes are complete: checksums filled in, at most the MTU long.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The bytes, from the destination address on.
    pub bytes: &'a [u8],
}

/// Something a switch can send frames to.
///
/// Its methods are called from the threads of the senders, many at a time, with no lock of the switch held: they may send in turn.
pub trait Port: Send + Sync {
    /// Takes a frame. What cannot be taken is dropped and counted by the port.
    fn receive(&self, frame: Frame<'_>);

    /// The cable between the port and the switch was plugged in or pulled.
    fn cable_changed(&self, _plugged: bool) {}
}
