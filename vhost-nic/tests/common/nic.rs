//! A NIC of this crate as the device under test of `mlx5_test_driver`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mlx5_test_driver::device::Device;
use mlx5_test_driver::interrupts::Interrupts;
use mlx5_test_driver::machine::Machine;
use mlx5_test_driver::memory::{BASE, Memory, SIZE};
use vhost_nic::dma::Backing;
use vhost_nic::fault::Doors;
use vhost_nic::frame::mac::Mac;
use vhost_nic::hca::limits::Limits;
use vhost_nic::net::Switch;
use vhost_nic::nic::{Nic, NicConfig, NicDoors};
use vhost_nic::pci::{
    Delivery, FunctionConfig, FunctionParts, Identity, InterruptLines, Masking, MsixMessage, PciFunction,
};

/// Number of MSI-X vectors of the function.
pub const VECTORS: u16 = 16;

/// A NIC and the function that it is behind.
pub struct NicFunction {
    /// The NIC, for its snapshot and cable.
    pub nic: Arc<Nic>,
    /// The function.
    pub function: Arc<PciFunction>,
}

struct Lines(Arc<Interrupts>);

impl InterruptLines for Lines {
    fn deliver(&self, vector: u16, message: MsixMessage) -> Delivery {
        self.0.deliver(vector, message.address, message.data);
        Delivery::Done
    }
}

impl Device for NicFunction {
    fn config_read(&self, offset: u64, data: &mut [u8]) {
        self.function.config_read(offset, data);
    }

    fn config_write(&self, offset: u64, data: &[u8]) {
        self.function.config_write(offset, data);
    }

    fn bar_read(&self, offset: u64, data: &mut [u8]) {
        self.function.bar_read(0, offset, data);
    }

    fn bar_write(&self, offset: u64, data: &[u8]) {
        self.function.bar_write(0, offset, data);
    }

    fn reset(&self) {
        self.function.reset();
    }

    fn power_cycle(&self) {
        self.function.power_cycle();
    }

    fn map(&self, memory: &Memory) {
        let backing = Backing {
            file: memory.file(),
            offset: 0,
            writable: true,
        };
        self.function.dma().map(BASE, SIZE, Some(backing)).unwrap();
    }

    fn connect(&self, interrupts: Arc<Interrupts>) {
        self.function.connect(Arc::new(Lines(interrupts)), Masking::Function);
    }

    fn objects(&self) -> BTreeMap<&'static str, usize> {
        self.nic.snapshot().objects
    }

    fn firmware_pages(&self) -> usize {
        self.nic.snapshot().pages
    }
}

/// A machine with a NIC at a port of `switch`. `number` is its VHCA ID, and the last byte of its MAC address.
pub fn machine(switch: &Arc<Switch>, number: u8) -> Machine {
    machine_with(switch, number, |_| {})
}

/// A machine as [`machine`] makes it, with changes to the NIC's configuration.
pub fn machine_with(switch: &Arc<Switch>, number: u8, configure: impl FnOnce(&mut NicConfig)) -> Machine {
    build(switch, number, None, configure)
}

/// Configuration of the NIC with this number.
pub fn config(number: u8) -> NicConfig {
    NicConfig {
        name: format!("nic{number}"),
        mac: Mac([0x52, 0x54, 0, 0, 0xc5, number]),
        identity: Identity::default(),
        vhca_id: number.into(),
        blue_flame: None,
        busy_poll: Duration::ZERO,
        pcie_latency: Duration::ZERO,
        spoof_check: false,
        random_numbers: None,
        check_wqes: false,
        zeroed_capabilities: Vec::new(),
        limits: Limits::default(),
        memory_budget: 1 << 30,
        doors: NicDoors::default(),
    }
}

/// A machine as [`machine_with`] makes it, with doors.
pub fn build(
    switch: &Arc<Switch>,
    number: u8,
    doors: Option<Doors>,
    configure: impl FnOnce(&mut NicConfig),
) -> Machine {
    let parts = FunctionParts::new(VECTORS);
    if let Some(doors) = &doors {
        doors.install(&parts);
    }
    let mut config = NicConfig {
        doors: doors.as_ref().map(Doors::of_nic).unwrap_or_default(),
        ..config(number)
    };
    configure(&mut config);
    let nic = Nic::new(&config, &parts).unwrap();
    nic.connect(switch);
    let (identity, mac) = (config.identity, config.mac);
    let device = match &doors {
        Some(doors) => doors.bar(nic.clone()),
        None => nic.clone(),
    };
    let spec = FunctionConfig { identity, mac }.with_registers(Some(nic.clone()));
    let function = Arc::new(PciFunction::new(spec, parts, device));
    if let Some(doors) = &doors {
        doors.connect(&nic, &function);
    }
    Machine::new(Arc::new(NicFunction { nic, function }), mac.0)
}
