//! Faults of the wire.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use vhost_daemon::fault::GuestFaults;

use super::kind::{Door, Frames};
use super::{Doors, NicFault, Occasion};
use crate::frame::view::FrameView;
use crate::net::{Burst, Cable, Direction, End, Frame, OwnedEnd, Payload, SuperPacket};
use crate::roce::grh::{GRH_LENGTH, Grh};
use crate::roce::headers::Aeth;
use crate::roce::opcode::Operation;
use crate::roce::packet::Packet;
use crate::roce::rnr::RnrTimer;
use crate::roce::syndrome::Syndrome;

/// Longest time that a frame waits for others to overtake it.
const REORDER_TIMEOUT: Duration = Duration::from_millis(10);
/// Maximum number of frames that wait to be overtaken, in each direction.
const MAX_HELD: usize = 1024;
/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;
/// Bytes of a RoCE packet that its ICRC covers in part only: the flipped bit is behind them.
const PARTLY_COVERED: usize = 8;

/// Frames and rules in between.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// Frames to lose, by direction, of a burst that has begun.
    losing: Mutex<[u64; 2]>,
    held: Mutex<[Vec<Held>; 2]>,
    next: Mutex<u64>,
    /// Time at which the last frame leaves, by rule and direction.
    departure: Mutex<HashMap<(usize, bool), Instant>>,
}

/// A frame that waits to be overtaken.
struct Held {
    number: u64,
    frames_to_pass: u64,
    bytes: Vec<u8>,
    end: OwnedEnd,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held")
            .field("frames_to_pass", &self.frames_to_pass)
            .finish_non_exhaustive()
    }
}

/// Fate of one frame.
#[derive(Debug, Default)]
struct Outcome {
    lost: Option<u64>,
    copies: u64,
    distance: Option<u64>,
    flip: Option<u64>,
    departure: Option<Instant>,
    rnr: Option<RnrTimer>,
}

/// RoCE headers of a frame, as far as rules look at them.
#[derive(Debug, Clone, Copy, Default)]
struct Headers {
    destination_qp: u32,
    opcode: Option<u8>,
    acknowledges: bool,
}

impl Headers {
    fn of(packet: &Packet) -> Self {
        Self {
            destination_qp: packet.headers.bth.destination_qpn(),
            opcode: Some(packet.headers.bth.opcode),
            acknowledges: is_acknowledgement(packet),
        }
    }
}

impl Frames {
    fn contain(&self, direction: Direction, headers: Headers) -> bool {
        self.direction.is_none_or(|wanted| wanted == direction)
            && self.opcode.is_none_or(|wanted| headers.opcode == Some(wanted))
    }
}

impl Cable for Doors {
    fn carry(&self, direction: Direction, burst: &Burst<'_>, end: End<'_>) {
        if !self.armed(Door::Wire) {
            return end.pass(burst);
        }
        burst.each(|frame| {
            self.act(Occasion::Frame, 0);
            self.carry_one(direction, frame, end);
        });
    }
}

impl Doors {
    fn carry_one(&self, direction: Direction, frame: Frame<'_>, end: End<'_>) {
        let wire = &self.0.wire;
        let packet = packet_of(&frame);
        let headers = packet.as_ref().map(Headers::of).unwrap_or_default();
        let mut outcome = Outcome {
            copies: 1,
            ..Outcome::default()
        };
        let bytes = frame.longest();
        let select = |fault: &NicFault| wire_fault(fault, direction, headers);
        self.0
            .faults
            .strike_each(headers.destination_qp, select, |rule, fault, random| {
                self.record(Door::Wire, headers.destination_qp);
                outcome.add(wire, (rule, direction), &fault, random, bytes);
            });
        {
            let losing = &mut wire.losing.lock()[direction as usize];
            if let Some(burst) = outcome.lost {
                *losing = (*losing).max(burst);
            }
            if *losing > 0 {
                *losing -= 1;
                return;
            }
        }
        let nak = outcome.rnr.zip(packet).map(|(timer, packet)| rnr_nak(packet, timer));
        let frame = nak.as_ref().map_or(frame, Frame::SuperPacket);
        if let Some(distance) = outcome.distance
            && wire.hold(direction, distance, &frame, end)
        {
            return self.release_after_timeout(direction);
        }
        for _ in 0..outcome.copies {
            match (outcome.flip, outcome.departure) {
                (None, None) => end.pass(&Burst::new(&[frame])),
                (flip, departure) => {
                    let Some(bytes) = frame.to_bytes() else { continue };
                    let mut bytes = bytes.into_owned();
                    if let Some(random) = flip {
                        flip_bit(&mut bytes, random);
                    }
                    match departure {
                        None => end.pass(&Burst::new(&[Frame::new(&bytes)])),
                        Some(time) => pass_at(&self.0.faults, time, bytes, end.to_owned()),
                    }
                }
            }
        }
        wire.overtake(direction);
    }

    fn release_after_timeout(&self, direction: Direction) {
        let doors = self.clone();
        let newest = *self.0.wire.next.lock();
        self.0.faults.after(REORDER_TIMEOUT, move || {
            doors.0.wire.release(direction, |held| held.number <= newest);
        });
    }
}

