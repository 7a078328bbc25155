//! A function served over a socket in a temporary directory, with memory for registers behind it.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pci_function::attachment::vhost_user_pci::Server;
use pci_function::{Device, PciFunction};
use tempfile::TempDir;

use crate::common::{BAR, FunctionParts, spec};
use crate::driver::{Driver, MMIO_READ, SOON};

/// A device whose registers are memory.
#[derive(Default)]
pub struct Registers {
    pub bytes: Mutex<Vec<u8>>,
    pub resets: AtomicU64,
}

impl Device for Registers {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let at = offset as usize;
        data.copy_from_slice(&self.bytes.lock()[at..at + data.len()]);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let at = offset as usize;
        self.bytes.lock()[at..at + data.len()].copy_from_slice(data);
    }

    fn reset(&self) {
        let mut bytes = self.bytes.lock();
        bytes.clear();
        bytes.resize(BAR.size as usize, 0);
        self.resets.fetch_add(1, Ordering::Relaxed);
    }
}

/// A served function.
pub struct Host {
    pub function: Arc<PciFunction>,
    pub parts: FunctionParts,
    pub registers: Arc<Registers>,
    pub server: Server,
    pub path: PathBuf,
    _dir: TempDir,
}

impl Host {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nic");
        let registers = Arc::new(Registers::default());
        registers.reset();
        let parts = FunctionParts::new(32);
        let function = Arc::new(PciFunction::new(spec(), parts.clone(), registers.clone()));
        let server = Server::start("a", UnixListener::bind(&path).unwrap(), function.clone()).unwrap();
        Self {
            function,
            parts,
            registers,
            server,
            path,
            _dir: dir,
        }
    }

    /// A driver that has enabled the function's memory, bus mastering and MSI-X, all vectors unmasked.
    pub fn driver(&self) -> Driver {
        let mut driver = Driver::connect(&self.path);
        driver.set_config(4, &6_u16.to_le_bytes());
        let capability = msix_capability(&mut driver);
        driver.set_config(capability + 2, &0x8000_u16.to_le_bytes());
        for vector in 0..32_u32 {
            let mut entry = [0; 16];
            entry[..8].copy_from_slice(&0xa_0000_u64.to_le_bytes());
            entry[8..12].copy_from_slice(&(64 + vector).to_le_bytes());
            driver.write(BAR.msix_table + u64::from(vector) * 16, &entry);
        }
        driver
    }

    /// Waits until the device has noticed that the guest disconnected.
    pub fn wait_for_reset(&self, count: u64) {
        let begin = Instant::now();
        while self.registers.resets.load(Ordering::Relaxed) < count {
            assert!(begin.elapsed() < SOON, "the function is reset");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

pub fn msix_capability(driver: &mut Driver) -> u64 {
    let mut at = u64::from(driver.config(0x34) & 0xff);
    loop {
        let capability = driver.config(at);
        if capability & 0xff == 0x11 {
            return at;
        }
        at = u64::from(capability >> 8 & 0xff);
        assert_ne!(at, 0, "there is an MSI-X capability");
    }
}

/// Asserts that the device still works.
pub fn assert_works(driver: &mut Driver) {
    assert_eq!(driver.config(0), 0x1017_15b3);
    driver.write(0x8000, b"as usual");
    assert_eq!(driver.read(MMIO_READ, 0x8000, 8), *b"as usual");
}
