//! The front-end of a connection, with the recorder before its queues and its VMM.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use serde_bytes::ByteBuf;

use super::event::{Buffer, Event};
use super::recorder::Recorder;
use crate::connection::{Frontend, FrontendDoor, Outcome, Request};
use crate::event::{EventRing, Sent};
use crate::mover::ExecuteMove;
use crate::window::{RegionMapper, RegionRange};

impl FrontendDoor for Recorder {
    fn connect(&self, guest: u16) -> u32 {
        self.connection(guest)
    }

    fn disconnect(&self, _: u32) {
        self.connection_gone();
    }

    fn serve(&self, connection: u32, frontend: &dyn Frontend, serve: &mut dyn FnMut(&dyn Frontend)) {
        serve(&RecordedFrontend {
            recorder: self.clone(),
            connection,
            frontend,
        });
    }
}

/// The queues of a connection and its VMM.
struct RecordedFrontend<'a> {
    recorder: Recorder,
    connection: u32,
    frontend: &'a dyn Frontend,
}

impl Frontend for RecordedFrontend<'_> {
    fn is_ready(&self) -> bool {
        let ready = self.frontend.is_ready();
        let connection = self.connection;
        self.recorder.log(|| Event::Ready { connection, ready });
        ready
    }

    fn is_at_beginning(&self) -> bool {
        let at_beginning = self.frontend.is_at_beginning();
        self.recorder.log(|| Event::Beginning {
            connection: self.connection,
            at_beginning,
        });
        at_beginning
    }

    fn next_request(&self, current: &dyn Fn() -> bool) -> Option<Request> {
        let request = self.frontend.next_request(current);
        self.recorder.log(|| Event::Request {
            connection: self.connection,
            found: request.is_some(),
            bytes: request
                .as_ref()
                .and_then(|request| request.bytes.as_deref().ok().map(ByteBuf::from)),
            room: request.as_ref().map_or(0, |request| request.room as u64),
        });
        if let Some(Request { bytes: Err(bytes), .. }) = &request {
            log_descriptor(&self.recorder, self.connection, bytes);
        }
        request
    }

    fn answer(&self, answer: &[u8], current: &dyn Fn() -> bool) -> Outcome {
        let outcome = self.frontend.answer(answer, current);
        self.log_answer(false, answer, outcome);
        outcome
    }

    fn answer_late(&self, answer: &[u8]) -> Outcome {
        let outcome = self.frontend.answer_late(answer);
        self.log_answer(true, answer, outcome);
        outcome
    }

    fn await_requests(&self) -> bool {
        let more = self.frontend.await_requests();
        let connection = self.connection;
        self.recorder.log(|| Event::AwaitRequests { connection, more });
        more
    }

    fn serve_move(&self, current: &dyn Fn() -> bool, execute: &mut ExecuteMove<'_>) -> Option<Outcome> {
        let (recorder, connection) = (&self.recorder, self.connection);
        let mut answer = None;
        let outcome = self.frontend.serve_move(current, &mut |request, copy| {
            recorder.log(|| Event::Move {
                connection,
                found: true,
                head: request.head.as_ref().ok().map(ByteBuf::from),
                length: request.length,
            });
            if let Err(bytes) = &request.head {
                log_descriptor(recorder, connection, bytes);
            }
            let status = execute(request, &mut |destination| {
                let ok = copy(destination);
                recorder.log(|| Event::Copy { connection, ok });
                ok
            });
            answer = Some(status as u8);
            status
        });
        recorder.log(|| match (answer, outcome) {
            (Some(status), Some(outcome)) => Event::Moved {
                connection,
                status,
                outcome,
            },
            _ => Event::Move {
                connection,
                found: false,
                head: None,
                length: 0,
            },
        });
        outcome
    }

    fn await_moves(&self) -> bool {
        let more = self.frontend.await_moves();
        let connection = self.connection;
        self.recorder.log(|| Event::AwaitMoves { connection, more });
        more
    }

    fn events(&self) -> Box<dyn EventRing> {
        Box::new(Ring {
            recorder: self.recorder.clone(),
            connection: self.connection,
            ring: self.frontend.events(),
        })
    }

    fn mapper(&self) -> Option<Arc<dyn RegionMapper>> {
        let (recorder, connection) = (self.recorder.clone(), self.connection);
        let question = Event::Mapper { connection };
        let mapper = recorder.ask(connection, question, || self.frontend.mapper(), Option::is_some)?;
        Some(Arc::new(Mapper {
            recorder,
            connection,
            mapper,
        }))
    }
}

impl RecordedFrontend<'_> {
    fn log_answer(&self, late: bool, answer: &[u8], outcome: Outcome) {
        self.recorder.log(|| Event::Answer {
            connection: self.connection,
            late,
            data: ByteBuf::from(answer),
            outcome,
        });
    }
}

fn log_descriptor(recorder: &Recorder, connection: u32, bytes: &[u8]) {
    recorder.log(|| Event::Descriptor {
        connection,
        bytes: ByteBuf::from(bytes),
    });
}

/// The event queue of a connection.
struct Ring {
    recorder: Recorder,
    connection: u32,
    ring: Box<dyn EventRing>,
}

impl EventRing for Ring {
    fn send(&mut self, event: &mut dyn FnMut(usize) -> Vec<u8>) -> Sent {
        let mut buffer = None;
        let fate = self.ring.send(&mut |capacity| {
            let event = event(capacity);
            buffer = Some(Buffer {
                capacity: capacity as u64,
                event: ByteBuf::from(event.as_slice()),
            });
            event
        });
        let connection = self.connection;
        self.recorder.log(|| Event::Send { connection, buffer });
        if let Sent::Short(bytes) = &fate {
            log_descriptor(&self.recorder, connection, bytes);
        }
        fate
    }

    fn signal(&mut self) -> bool {
        let interrupt = self.ring.signal();
        let connection = self.connection;
        self.recorder.log(|| Event::Signal { connection, interrupt });
        interrupt
    }

    fn await_buffers(&mut self) -> bool {
        let more = self.ring.await_buffers();
        let connection = self.connection;
        self.recorder.log(|| Event::AwaitBuffers { connection, more });
        more
    }
}

/// The VMM of a connection.
struct Mapper {
    recorder: Recorder,
    connection: u32,
    mapper: Arc<dyn RegionMapper>,
}

impl RegionMapper for Mapper {
    fn map(&self, memfd: BorrowedFd<'_>, from: u64, to: RegionRange) -> io::Result<()> {
        let question = Event::map(self.connection, from, to);
        let map = || self.mapper.map(memfd, from, to);
        self.recorder.ask(self.connection, question, map, Result::is_ok)
    }

    fn unmap(&self, range: RegionRange) -> io::Result<()> {
        let question = Event::unmap(self.connection, range);
        let unmap = || self.mapper.unmap(range);
        self.recorder.ask(self.connection, question, unmap, Result::is_ok)
    }
}
