//! Replay of a record: the NIC again, without its guest, from the entries of the record and the answers to its
//! accesses, on one thread. Everything that the NIC does is compared with the record.

mod counts;
mod player;

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use vhost_daemon::fault::GuestFaults;
use vhost_daemon::record::RecordError;
use vhost_daemon::replay::{self, Found};
use vhost_daemon::trace::Tracer;

use crate::fault::Doors;
use crate::frame::mac::Mac;
use crate::hca::limits::Limits;
use crate::net::Switch;
use crate::nic::{Nic, NicConfig, NicDoors};
use crate::pci::{FunctionConfig, FunctionParts, Identity, MAX_VECTORS, Masking, PciFunction};
use crate::record::{Entry, Event, NicRecord, Reader, Setup, Space};
use player::Player;

pub use counts::Counts;

/// Result of a replay of a NIC.
pub type Report = replay::Report<Event, Counts>;
/// The shortest prefix of a NIC's record that shows a finding.
pub type Prefix = replay::Prefix<Event, Counts>;

/// Longest register access of an attachment, in bytes.
const MAX_ACCESS: u32 = 1 << 16;

/// Replays a record, or its first `limit` entries from outside.
///
/// Fails if the record cannot be read to the end, or to the limit. A difference between record and NIC is no failure:
/// the replay ends there.
pub fn replay(input: impl Read + Send + 'static, limit: Option<u64>) -> Result<Report, RecordError> {
    let input: Box<dyn Read + Send> = Box::new(input);
    let reader = Reader::new(input)?;
    let setup = reader.setup().clone();
    let machine = Machine::new(&setup, Player::new(reader))?;
    machine.run(limit.unwrap_or(u64::MAX))
}

/// Finds the shortest prefix of a record that shows a finding; `None` if all of it shows none. `open` opens the record,
/// once per replay.
pub fn shortest_prefix<R: Read + Send + 'static>(
    open: impl Fn() -> io::Result<R>,
    shows: impl Fn(&Found) -> bool,
) -> Result<Option<Prefix>, RecordError> {
    replay::shortest_prefix(|limit| replay(open().map_err(RecordError::Io)?, limit), shows)
}

/// Copies the first `limit` entries from outside to a record of their own.
pub fn copy_prefix(input: impl Read, output: impl Write, limit: u64) -> Result<(), RecordError> {
    replay::copy_prefix::<NicRecord>(input, output, limit)
}

/// A NIC and its function, driven by a record.
struct Machine {
    nic: Arc<Nic>,
    function: Arc<PciFunction>,
    doors: Doors,
    player: Player,
}

impl Machine {
    fn new(setup: &Setup, player: Player) -> Result<Self, RecordError> {
        let invalid = |error: Box<dyn std::error::Error + Send + Sync>| RecordError::Setup(error);
        let identity: Identity = setup.identity.parse().map_err(|error| invalid(Box::new(error)))?;
        let mac: Mac = setup.mac.parse().map_err(|error| invalid(Box::new(error)))?;
        if !(1..=MAX_VECTORS).contains(&setup.vectors) {
            return Err(invalid(format!("{} vectors", setup.vectors).into()));
        }
        let parts = FunctionParts::new(setup.vectors);
        player.install(&parts);
        let faults = GuestFaults::replayed(&setup.name, Arc::new(player.clone()));
        let doors = Doors::new(faults, Tracer::new(setup.vhca_id));
        let config = NicConfig {
            name: setup.name.clone(),
            mac,
            identity,
            vhca_id: setup.vhca_id,
            blue_flame: setup.blue_flame_ns.map(Duration::from_nanos),
            busy_poll: Duration::ZERO,
            pcie_latency: Duration::ZERO,
            spoof_check: setup.spoof_check,
            random_numbers: setup.random_numbers,
            check_wqes: setup.check_wqes,
            zeroed_capabilities: setup.zeroed_capabilities.clone(),
            limits: Limits::default(),
            memory_budget: setup.memory_budget.unwrap_or(u64::MAX),
            doors: NicDoors {
                cable: Some(Arc::new(player.clone())),
                tape: Some(Arc::new(player.clone())),
                ..doors.of_nic()
            },
        };
        let nic = Nic::without_thread(&config, &parts).map_err(|error| invalid(Box::new(error)))?;
        nic.connect(&Switch::new());
        player.connect(&nic);
        let device = doors.bar(nic.clone());
        let spec = FunctionConfig { identity, mac }.with_registers(Some(nic.clone()));
        let function = Arc::new(PciFunction::new(spec, parts, device));
        doors.connect(&nic, &function);
        Ok(Self {
            nic,
            function,
            doors,
            player,
        })
    }

    fn run(&self, limit: u64) -> Result<Report, RecordError> {
        while self.player.entries() < limit
            && let Some(entry) = self.player.next_entry()
        {
            let read = self.enter(&entry);
            self.player.leave(&read);
        }
        self.player.report(self.nic.summary().commands)
    }

    /// Makes an entry from outside. Returns what it reads.
    fn enter(&self, entry: &Entry) -> Vec<u8> {
        let mut read = Vec::new();
        let function = &self.function;
        match entry {
            Entry::Read { length, .. } if *length > MAX_ACCESS => self.player.refuse("an access is too long"),
            Entry::Read { space, offset, length } => {
                read.resize(*length as usize, 0);
                match space {
                    Space::Config => function.config_read(*offset, &mut read),
                    Space::Bar(bar) => function.bar_read(*bar, *offset, &mut read),
                }
            }
            Entry::Write { space, offset, data } => match space {
                Space::Config => function.config_write(*offset, data),
                Space::Bar(bar) => function.bar_write(*bar, *offset, data),
            },
            Entry::Reset => function.reset(),
            Entry::PowerCycle => function.power_cycle(),
            Entry::Connect { masked_by_attachment } => {
                let masking = match masked_by_attachment {
                    true => Masking::Attachment,
                    false => Masking::Function,
                };
                function.connect(Arc::new(self.player.clone()), masking);
            }
            Entry::Disconnect => function.disconnect(),
            Entry::Raise(vector) => function.raise_interrupt(*vector),
            Entry::Retry(first, count) => function.retry_interrupts(*first, *count),
            Entry::Step => self.nic.step(),
            Entry::Receive(frames) => self.player.receive(&self.nic, frames),
            Entry::Cable(plugged) => self.nic.set_cable(*plugged),
            Entry::Fault(fault) => match serde_json::from_str(fault) {
                Ok(fault) => self.doors.act_on_nic(&fault),
                Err(_) => self.player.refuse("a fault is not known"),
            },
            Entry::Late(number) => self.player.do_late(*number),
            Entry::PartnerSpeed(gbps) => {
                let _ = self.nic.set_partner_speed(*gbps);
            }
        }
        read
    }
}
