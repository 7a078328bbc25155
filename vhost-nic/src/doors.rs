//! The doors of a guest's NIC and function: faults, a recorder, or both. Faults of the wire, of interrupts and of guest
//! memory are behind the recorder, which sees their effects; the others are in the NIC that it records.

use std::sync::Arc;

use vhost_daemon::fault::GuestFaults;
use vhost_daemon::trace::Tracer;

use crate::fault::{Doors, NicFault};
use crate::net::Switch;
use crate::nic::{Nic, NicConfig, NicDoors, NicError};
use crate::pci::{Device, FunctionConfig, FunctionParts, PciFunction};
use crate::record::{Behind, Recorder};

/// Users of the doors of a guest.
#[derive(Debug, Clone, Default)]
pub struct GuestDoors {
    faults: Option<Doors>,
    recorder: Option<Recorder>,
}

impl GuestDoors {
    /// Puts faults and a recorder at the doors of a guest; `tracer` is that of its NIC.
    pub fn new(faults: Option<GuestFaults<NicFault>>, tracer: Tracer, recorder: Option<Recorder>) -> Self {
        let faults = faults.map(|faults| {
            let faults = match recorder.clone() {
                None => faults,
                Some(recorder) => faults.with_tape(Arc::new(recorder)),
            };
            Doors::new(faults, tracer)
        });
        let behind = faults.as_ref().map(behind).unwrap_or_default();
        Self {
            recorder: recorder.map(|recorder| recorder.before(behind)),
            faults,
        }
    }

    /// The faults, if there are any.
    pub fn faults(&self) -> Option<&Doors> {
        self.faults.as_ref()
    }

    /// The recorder, if there is one.
    pub fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    /// Creates a NIC at the switch and its function, with these doors.
    pub fn assemble(
        &self,
        mut config: NicConfig,
        parts: FunctionParts,
        function: FunctionConfig,
        switch: &Arc<Switch>,
    ) -> Result<(Arc<Nic>, Arc<PciFunction>), NicError> {
        config.doors = self.install(&parts);
        let nic = Nic::new(&config, &parts)?;
        nic.connect(switch);
        let device: Arc<dyn Device> = match &self.faults {
            Some(faults) => faults.bar(nic.clone()),
            None => nic.clone(),
        };
        let spec = function.with_registers(Some(nic.clone()));
        let function = Arc::new(PciFunction::new(spec, parts, device));
        if let Some(faults) = &self.faults {
            faults.connect(&nic, &function);
        }
        if let Some(recorder) = &self.recorder {
            recorder.guard(&function);
        }
        Ok((nic, function))
    }

    /// Puts the doors into guest memory and interrupts. Returns those of the NIC itself.
    fn install(&self, parts: &FunctionParts) -> NicDoors {
        let of_faults = self.faults.as_ref().map(Doors::of_nic).unwrap_or_default();
        match (&self.recorder, &self.faults) {
            (Some(recorder), _) => {
                recorder.install(parts);
                NicDoors {
                    commands: of_faults.commands,
                    entries: of_faults.entries,
                    ..recorder.of_nic()
                }
            }
            (None, Some(faults)) => {
                faults.install(parts);
                of_faults
            }
            (None, None) => of_faults,
        }
    }
}

/// Returns the doors of faults that are behind a recorder.
fn behind(faults: &Doors) -> Behind {
    let faults = Arc::new(faults.clone());
    Behind {
        memory: Some(faults.clone()),
        interrupts: Some(faults.clone()),
        cable: Some(faults),
    }
}
