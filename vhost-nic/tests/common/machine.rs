//! A function in its slot: memory, interrupts and accesses as an attachment gives them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use vhost_nic::net::Switch;
use vhost_nic::nic::{Nic, NicConfig};
use vhost_nic::pci::{
    Delivery, FunctionConfig, FunctionParts, Identity, InterruptLines, MSIX_TABLE, Masking, MsixMessage, PciFunction,
};

use super::memory::{BASE, Memory, SIZE};

/// Vectors of the function.
pub const VECTORS: u16 = 16;
/// Command register of the configuration space: Memory Space Enable, Bus Master Enable.
const COMMAND: u64 = 0x04;
const MEMORY_AND_MASTER: u16 = 1 << 1 | 1 << 2;
/// Message Control of the MSI-X capability (found by [`Machine::msix_control`]): MSI-X Enable.
const MSIX_CAPABILITY: u8 = 0x11;
const MSIX_ENABLE: u16 = 1 << 15;
/// Where messages of a PC's interrupts go.
const MESSAGE_ADDRESS: u64 = 0xfee0_0000;

/// The interrupts that arrived.
#[derive(Debug, Default)]
pub struct Lines {
    arrived: Mutex<BTreeMap<u16, u64>>,
    changed: Condvar,
}

impl InterruptLines for Lines {
    fn deliver(&self, vector: u16, message: MsixMessage) -> Delivery {
        assert_eq!(
            message,
            MsixMessage {
                address: MESSAGE_ADDRESS,
                data: 0x4000 | u32::from(vector)
            }
        );
        *self.arrived.lock().entry(vector).or_default() += 1;
        self.changed.notify_all();
        Delivery::Done
    }
}

impl Lines {
    /// How often a vector's interrupt came.
    pub fn count(&self, vector: u16) -> u64 {
        self.arrived.lock().get(&vector).copied().unwrap_or(0)
    }

    /// Waits until a vector's interrupt has come more than `seen` times; false if it does not in time.
    pub fn wait(&self, vector: u16, seen: u64, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut arrived = self.arrived.lock();
        while arrived.get(&vector).copied().unwrap_or(0) <= seen {
            if self.changed.wait_until(&mut arrived, end).timed_out() {
                return false;
            }
        }
        true
    }
}

/// A guest: the function, its RAM and its interrupts.
pub struct Machine {
    /// The function.
    pub function: PciFunction,
    /// The device behind it, for what is seen from outside only.
    pub nic: Arc<Nic>,
    /// RAM.
    pub memory: Arc<Memory>,
    /// Interrupts.
    pub lines: Arc<Lines>,
    /// The address it came with.
    pub mac: [u8; 6],
}

impl Machine {
    /// A function that is switched on, on a port of `switch`; the `number`th, which its address ends in.
    pub fn new(switch: &Arc<Switch>, number: u8) -> Self {
        Self::with(switch, number, |_| {})
    }

    /// The same, with a NIC that is configured otherwise.
    pub fn with(switch: &Arc<Switch>, number: u8, configure: impl FnOnce(&mut NicConfig)) -> Self {
        let mac = [0x52, 0x54, 0, 0, 0xc5, number];
        let parts = FunctionParts::new(VECTORS);
        let mut config = NicConfig {
            name: format!("nic{number}"),
            mac: mac.into(),
            vhca_id: number.into(),
            blue_flame: None,
            hot: Duration::ZERO,
            zeroed_capabilities: Vec::new(),
        };
        configure(&mut config);
        let nic = Nic::new(&config, &parts).unwrap();
        nic.connect(switch);
        let identity = Identity::default();
        let function = PciFunction::new(
            FunctionConfig {
                identity,
                mac: mac.into(),
            },
            parts,
            nic.clone(),
        );
        let machine = Self {
            function,
            nic,
            memory: Memory::new(),
            lines: Arc::default(),
            mac,
        };
        machine.map();
        machine.function.connect(machine.lines.clone(), Masking::Function);
        machine.switch_on();
        machine
    }

    /// Makes all RAM reachable.
    pub fn map(&self) {
        self.function
            .dma()
            .map(BASE, SIZE, Some(self.memory.backing()))
            .unwrap();
    }

    /// What the PCI core of a kernel does for its driver.
    pub fn switch_on(&self) {
        self.function.config_write(COMMAND, &MEMORY_AND_MASTER.to_le_bytes());
        for vector in 0..VECTORS {
            let mut entry = [0; 16];
            entry[..8].copy_from_slice(&MESSAGE_ADDRESS.to_le_bytes());
            entry[8..12].copy_from_slice(&(0x4000 | u32::from(vector)).to_le_bytes());
            self.function.bar_write(0, MSIX_TABLE + u64::from(vector) * 16, &entry);
        }
        self.function
            .config_write(self.msix_control(), &MSIX_ENABLE.to_le_bytes());
    }

    fn msix_control(&self) -> u64 {
        let mut at = self.config_byte(0x34);
        while self.config_byte(at.into()) != MSIX_CAPABILITY {
            at = self.config_byte(u64::from(at) + 1);
            assert_ne!(at, 0, "there is no MSI-X capability");
        }
        u64::from(at) + 2
    }

    fn config_byte(&self, offset: u64) -> u8 {
        let mut byte = [0];
        self.function.config_read(offset, &mut byte);
        byte[0]
    }

    /// Reads a big-endian register.
    pub fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.function.bar_read(0, offset, &mut data);
        u32::from_be_bytes(data)
    }

    /// Writes a big-endian register.
    pub fn write(&self, offset: u64, value: u32) {
        self.function.bar_write(0, offset, &value.to_be_bytes());
    }

    /// Writes two neighbouring registers at once.
    pub fn write_pair(&self, offset: u64, value: [u8; 8]) {
        self.function.bar_write(0, offset, &value);
    }
}
