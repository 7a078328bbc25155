//! The front-end of a connection, from a record.

use std::cell::RefCell;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use serde_bytes::ByteBuf;

use super::player::Player;
use crate::abi::MOVE_HEAD;
use crate::connection::{Frontend, Outcome, Request};
use crate::event::{EventRing, Sent};
use crate::mover::{ExecuteMove, MoveRequest};
use crate::record::{Buffer, Event};
use crate::window::{RegionMapper, RegionRange};

/// The queues of a connection and its VMM.
pub(super) struct PlayedFrontend {
    player: Player,
    connection: u32,
}

impl PlayedFrontend {
    pub fn new(player: &Player, connection: u32) -> Self {
        Self {
            player: player.clone(),
            connection,
        }
    }

    fn read_bool(&self, select: impl FnOnce(&Event) -> Option<bool>, replayed: &str) -> bool {
        let replayed = || format!("{replayed} of connection {}", self.connection);
        self.player.take(select, replayed, |_, _| {}).unwrap_or(false)
    }

    fn write(&self, answer: &[u8], is_late: bool) -> Outcome {
        let recorded = |event: &Event| match event {
            Event::Answer {
                connection,
                late,
                data,
                outcome,
            } if (*connection, *late) == (self.connection, is_late) && *data == answer => Some(*outcome),
            _ => None,
        };
        let replayed = || {
            let answer = Event::Answer {
                connection: self.connection,
                late: is_late,
                data: ByteBuf::from(answer),
                outcome: Outcome::Dropped,
            };
            answer.to_string()
        };
        let outcome = self.player.take(recorded, replayed, |counts, outcome| {
            counts.answers += 1;
            counts.interrupts += u64::from(*outcome == Outcome::Written { interrupt: true });
        });
        outcome.unwrap_or(Outcome::Dropped)
    }
}

impl Frontend for PlayedFrontend {
    fn is_ready(&self) -> bool {
        let select = |event: &Event| match event {
            Event::Ready { connection, ready } if *connection == self.connection => Some(*ready),
            _ => None,
        };
        self.read_bool(select, "look at the control queue")
    }

    fn is_at_beginning(&self) -> bool {
        let select = |event: &Event| match event {
            Event::Beginning {
                connection,
                at_beginning,
            } if *connection == self.connection => Some(*at_beginning),
            _ => None,
        };
        self.read_bool(select, "look at the queues")
    }

    fn next_request(&self, _: &dyn Fn() -> bool) -> Option<Request> {
        self.player.take_ring_findings();
        let recorded = |event: &Event| match event {
            Event::Request {
                connection,
                found,
                bytes,
                room,
            } if *connection == self.connection => Some(found.then(|| {
                let bytes = bytes.as_ref().map(|bytes| bytes.to_vec());
                (bytes, *room as usize)
            })),
            _ => None,
        };
        let replayed = || format!("look for a request of connection {}", self.connection);
        let count = |counts: &mut super::Counts, request: &Option<(Option<Vec<u8>>, usize)>| {
            counts.requests += u64::from(request.is_some());
        };
        let (bytes, room) = self.player.take(recorded, replayed, count).flatten()?;
        let bytes = bytes.ok_or_else(|| self.player.take_descriptor(self.connection));
        Some(Request { bytes, room })
    }

    fn answer(&self, answer: &[u8], _: &dyn Fn() -> bool) -> Outcome {
        self.write(answer, false)
    }

    fn answer_late(&self, answer: &[u8]) -> Outcome {
        self.player.take_ring_findings();
        self.write(answer, true)
    }

    fn await_requests(&self) -> bool {
        let select = |event: &Event| match event {
            Event::AwaitRequests { connection, more } if *connection == self.connection => Some(*more),
            _ => None,
        };
        self.read_bool(select, "wait for requests")
    }

