//! A wire between two switches that does what real wires do at times.

use std::sync::Arc;
use std::sync::Weak;

use parking_lot::Mutex;
use vhost_nic::frame::view::FrameView;
use vhost_nic::net::{Burst, Frame, Port, Switch, SwitchPort};
use vhost_nic::roce::opcode::{Operation, Position};
use vhost_nic::roce::packet::Packet;

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Pass,
    /// It is lost.
    Drop,
    /// It arrives twice.
    Duplicate,
    /// It arrives behind the next one of its direction.
    Delay,
    /// A bit of its last payload byte, or of its check, is flipped.
    Corrupt,
}

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Whether it comes from the first switch.
    pub forth: bool,
    /// What it does.
    pub operation: Operation,
    /// Where it stands in its message.
    pub position: Position,
    /// Its sequence number.
    pub psn: u32,
}

type Judge = Box<dyn FnMut(&Kind) -> Fate + Send>;

/// The wire.
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
    /// A wire between two switches, on which nothing happens yet.
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

    /// Decides from now on what happens to RoCE packets. Each goes by itself then, as bytes; else they pass as they come.
    pub fn judge(&self, judge: impl FnMut(&Kind) -> Fate + Send + 'static) {
        *self.sides[0].state.judge.lock() = Some(Box::new(judge));
    }

    /// Gives the `nth` packet (from 0) for which `which` holds a fate.
    pub fn strike(&self, nth: usize, fate: Fate, which: impl Fn(&Kind) -> bool + Send + 'static) {
        let mut count = 0;
        self.judge(move |kind| {
            let hit = which(kind);
            count += usize::from(hit);
            if hit && count == nth + 1 { fate } else { Fate::Pass }
        });
    }

    /// Nothing happens to packets any more.
    pub fn calm(&self) {
        *self.sides[0].state.judge.lock() = None;
    }

    /// The packets that came since this was asked last, whatever happened to them.
    pub fn seen(&self) -> Vec<Kind> {
        std::mem::take(&mut self.sides[0].state.seen.lock())
    }
}

impl Side {
    /// What a packet is, if it is one.
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
