//! Frames that travel together.

use smallvec::SmallVec;

use super::port::{CastType, EthernetAddresses, Frame};

/// Frames that follow each other and have the same addresses, with what everybody on their way wants to know of all of them: it is looked at
/// once.
#[derive(Debug)]
pub struct Burst<'a> {
    frames: &'a [Frame<'a>],
    addresses: Option<EthernetAddresses>,
    count: u64,
    bytes: u64,
    longest: usize,
    /// The lengths of the frames they are to a wire, in order, and how many that follow each other are that long.
    lengths: SmallVec<[(usize, u64); 4]>,
}

impl<'a> Burst<'a> {
    /// Frames that all have the addresses of the first.
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
        }
    }

    /// The frames.
    pub fn frames(&self) -> &'a [Frame<'a>] {
        self.frames
    }

    /// Where they go and come from. None if they are too short to say.
    pub fn addresses(&self) -> Option<EthernetAddresses> {
        self.addresses
    }

    /// The kind of their destination.
    pub fn cast(&self) -> CastType {
        self.addresses
            .map_or(CastType::Unicast, |addresses| CastType::of(addresses.destination))
    }

    /// Whether they are RoCE packets that travel by reference.
    pub fn is_of_super_packets(&self) -> bool {
        matches!(self.frames, [Frame::SuperPacket(_), ..])
    }

    /// How many frames they are to a wire.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The lengths in bytes of the frames they are to a wire, with how many that follow each other are that long.
    pub fn lengths(&self) -> &[(usize, u64)] {
        &self.lengths
    }

    /// Calls `act` with each frame they are to a wire.
    pub fn each(&self, mut act: impl FnMut(Frame<'_>)) {
        for frame in self.frames {
            frame.each(&mut act);
        }
    }

    /// If any of them is longer than a wire takes: calls `pass` with those that are not, one at a time, and returns how many are.
    pub fn without_long(&self, longest: usize, mut pass: impl FnMut(&Burst<'_>)) -> Option<u64> {
        if self.longest <= longest {
            return None;
        }
        let mut long = 0;
        self.each(|frame| {
            let frames = [frame];
            let single = Burst::new(&frames);
            if single.longest > longest {
                long += 1;
            } else {
                pass(&single);
            }
        });
        Some(long)
    }
}