    fn serve_move(&self, _: &dyn Fn() -> bool, execute: &mut ExecuteMove<'_>) -> Option<Outcome> {
        self.player.take_ring_findings();
        let recorded = |event: &Event| match event {
            Event::Move {
                connection,
                found,
                head,
                length,
            } if *connection == self.connection => Some(found.then(|| {
                let head = head.as_deref().and_then(|head| head.as_slice().try_into().ok());
                (head, *length)
            })),
            _ => None,
        };
        let replayed = || format!("look for a move of connection {}", self.connection);
        let count = |counts: &mut super::Counts, request: &Option<(Option<[u8; MOVE_HEAD]>, u64)>| {
            counts.requests += u64::from(request.is_some());
        };
        let (head, length) = self.player.take(recorded, replayed, count).flatten()?;
        let head = head.ok_or_else(|| self.player.take_descriptor(self.connection));
        let request = MoveRequest { head, length };
        let status = execute(&request, &mut |_| {
            let select = |event: &Event| match event {
                Event::Copy { connection, ok } if *connection == self.connection => Some(*ok),
                _ => None,
            };
            self.read_bool(select, "copy of a move")
        });
        let recorded = |event: &Event| match event {
            Event::Moved {
                connection,
                status: answer,
                outcome,
            } if (*connection, *answer) == (self.connection, status as u8) => Some(*outcome),
            _ => None,
        };
        let replayed = || format!("answer to a move of connection {}: {}", self.connection, status as u8);
        let count = |counts: &mut super::Counts, outcome: &Outcome| {
            counts.answers += 1;
            counts.interrupts += u64::from(*outcome == Outcome::Written { interrupt: true });
        };
        self.player.take(recorded, replayed, count)
    }

    fn await_moves(&self) -> bool {
        let select = |event: &Event| match event {
            Event::AwaitMoves { connection, more } if *connection == self.connection => Some(*more),
            _ => None,
        };
        self.read_bool(select, "wait for moves")
    }

    fn events(&self) -> Box<dyn EventRing> {
        Box::new(Self::new(&self.player, self.connection))
    }

    fn mapper(&self) -> Option<Arc<dyn RegionMapper>> {
        let connection = self.connection;
        let has = self.player.ask(connection, &Event::Mapper { connection });
        has.then(|| Arc::new(Self::new(&self.player, connection)) as Arc<dyn RegionMapper>)
    }
}

impl EventRing for PlayedFrontend {
    fn send(&mut self, event: &mut dyn FnMut(usize) -> Vec<u8>) -> Sent {
        self.player.take_ring_findings();
        // An event is made for a buffer only: it depends on the length.
        let made = RefCell::new(None);
        let recorded = |next: &Event| match next {
            Event::Send { connection, buffer } if *connection == self.connection => match buffer {
                None => Some(false),
                Some(Buffer { capacity, event: bytes }) => {
                    let event = event(*capacity as usize);
                    let is_equal = *bytes == event;
                    *made.borrow_mut() = Some(Buffer {
                        capacity: *capacity,
                        event: ByteBuf::from(event),
                    });
                    is_equal.then_some(true)
                }
            },
            _ => None,
        };
        let taken = self.player.take(
            recorded,
            || {
                let (connection, buffer) = (self.connection, made.borrow_mut().take());
                Event::Send { connection, buffer }.to_string()
            },
            |counts, taken| counts.events += u64::from(*taken),
        );
        match taken {
            Some(true) if made.take().is_some_and(|made| made.event.is_empty()) => {
                Sent::Short(self.player.take_descriptor(self.connection))
            }
            Some(true) => Sent::Filled,
            Some(false) | None => Sent::None,
        }
    }

    fn signal(&mut self) -> bool {
        let select = |event: &Event| match event {
            Event::Signal { connection, interrupt } if *connection == self.connection => Some(*interrupt),
            _ => None,
        };
        let replayed = || format!("notification of connection {}", self.connection);
        let count = |counts: &mut super::Counts, interrupt: &bool| counts.interrupts += u64::from(*interrupt);
        self.player.take(select, replayed, count).unwrap_or(false)
    }

    fn await_buffers(&mut self) -> bool {
        let select = |event: &Event| match event {
            Event::AwaitBuffers { connection, more } if *connection == self.connection => Some(*more),
            _ => None,
        };
        self.read_bool(select, "wait for event buffers")
    }
}

impl RegionMapper for PlayedFrontend {
    fn map(&self, _: BorrowedFd<'_>, from: u64, to: RegionRange) -> io::Result<()> {
        self.answered(&Event::map(self.connection, from, to))
    }

    fn unmap(&self, range: RegionRange) -> io::Result<()> {
        self.answered(&Event::unmap(self.connection, range))
    }
}

impl PlayedFrontend {
    fn answered(&self, question: &Event) -> io::Result<()> {
        match self.player.ask(self.connection, question) {
            true => Ok(()),
            false => Err(io::Error::other("the VMM refuses")),
        }
    }
}
