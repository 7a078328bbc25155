//! NICs that are recorded.

use std::fs::File;
use std::io::{self, Cursor, Seek};
use std::sync::Arc;

use mlx5_test_driver::machine::Machine;
use vhost_daemon::record::Turns;
use vhost_nic::net::Switch;
use vhost_nic::nic::{Nic, NicConfig};
use vhost_nic::pci::{FunctionConfig, FunctionParts, Identity, PciFunction};
use vhost_nic::record::{Recorder, Setup};
use vhost_nic::replay::{Report, replay};

use crate::nic::{NicFunction, VECTORS, config};

/// A record in progress.
pub struct Recording {
    recorder: Recorder,
    file: File,
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
    let file = tempfile::tempfile().unwrap();
    let setup = Setup::new(&config, Identity::default(), VECTORS);
    let recorder = Recorder::to_file(turns.clone(), file.try_clone().unwrap(), &setup).unwrap();
    (behind(&recorder, switch, config), Recording { recorder, file })
}

/// A machine with a NIC behind a recorder.
pub fn behind(recorder: &Recorder, switch: &Arc<Switch>, mut config: NicConfig) -> Machine {
    let (identity, mac) = (Identity::default(), config.mac);
    let parts = FunctionParts::new(VECTORS);
    recorder.install(&parts);
    config.doors = recorder.of_nic();
    let nic = Nic::new(&config, &parts).unwrap();
    nic.connect(switch);
    let function = PciFunction::new(FunctionConfig { identity, mac }, parts, nic.clone());
    recorder.guard(&function);
    let function = Arc::new(function);
    Machine::new(Arc::new(NicFunction { nic, function }), mac.0)
}

/// Replays a record whole. Panics unless all outputs are equal.
#[track_caller]
pub fn equal(record: &[u8]) -> Report {
    let report = replay(Cursor::new(record.to_vec()), None).unwrap();
    assert_eq!(report.difference, None, "{report}");
    report
}
