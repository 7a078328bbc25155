//! A function served over a socket in a temporary directory, with a recording device behind it.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pci_function::attachment::vfio_user::Server;
use pci_function::{Device, PciFunction};

use crate::client::{CONFIG, Client};
use crate::common::{FunctionParts, spec};

/// Offset of the BAR at which the device panics.
pub const PANIC: u64 = 0x00de_ad00;

/// A device that records writes and resets.
#[derive(Default)]
pub struct Registers {
    pub writes: Mutex<Vec<(u64, Vec<u8>)>>,
    pub resets: Mutex<u32>,
}

impl Device for Registers {
    /// Every byte reads as the low byte of its offset.
    fn read(&self, offset: u64, data: &mut [u8]) {
        assert_ne!(offset, PANIC, "the panic that the test provokes");
        for (at, byte) in (offset..).zip(data) {
            *byte = at as u8;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.writes.lock().unwrap().push((offset, data.to_vec()));
    }

    fn reset(&self) {
        *self.resets.lock().unwrap() += 1;
    }
}

/// A function and its server.
pub struct Host {
    pub server: Server,
    pub parts: FunctionParts,
    pub device: Arc<Registers>,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let parts = FunctionParts::new(32);
        let device = Arc::new(Registers::default());
        let function = Arc::new(PciFunction::new(spec(), parts.clone(), device.clone()));
        let server = Server::start("test", UnixListener::bind(&path).unwrap(), function).unwrap();
        Self {
            server,
            parts,
            device,
            path,
            _directory: directory,
        }
    }

    /// Path of the socket.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// A client before its first message.
    pub fn stranger(&self) -> Client {
        Client::new(UnixStream::connect(&self.path).unwrap())
    }

    /// A client that has negotiated the version.
    pub fn client(&self) -> Client {
        let mut client = self.stranger();
        client.negotiate();
        client
    }

    /// A client that has enabled the BAR and bus mastering.
    pub fn driver(&self) -> Client {
        let mut client = self.client();
        client.write(CONFIG, 4, &[6, 0]).unwrap();
        client
    }

    /// Takes the writes since the last call.
    pub fn writes(&self) -> Vec<(u64, Vec<u8>)> {
        std::mem::take(&mut self.device.writes.lock().unwrap())
    }

    /// Waits for an effect of the server's thread.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < Duration::from_secs(10), "{what}: not after 10 s");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
