//! Replay of a record: the fabric again, without its guests, from the entries of the record and the answers to what the
//! devices ask. Everything that the devices do is compared with the record.
//!
//! The devices are executed one entry after the other. An entry that waits for a VMM ends there, and goes on as another
//! one with the answer: its thread, of which one runs at a time, waits in between.

mod counts;
mod front;
mod player;

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread;

use vhost_daemon::fault::GuestFaults;
use vhost_daemon::record::RecordError;
use vhost_daemon::replay::{self, Found};
use vhost_daemon::trace::Tracer;

use crate::connection::Connection;
use crate::fabric::Fabric;
use crate::fault::FaultDoor;
use crate::guest::{DOORBELL_TAIL, Guest};
use crate::record::{Event, IsmRecord, Reader, Setup};
use crate::tape::Entry;
use front::PlayedFrontend;
use player::{Player, Yields};

pub use counts::Counts;

/// Result of a replay of a fabric.
pub type Report = replay::Report<Event, Counts>;
/// The shortest prefix of a fabric's record that shows a finding.
pub type Prefix = replay::Prefix<Event, Counts>;

/// Longest read of the configuration space in bytes.
const MAX_ACCESS: u32 = 1 << 12;
/// Largest window in bytes.
const MAX_WINDOW: u64 = 1 << 30;
/// Unit of windows, and of the places of slabs in them, in bytes.
const WINDOW_UNIT: u64 = DOORBELL_TAIL;

/// Replays a record, or its first `limit` entries.
///
/// Fails if the record cannot be read to the end, or to the limit. A difference between record and devices is no
/// failure: the replay ends there.
pub fn replay(input: impl Read + Send + 'static, limit: Option<u64>) -> Result<Report, RecordError> {
    let input: Box<dyn Read + Send> = Box::new(input);
    let reader = Reader::new(input)?;
    let setup = reader.setup().clone();
    check(&setup)?;
    let (player, yields) = Player::new(reader);
    let mut machine = Machine {
        setup,
        player,
        devices: None,
    };
    thread::scope(|scope| machine.run(scope, &yields, limit.unwrap_or(u64::MAX)))
}

fn check(setup: &Setup) -> Result<(), RecordError> {
    let window = setup.window_size;
    let fits = (WINDOW_UNIT..=MAX_WINDOW).contains(&window) && window.is_multiple_of(WINDOW_UNIT);
    match fits && setup.max_dmb_size.is_power_of_two() && setup.max_dmb_size <= window {
        true => Ok(()),
        false => Err(RecordError::Setup("its sizes are out of limits".into())),
    }
}

/// Finds the shortest prefix of a record that shows a finding; `None` if all of it shows none. `open` opens the record,
/// once per replay.
pub fn shortest_prefix<R: Read + Send + 'static>(
    open: impl Fn() -> io::Result<R>,
    shows: impl Fn(&Found) -> bool,
) -> Result<Option<Prefix>, RecordError> {
    replay::shortest_prefix(|limit| replay(open().map_err(RecordError::Io)?, limit), shows)
}

/// Copies the first `limit` entries to a record of their own.
pub fn copy_prefix(input: impl Read, output: impl Write, limit: u64) -> Result<(), RecordError> {
    replay::copy_prefix::<IsmRecord>(input, output, limit)
}

/// A fabric and its guests, driven by a record.
struct Machine {
    setup: Setup,
    player: Player,
    devices: Option<Devices>,
}

struct Devices {
    guests: Vec<Arc<Guest>>,
    /// By number.
    connections: Vec<Arc<Connection>>,
}

impl Devices {
    fn guest(&self, number: u16) -> Option<&Arc<Guest>> {
        self.guests.get(usize::from(number))
    }

    fn connection(&self, number: u32) -> Option<&Arc<Connection>> {
        self.connections.get(number as usize)
    }
}

impl Machine {
    fn run<'scope>(
        &mut self,
        scope: &'scope thread::Scope<'scope, '_>,
        yields: &Yields,
        limit: u64,
    ) -> Result<Report, RecordError> {
        while self.player.entries() < limit
            && let Some(entry) = self.player.next_entry()
        {
            let made = match (&mut self.devices, entry) {
                (devices @ None, Entry::Create) => {
                    *devices = Some(create(&self.setup, &self.player));
                    self.player.leave(&[]);
                    Some(())
                }
                (None, _) | (Some(_), Entry::Create) => None,
                (Some(devices), Entry::Control(number)) => {
                    let connection = devices.connection(number).cloned();
                    connection.filter(|_| !self.player.waits(number)).map(|connection| {
                        let player = self.player.clone();
                        scope.spawn(move || {
                            let _end = player.end_of_lane();
                            connection.serve_control(&PlayedFrontend::new(&player, number));
                            player.leave(&[]);
                        });
                        yields.wait();
                    })
                }
                (Some(_), Entry::Answer { connection, ok }) => {
                    let resumed = self.player.resume(connection, ok);
                    resumed.then(|| yields.wait())
                }
                (Some(devices), entry) => self.player.enter_devices(devices, entry),
            };
            if made.is_none() {
                self.player
                    .refuse("an entry is about a guest or connection that does not exist");
            }
        }
        // Threads that still wait find a replay that is over.
        self.player.report()
    }
}

impl Player {
    /// Makes an entry that waits for no VMM. Returns nothing if its guest or connection does not exist.
    fn enter_devices(&self, devices: &mut Devices, entry: Entry) -> Option<()> {
        let mut read = Vec::new();
        match entry {
            Entry::Connect { guest } => {
                let guest = devices.guest(guest)?.clone();
                let connection = Connection::new(guest, Some(Arc::new(self.clone())));
                connection.number();
                devices.connections.push(Arc::new(connection));
            }
            Entry::Config { length, .. } if length > MAX_ACCESS => return None,
            Entry::Config {
                connection,
                offset,
                length,
            } => read = devices.connection(connection)?.config(offset, length),
            Entry::Start(connection) => devices.connection(connection)?.start(),
            Entry::Event(connection) => devices.connection(connection)?.serve_events(),
            Entry::Doorbell(connection) => devices.connection(connection)?.serve_doorbells(),
            Entry::Move(connection) => {
                let frontend = PlayedFrontend::new(self, connection);
                devices.connection(connection)?.serve_moves(&frontend);
            }
            Entry::Stop(connection) => devices.connection(connection)?.stop(),
            Entry::Close(connection) => devices.connection(connection)?.close(),
            Entry::Abandoned { guest } => devices.guest(guest)?.stop_if_paused(),
            Entry::Late(number) => self.do_late(number)?,
            Entry::End { guest } => devices.guest(guest)?.end_session(),
            Entry::Reset { guest } => {
                devices.guest(guest)?.reset_session();
            }
            Entry::Create | Entry::Control(_) | Entry::Answer { .. } => return None,
        }
        self.leave(&read);
        Some(())
    }
}

fn create(setup: &Setup, player: &Player) -> Devices {
    let tape = Arc::new(player.clone());
    let fabric = Arc::new(Fabric::with_tape(setup.chid, setup.limits(), tape));
    let guest = |(name, number): (&String, u16)| {
        let guest = Arc::new(Guest::new(name.clone(), Tracer::new(number), fabric.clone()));
        let faults = GuestFaults::replayed(name, player.of_faults(number));
        FaultDoor::new(faults, Tracer::new(number)).install(&guest);
        guest
    };
    Devices {
        guests: setup.guests.iter().zip(0..).map(guest).collect(),
        connections: Vec::new(),
    }
}
