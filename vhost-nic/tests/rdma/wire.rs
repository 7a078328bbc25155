//! A wire between two switches that loses, duplicates, delays and corrupts packets.

use std::sync::Arc;
use std::sync::Weak;

use parking_lot::Mutex;
use vhost_nic::frame::view::FrameView;
use vhost_nic::net::{Burst, Frame, Port, Switch, SwitchPort};
use vhost_nic::roce::opcode::{Operation, Position};
use vhost_nic::roce::packet::Packet;

/// Fate of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Delivered.
    Pass,
    /// Lost.
    Drop,
    /// Delivered twice.
    Duplicate,
    /// Delivered after the next packet of its direction.
    Delay,
    /// A bit of its last payload byte, or of its ICRC, is flipped.
    Corrupt,
}

/// Kind of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// From the first switch to the second.
    pub forth: bool,
    /// Operation.
    pub operation: Operation,
    /// Position in its message.
    pub position: Position,
    /// PSN.
    pub psn: u32,
}

type Judge = Box<dyn FnMut(&Kind) -> Fate + Send>;

/// A wire, with a port at each switch.
pub struct Wire {
    sides: [Arc<Side>; 2],
}

struct Side {
    forth: bool,
    port: SwitchPort,
    state: Arc<State>,
    other: Mutex<Weak<Side>>,
    delayed: Mutex<Option<Vec<u8>>>,
}

#[derive(Default)]
struct State {
    judge: Mutex<Option<Judge>>,
    seen: Mutex<Vec<Kind>>,
}

impl Wire {
    /// Connects two switches, without faults.
    pub fn new(first: &Arc<Switch>, second: &Arc<Switch>) -> Self {
        let state = Arc::new(State::default());
        let side = |switch: &Arc<Switch>, forth| {
            Arc::new_cyclic(|own: &Weak<Side>| Side {
                forth,
                port: switch.attach("wire", own.clone()),
                state: Arc::clone(&state),
                other: Mutex::default(),
                delayed: Mutex::default(),
            })
        };
        let sides = [side(first, true), side(second, false)];
        *sides[0].other.lock() = Arc::downgrade(&sides[1]);
        *sides[1].other.lock() = Arc::downgrade(&sides[0]);
        Self { sides }
    }

    /// Sets the function that decides the fate of RoCE packets. Super-packets are split from now on; without a judge
    /// they pass whole.
    pub fn judge(&self, judge: impl FnMut(&Kind) -> Fate + Send + 'static) {
        *self.sides[0].state.judge.lock() = Some(Box::new(judge));
    }

    /// Gives the `nth` packet (from 0) that satisfies `which` a fate.
    pub fn strike(&self, nth: usize, fate: Fate, which: impl Fn(&Kind) -> bool + Send + 'static) {
        let mut count = 0;
        self.judge(move |kind| {
            let hit = which(kind);
            count += usize::from(hit);
            if hit && count == nth + 1 { fate } else { Fate::Pass }
        });
    }

    /// Delivers all packets again.
    pub fn calm(&self) {
        *self.sides[0].state.judge.lock() = None;
    }

    /// Takes the packets seen since the last call, whatever their fate.
    pub fn seen(&self) -> Vec<Kind> {
        std::mem::take(&mut self.sides[0].state.seen.lock())
    }
}

impl Side {
    /// Kind of a frame, if it is a RoCE packet.
    fn kind(&self, bytes: &[u8]) -> Option<Kind> {
        let view = FrameView::new(bytes)?;
        let packet = Packet::new_checked(&view).ok()?;
        Some(Kind {
            forth: self.forth,
            operation: packet.opcode.operation(),
            position: packet.opcode.position(),
            psn: packet.headers.bth.psn().value(),
        })
    }
}

impl Port for Side {
    fn receive_burst(&self, burst: &Burst<'_>) {
        let judged = self.state.judge.lock().is_some() || self.delayed.lock().is_some();
        let other = self.other.lock().upgrade();
        match other {
            Some(other) if !judged => {
                burst.each(|frame| {
                    let kind = frame.to_bytes().and_then(|bytes| self.kind(&bytes));
                    self.state.seen.lock().extend(kind);
                });
                other.port.send_burst(burst);
            }
            _ => burst.each(|frame| self.receive(frame)),
        }
    }

    fn receive(&self, frame: Frame<'_>) {
        let Some(other) = self.other.lock().upgrade() else {
            return;
        };
        let Some(bytes) = frame.to_bytes() else { return };
        let mut bytes = bytes.into_owned();
        let kind = self.kind(&bytes);
        let fate = match &kind {
            Some(kind) => {
                self.state.seen.lock().push(*kind);
                self.state.judge.lock().as_mut().map_or(Fate::Pass, |judge| judge(kind))
            }
            None => Fate::Pass,
        };
        let send = |bytes: &[u8]| other.port.send(Frame::new(bytes));
        match fate {
            Fate::Pass => send(&bytes),
            Fate::Drop => {}
            Fate::Duplicate => {
                send(&bytes);
                send(&bytes);
            }
            Fate::Delay => {
                *self.delayed.lock() = Some(bytes);
                return;
            }
            Fate::Corrupt => {
                let at = bytes.len() - 5;
                bytes[at] ^= 0x10;
                send(&bytes);
            }
        }
        let delayed = self.delayed.lock().take();
        if let Some(bytes) = delayed {
            send(&bytes);
        }
    }
}
