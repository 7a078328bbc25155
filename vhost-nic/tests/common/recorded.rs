//! NICs that are recorded.

use std::fs::File;
use std::io::{self, Cursor, Seek};
use std::sync::Arc;

use mlx5_test_driver::machine::Machine;
use vhost_daemon::fault::{Faults, GuestFaults};
use vhost_daemon::record::Turns;
use vhost_daemon::trace::Tracer;
use vhost_nic::doors::GuestDoors;
use vhost_nic::fault::{Doors, NicFault};
use vhost_nic::net::Switch;
use vhost_nic::nic::NicConfig;
use vhost_nic::pci::{FunctionConfig, FunctionParts, Identity};
use vhost_nic::record::{Recorder, Setup};
use vhost_nic::replay::{Report, replay};

use crate::nic::{NicFunction, VECTORS, config};

/// A record in progress.
pub struct Recording {
    /// Recorder of the guest.
    pub recorder: Recorder,
    /// File that it writes.
    pub file: File,
}

impl Recording {
    /// Ends the record and returns its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.recorder.finish();
        self.file.rewind().unwrap();
        let mut bytes = Vec::new();
        io::copy(&mut self.file, &mut bytes).unwrap();
        bytes
    }
}

/// A machine as [`machine`](crate::nic::machine) makes it, that is recorded.
pub fn recorded_machine(
    switch: &Arc<Switch>,
    number: u8,
    turns: &Arc<Turns>,
    configure: impl FnOnce(&mut NicConfig),
) -> (Machine, Recording) {
    let mut config = config(number);
    configure(&mut config);
    let (recorder, file) = recorder(turns, &config);
    (behind(&recorder, switch, config), Recording { recorder, file })
}

/// A machine that is recorded, and at whose doors the faults of guest `nic<number>` strike.
pub fn faulty_recorded_machine(
    switch: &Arc<Switch>,
    number: u8,
    turns: &Arc<Turns>,
    faults: &Arc<Faults<NicFault>>,
) -> (Machine, Recording, Doors) {
    let config = config(number);
    let (recorder, file) = recorder(turns, &config);
    let guest = GuestFaults::new(faults, &config.name);
    let doors = GuestDoors::new(Some(guest), Tracer::new(number.into()), Some(recorder.clone()));
    let faults = doors.faults().unwrap().clone();
    (assemble(&doors, switch, config), Recording { recorder, file }, faults)
}

fn recorder(turns: &Arc<Turns>, config: &NicConfig) -> (Recorder, File) {
    let file = tempfile::tempfile().unwrap();
    let setup = Setup::new(config, Identity::default(), VECTORS);
    let recorder = Recorder::to_file(turns.clone(), file.try_clone().unwrap(), &setup).unwrap();
    (recorder, file)
}

/// A machine with a NIC behind a recorder.
pub fn behind(recorder: &Recorder, switch: &Arc<Switch>, config: NicConfig) -> Machine {
    let doors = GuestDoors::new(None, Tracer::new(config.vhca_id), Some(recorder.clone()));
    assemble(&doors, switch, config)
}

fn assemble(doors: &GuestDoors, switch: &Arc<Switch>, config: NicConfig) -> Machine {
    let (identity, mac) = (Identity::default(), config.mac);
    let parts = FunctionParts::new(VECTORS);
    let function = FunctionConfig { identity, mac };
    let (nic, function) = doors.assemble(config, parts, function, switch).unwrap();
    Machine::new(Arc::new(NicFunction { nic, function }), mac.0)
}

/// Replays a record whole. Panics unless all outputs are equal.
#[track_caller]
pub fn equal(record: &[u8]) -> Report {
    let report = replay(Cursor::new(record.to_vec()), None).unwrap();
    assert_eq!(report.difference, None, "{report}");
    report
}
