//! The device as a connection of a guest's VMM sees it, independently of vhost-user.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use log::warn;
use parking_lot::Mutex;
use vhost_daemon::finding::Object;
use vhost_daemon::heartbeat;
use zerocopy::IntoBytes;

use crate::abi::{CONTROL_QUEUE, Status};
use crate::control;
use crate::event::EventRing;
use crate::fabric::Mode;
use crate::guest::{Guest, Session, Start};
use crate::ism_finding::{Descriptor, Finding};
use crate::mover::{self, CopyData, ExecuteMove, MoveRequest};
use crate::tape::{Entry, GuestTape};
use crate::window::RegionMapper;

/// A request from the control queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The readable bytes, or the descriptor if there are none, they cannot be read, or they are more than
    /// [`control::MAX_REQUEST`].
    pub bytes: Result<Vec<u8>, Descriptor>,
    /// Maximum length of the answer in bytes.
    pub room: usize,
}

/// Outcome of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Outcome {
    /// It was written.
    Written {
        /// Whether the guest was interrupted.
        interrupt: bool,
    },
    /// The queue is stopped.
    Stopped,
    /// The session of the request has ended, or the request is gone.
    Dropped,
}

/// The queues of a connection, and its VMM.
pub trait Frontend {
    /// Whether the control queue is ready.
    fn is_ready(&self) -> bool;

    /// Whether control and event queue are at their beginning, as after a reset.
    fn is_at_beginning(&self) -> bool;

    /// Takes the next control request, unless the queue has been stopped, or stopped and restarted: then `current`
    /// returns false.
    fn next_request(&self, current: &dyn Fn() -> bool) -> Option<Request>;

    /// Answers the request that was taken last, unless `current` returns false: then its session has ended.
    fn answer(&self, answer: &[u8], current: &dyn Fn() -> bool) -> Outcome;

    /// Answers the last request from before the queue was stopped, as long as no later one has been taken. The ring,
    /// and the request in it, are unchanged.
    fn answer_late(&self, answer: &[u8]) -> Outcome;

    /// Enables the kick for the next request. Returns whether one has become available meanwhile; false if the queue is
    /// not ready.
    fn await_requests(&self) -> bool;

    /// Takes the next move and answers it with the status that `execute` returns, unless the queue has been stopped, or
    /// stopped and restarted: then `current` returns false. Returns nothing if there is none.
    fn serve_move(&self, current: &dyn Fn() -> bool, execute: &mut ExecuteMove<'_>) -> Option<Outcome>;

    /// Enables the kick for the next move. Returns whether one has become available meanwhile; false if the queue is
    /// not ready.
    fn await_moves(&self) -> bool;

    /// Returns the event queue.
    fn events(&self) -> Box<dyn EventRing>;

    /// Returns the mapper, if the VMM supports one.
    fn mapper(&self) -> Option<Arc<dyn RegionMapper>>;
}

/// A door between connections and their front-ends: a recorder.
pub trait FrontendDoor: Send + Sync {
    /// Returns the number of a new connection of a guest.
    fn connect(&self, guest: u16) -> u32;

    /// Notes that a connection is gone, and all of its workers.
    fn disconnect(&self, connection: u32);

