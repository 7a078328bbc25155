//! What sends and receives Ethernet frames.

/// A frame on its way, without preamble and frame check sequence. Its bytes are complete: checksums filled in, at most the MTU long.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The bytes, from the destination address on.
    pub bytes: &'a [u8],
}

/// Something a switch can send frames to.
///
/// `receive` is called from the threads of the senders, many at a time.
pub trait Port: Send + Sync {
    /// Takes a frame. What cannot be taken is dropped and counted by the port.
    fn receive(&self, frame: Frame<'_>);
}

/// Frames and bytes through a port, seen from the port's owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames sent into the switch.
    pub sent: u64,
}
