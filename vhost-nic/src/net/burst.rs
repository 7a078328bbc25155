//! Frames that are forwarded together.

use std::cell::Cell;

use smallvec::SmallVec;

use super::wire_frame::{EthernetAddresses, Frame};
use super::work::{FrameNumber, Sender};
use crate::frame::mac::CastType;

/// Consecutive frames with the same addresses. Their number and lengths are computed once, for everything that counts
/// them on the way.
#[derive(Debug)]
pub struct Burst<'a> {
    frames: &'a [Frame<'a>],
    addresses: Option<EthernetAddresses>,
    count: u64,
    bytes: u64,
    longest: usize,
    /// Lengths of the frames on the wire, in order, each with the number of consecutive frames of that length.
    lengths: SmallVec<[(usize, u64); 4]>,
    sender: Option<Sender>,
    number: Cell<FrameNumber>,
}

impl<'a> Burst<'a> {
    /// Creates a burst of frames, all of which have the addresses of the first.
    pub fn new(frames: &'a [Frame<'a>]) -> Self {
        debug_assert!(frames.windows(2).all(|pair| pair[0].addresses() == pair[1].addresses()));
        let mut lengths = SmallVec::new();
        let (mut run, mut run_length) = (0, 0);
        let mut add = |length, equal| {
            if length != run_length && run > 0 {
                lengths.push((run_length, run));
                run = 0;
            }
            (run, run_length) = (run + equal, length);
        };
        for frame in frames {
            match frame.length() {
                Some(length) => add(length, 1),
                None => frame.lengths().for_each(|(length, equal)| add(length, equal)),
            }
        }
        if run > 0 {
            lengths.push((run_length, run));
        }
        Self {
            frames,
            addresses: frames.first().and_then(Frame::addresses),
            count: lengths.iter().map(|(_, equal)| equal).sum(),
            bytes: lengths.iter().map(|(length, equal)| *length as u64 * equal).sum(),
            longest: lengths.iter().map(|(length, _)| *length).max().unwrap_or(0),
            lengths,
            sender: None,
            number: Cell::default(),
        }
    }

    /// Returns the burst with the queue and WQE that its frames in bytes come from; super-packets have their own.
    pub fn of(self, sender: Sender) -> Self {
        Self {
            sender: Some(sender),
            ..self
        }
    }

    /// Queue and WQE that a frame of the burst comes from.
    pub fn sender_of(&self, frame: &Frame<'_>) -> Option<Sender> {
        match frame {
            Frame::SuperPacket(super_packet) => super_packet.sender,
            Frame::Bytes(_) => self.sender,
        }
    }

    /// Numbers the frames from `first` on.
    pub(super) fn set_number(&self, first: FrameNumber) {
        self.number.set(first);
        let mut next = first;
        for frame in self.frames {
            next = next.plus(match frame {
                Frame::SuperPacket(super_packet) => {
                    super_packet.number.set(next);
                    super_packet.packets()
                }
                Frame::Bytes(_) => 1,
            });
        }
    }

    /// Number of the first frame.
    pub fn number(&self) -> FrameNumber {
        self.number.get()
    }

    /// Frames and super-packets, in order.
    pub fn frames(&self) -> &'a [Frame<'a>] {
        self.frames
    }

    /// Addresses and VLAN of the frames; `None` if they are shorter than an Ethernet header.
    pub fn addresses(&self) -> Option<EthernetAddresses> {
        self.addresses
    }

    /// Kind of the destination address.
    pub fn cast(&self) -> CastType {
        self.addresses
            .map_or(CastType::Unicast, |addresses| CastType::of(addresses.destination))
    }

    /// Whether the burst is of super-packets.
    pub fn is_of_super_packets(&self) -> bool {
        matches!(self.frames, [Frame::SuperPacket(_), ..])
    }

    /// Number of frames on the wire.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Number of bytes on the wire.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Lengths in bytes of the frames on the wire, in order, each with the number of consecutive frames of that length.
    pub fn lengths(&self) -> &[(usize, u64)] {
        &self.lengths
    }

    /// Calls `act` with each frame on the wire.
    pub fn each(&self, mut act: impl FnMut(Frame<'_>)) {
        for frame in self.frames {
            frame.each(&mut act);
        }
    }

    /// Calls `pass` with the frames of at most `longest` bytes, one at a time, and returns the number of longer ones.
    /// `None`, without a call, if no frame is longer.
    pub fn without_long(&self, longest: usize, mut pass: impl FnMut(&Burst<'_>)) -> Option<u64> {
        if self.longest <= longest {
            return None;
        }
        let mut long = 0;
        self.each(|frame| {
            let frames = [frame];
            let single = Burst {
                sender: self.sender,
                ..Burst::new(&frames)
            };
            if single.longest > longest {
                long += 1;
            } else {
                pass(&single);
            }
        });
        Some(long)
    }
}