    /// Calls `serve` with what is to be used in place of a front-end.
    fn serve(&self, connection: u32, frontend: &dyn Frontend, serve: &mut dyn FnMut(&dyn Frontend));
}

/// Handling of control requests.
enum Handling {
    /// A session executes them.
    Session(Arc<Session>),
    /// No session is possible: every request is refused.
    Refusal,
    /// The device is stopped: they stay in the queue.
    None,
}

/// The answer to the last request of a queue that was stopped before the answer could be written, and its session.
type LateAnswer = (Arc<Session>, Vec<u8>);

/// A connection of a guest's VMM.
pub struct Connection {
    guest: Arc<Guest>,
    /// Number at the door, from the first entry on.
    number: OnceLock<u32>,
    door: Option<Arc<dyn FrontendDoor>>,
    /// The device is stopped, and its restart has not begun.
    stopped: AtomicBool,
    late: Mutex<Option<LateAnswer>>,
    /// The VMM is gone; requests left in its queues are not served.
    closed: AtomicBool,
}

impl Connection {
    /// Creates the connection of a VMM. A guest with a tape has a `door`.
    pub fn new(guest: Arc<Guest>, door: Option<Arc<dyn FrontendDoor>>) -> Self {
        Self {
            guest,
            number: OnceLock::new(),
            door,
            stopped: AtomicBool::new(true),
            late: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// The guest.
    pub fn guest(&self) -> &Arc<Guest> {
        &self.guest
    }

    /// Announces the connection to its door, on the first call, and returns its number there. Until then the VMM has
    /// changed nothing: a back-end waits for one with a connection already.
    pub fn number(&self) -> u32 {
        *self
            .number
            .get_or_init(|| match (&self.door, self.guest.stats().tape()) {
                (Some(door), Some(tape)) => door.connect(tape.guest),
                _ => 0,
            })
    }

    fn enter(&self, entry: impl FnOnce(u32) -> Entry, act: impl FnMut()) {
        GuestTape::enter(self.guest.stats().tape(), |_| entry(self.number()), act);
    }

    fn with(&self, frontend: &dyn Frontend, mut serve: impl FnMut(&dyn Frontend)) {
        match &self.door {
            None => serve(frontend),
            Some(door) => door.serve(self.number(), frontend, &mut serve),
        }
    }

    /// Reads the configuration space.
    pub fn config(&self, offset: u32, length: u32) -> Vec<u8> {
        let read = || self.read_config(offset, length);
        let Some(GuestTape { tape, .. }) = self.guest.stats().tape() else {
            return read();
        };
        let entry = Entry::Config {
            connection: self.number(),
            offset,
            length,
        };
        let mut bytes = Vec::new();
        tape.enter(entry, &mut || {
            bytes = read();
            bytes.clone()
        });
        bytes
    }

    fn read_config(&self, offset: u32, length: u32) -> Vec<u8> {
        if self.stopped.load(Ordering::Acquire) {
            // A paused machine does not read it.
            self.guest.stop_if_paused();
        }
        let config = self.guest.config();
        let bytes = config.as_bytes();
        (0..length as usize)
            .map(|i| {
                (offset as usize)
                    .checked_add(i)
                    .and_then(|at| bytes.get(at))
                    .copied()
                    .unwrap_or(0)
            })
            .collect()
    }

    /// Marks a start of the device.
    pub fn start(&self) {
        self.enter(Entry::Start, || self.stopped.store(false, Ordering::Release));
    }

    /// Handles the stop of the device.
    pub fn stop(&self) {
        self.enter(Entry::Stop, || {
            self.stopped.store(true, Ordering::Release);
            self.guest.pause();
        });
    }

    /// Handles the end of the VMM.
    pub fn close(&self) {
        self.enter(Entry::Close, || {
            self.closed.store(true, Ordering::Release);
            self.guest.end_session();
        });
    }

    /// Handles a kick of the event queue.
    pub fn serve_events(&self) {
        self.enter(Entry::Event, || {
            if let Some(session) = self.guest.session() {
                session.events().flush();
            }
        });
    }

    /// Handles a kick of the doorbell queue.
    pub fn serve_doorbells(&self) {
        self.enter(Entry::Doorbell, || {
            if let Some(session) = self.guest.session() {
                session.serve_doorbells();
            }
        });
    }

    /// Handles a kick of the control queue.
    pub fn serve_control(&self, frontend: &dyn Frontend) {
        self.enter(Entry::Control, || {
            self.with(frontend, |frontend| self.serve_requests(frontend));
        });
    }

    /// Handles a kick of the move queue.
    pub fn serve_moves(&self, frontend: &dyn Frontend) {
        self.enter(Entry::Move, || {
            self.with(frontend, |frontend| {
                if let Some(session) = self.guest.session() {
                    execute_moves(&session, frontend);
                }
            });
        });
    }

    /// Returns the handling of control requests; begins or resumes a session if the device has just been started.
    /// Called on the control worker only.
    fn handling(&self, frontend: &dyn Frontend) -> Handling {
        if let Some(session) = self.guest.session() {
            return Handling::Session(session);
        }
        let still_up = || !self.closed.load(Ordering::Acquire) && frontend.is_ready();
        if !still_up() {
            return Handling::None;
        }
        let Some(mapper) = frontend.mapper() else {
            return Handling::Refusal;
        };
        let how = match frontend.is_at_beginning() {
            true => Start::Initial,
            false => Start::Resumed,
        };
        match self.guest.start(still_up, how, frontend.events(), mapper) {
            Ok(Some(session)) => {
                // Doorbells that rang, and moves that were posted, while the device was stopped.
                match self.guest.mode() {
                    Mode::Mapped => session.serve_doorbells(),
                    Mode::Copy => execute_moves(&session, frontend),
                }
                Handling::Session(session)
            }
            Ok(None) => Handling::None,
            Err(error) => self.refuse(&error),
        }
    }

    fn refuse(&self, error: &io::Error) -> Handling {
        warn!("{}: cannot begin a session: {error}", self.guest.stats().guest());
        Handling::Refusal
    }

    /// Answers the request that a session made before the machine was paused.
    fn answer_late(&self, session: &Arc<Session>, frontend: &dyn Frontend) {
        let mut late = self.late.lock();
        if let Some((asker, answer)) = late.take()
            && Arc::ptr_eq(&asker, session)
            && frontend.answer_late(&answer) == Outcome::Stopped
        {
            *late = Some((asker, answer));
        }
    }

    fn serve_requests(&self, frontend: &dyn Frontend) {
        let stats = self.guest.stats();
        loop {
            let session = match self.handling(frontend) {
                Handling::Session(session) => Some(session),
                Handling::Refusal => None,
                // The requests in the queue are for the next session.
                Handling::None => return,
            };
            if let Some(session) = &session {
                self.answer_late(session, frontend);
            }
            // The driver may reset the device while its request waits for the VMM, and start it again.
            let current = || session.as_ref().is_none_or(|session| session.is_alive());
            let has_queues = || session.as_ref().is_none_or(|session| session.has_queues());
            while let Some(request) = frontend.next_request(&current) {
                heartbeat::progress();
                let bytes = request.bytes.as_ref().map(Vec::as_slice).map_err(Vec::as_slice);
                let answer = match &session {
                    _ if request.room == 0 => {
                        let control = Object::new("virtqueue", CONTROL_QUEUE.into());
                        let (Ok(evidence) | Err(evidence)) = bytes;
                        stats.report(Finding::BadChain, control, evidence);
                        Vec::new()
                    }
                    Some(session) => control::answer(session, bytes, request.room),
                    None => vec![Status::Err as u8],
                };
                let outcome = frontend.answer(&answer, &has_queues);
                if let (Outcome::Stopped, Some(session)) = (outcome, &session) {
                    *self.late.lock() = Some((session.clone(), answer));
                }
            }
            // Enable the next kick, and look again for requests that came before.
            if !frontend.is_ready() || current() && !frontend.await_requests() {
                return;
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let (Some(number), Some(door)) = (self.number.get(), &self.door) {
            door.disconnect(*number);
        }
    }
}

/// Executes moves until there is none.
fn execute_moves(session: &Session, frontend: &dyn Frontend) {
    session.stats().counters.kicks.increment();
    let current = || session.is_alive();
    loop {
        let mut execute = |request: &MoveRequest, copy: &mut CopyData<'_>| mover::execute(session, request, copy);
        while frontend.serve_move(&current, &mut execute).is_some() {
            heartbeat::progress();
        }
        if !current() || !frontend.await_moves() {
            return;
        }
    }
}