impl Outcome {
    fn add(&mut self, wire: &Wire, (rule, direction): (usize, Direction), fault: &NicFault, random: u64, bytes: usize) {
        let now = self.departure.unwrap_or_else(Instant::now);
        match fault {
            NicFault::FrameLoss { burst, .. } => self.lost = Some(*burst),
            NicFault::FrameDuplicate { .. } => self.copies += 1,
            NicFault::FrameReorder { distance, .. } => self.distance = Some(*distance),
            NicFault::FrameCorrupt { .. } => self.flip = Some(random),
            NicFault::RnrNak { timer } => self.rnr = Some(RnrTimer::new(*timer)),
            NicFault::FrameDelay { delay, jitter, .. } => {
                let jitter = jitter.0.mul_f64(random as f64 / u64::MAX as f64);
                self.departure = Some(now + delay.0 + jitter);
            }
            NicFault::FrameRate {
                mbit_per_second, queue, ..
            } => {
                let time = Duration::from_nanos(bytes as u64 * 8 * 1000 / (*mbit_per_second).max(1));
                let mut departures = wire.departure.lock();
                let last = departures.entry((rule, direction == Direction::In)).or_insert(now);
                let begin = now.max(*last);
                if begin - now > queue.0 {
                    self.lost = Some(1);
                } else {
                    *last = begin + time;
                    self.departure = Some(*last);
                }
            }
            _ => {}
        }
    }
}

impl Wire {
    /// Keeps a frame until `distance` others have passed; returns false if too many wait, or it has no bytes any more.
    fn hold(&self, direction: Direction, distance: u64, frame: &Frame<'_>, end: End<'_>) -> bool {
        let Some(bytes) = frame.to_bytes() else { return false };
        let held = &mut self.held.lock()[direction as usize];
        if distance == 0 || held.len() >= MAX_HELD {
            return false;
        }
        let mut number = self.next.lock();
        *number += 1;
        held.push(Held {
            number: *number,
            frames_to_pass: distance,
            bytes: bytes.into_owned(),
            end: end.to_owned(),
        });
        true
    }

    /// Counts a frame that has passed, and releases those that have waited for it.
    fn overtake(&self, direction: Direction) {
        let mut waiting = false;
        for held in &mut self.held.lock()[direction as usize] {
            held.frames_to_pass -= 1;
            waiting |= held.frames_to_pass == 0;
        }
        if waiting {
            self.release(direction, |held| held.frames_to_pass == 0);
        }
    }

    fn release(&self, direction: Direction, due: impl Fn(&Held) -> bool) {
        let mut released = Vec::new();
        {
            let held = &mut self.held.lock()[direction as usize];
            let (now, later) = std::mem::take(held).into_iter().partition(due);
            *held = later;
            released.extend::<Vec<Held>>(now);
        }
        for Held { bytes, end, .. } in released {
            end.pass(&Burst::new(&[Frame::new(&bytes)]));
        }
    }
}

/// Returns a fault of the wire that is about a frame.
fn wire_fault(fault: &NicFault, direction: Direction, headers: Headers) -> Option<NicFault> {
    let frames = match fault {
        NicFault::FrameLoss { frames, .. }
        | NicFault::FrameDuplicate { frames }
        | NicFault::FrameReorder { frames, .. }
        | NicFault::FrameCorrupt { frames }
        | NicFault::FrameDelay { frames, .. }
        | NicFault::FrameRate { frames, .. } => frames,
        NicFault::RnrNak { .. } if direction == Direction::Out && headers.acknowledges => return Some(fault.clone()),
        _ => return None,
    };
    frames.contain(direction, headers).then(|| fault.clone())
}

fn packet_of(frame: &Frame<'_>) -> Option<Packet> {
    match frame {
        Frame::SuperPacket(packet) => Some(packet.head),
        Frame::Bytes(bytes) => FrameView::new(bytes).and_then(|view| Packet::new_checked(&view).ok()),
    }
}

/// Whether a packet is a positive acknowledgement without data.
fn is_acknowledgement(packet: &Packet) -> bool {
    let syndrome = packet.headers.aeth.and_then(|aeth| Syndrome::from_byte(aeth.syndrome));
    packet.opcode.operation() == Operation::Acknowledge && matches!(syndrome, Some(Syndrome::Ack { .. }))
}

/// Returns the RNR NAK in place of an acknowledgement: of the same PSN, from which the requester goes on. The responder
/// has executed the request, and acknowledges the repetition as a duplicate.
fn rnr_nak(mut acknowledgement: Packet, timer: RnrTimer) -> SuperPacket<'static> {
    let msn = acknowledgement.headers.aeth.map_or(0, |aeth| aeth.msn());
    acknowledgement.headers.aeth = Some(Aeth::new(Syndrome::Rnr(timer).byte(), msn));
    SuperPacket::single(acknowledgement, Payload::new())
}

/// Flips a bit behind the transport header, where a checksum covers it.
fn flip_bit(bytes: &mut [u8], random: u64) {
    let Some(view) = FrameView::new(bytes) else { return };
    let transport = view.transport_range();
    let header = if Grh::of(&view).is_some() {
        GRH_LENGTH
    } else {
        UDP_HEADER
    };
    let first = (transport.start + header + PARTLY_COVERED).min(transport.end.saturating_sub(1));
    let length = transport.end.saturating_sub(first);
    if length > 0 {
        let bit = random % (length as u64 * 8);
        bytes[first + (bit / 8) as usize] ^= 1 << (bit % 8);
    }
}

fn pass_at(faults: &GuestFaults<NicFault>, time: Instant, bytes: Vec<u8>, end: OwnedEnd) {
    faults.at(time, move || end.pass(&Burst::new(&[Frame::new(&bytes)])));
}
