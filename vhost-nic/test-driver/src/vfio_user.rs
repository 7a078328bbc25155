//! A device of another process, over vfio-user.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::device::Device;
use crate::hca::Hca;
use crate::interrupts::Interrupts;
use crate::machine::Machine;
use crate::memory::{BASE, Memory, SIZE};
use crate::netdev::{Netdev, Options};

/// VFIO_PCI_BAR0_REGION_INDEX and VFIO_PCI_CONFIG_REGION_INDEX (linux/vfio.h).
const BAR0: u32 = 0;
const CONFIG: u32 = 7;
/// VFIO_PCI_MSIX_IRQ_INDEX.
const MSIX: u32 = 2;
/// VFIO_IRQ_SET_DATA_EVENTFD with VFIO_IRQ_SET_ACTION_TRIGGER.
const EVENTFD_TRIGGER: u32 = 1 << 2 | 1 << 5;

/// A client of a guest's socket, which it leaves when dropped.
pub struct VfioUserDevice {
    client: Mutex<vfio_user::Client>,
    lines: Mutex<Option<Lines>>,
}

/// The thread that passes on interrupts.
struct Lines {
    stop: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

fn line() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

impl VfioUserDevice {
    /// Connects to a guest's socket, as a VMM does. Panics if nobody serves it.
    pub fn connect(socket: &Path) -> Self {
        Self {
            client: Mutex::new(vfio_user::Client::new(socket).unwrap()),
            lines: Mutex::default(),
        }
    }
}

impl Device for VfioUserDevice {
    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let mut client = self.client.lock();
        client.region_read(CONFIG, offset, data).unwrap();
    }

    fn config_write(&self, offset: u64, data: &[u8]) {
        let mut client = self.client.lock();
        client.region_write(CONFIG, offset, data).unwrap();
    }

    fn bar_read(&self, offset: u64, data: &mut [u8]) {
        self.client.lock().region_read(BAR0, offset, data).unwrap();
    }

    fn bar_write(&self, offset: u64, data: &[u8]) {
        self.client.lock().region_write(BAR0, offset, data).unwrap();
    }

    fn reset(&self) {
        self.client.lock().reset().unwrap();
    }

    fn map(&self, memory: &Memory) {
        let file = memory.file();
        self.client.lock().dma_map(0, BASE, SIZE, file.as_raw_fd()).unwrap();
    }

    fn connect(&self, interrupts: Arc<Interrupts>) {
        let mut client = self.client.lock();
        let count = client.get_irq_info(MSIX).unwrap().count;
        let vectors: Vec<OwnedFd> = (0..count).map(|_| line()).collect();
        let descriptors: Vec<RawFd> = vectors.iter().map(AsRawFd::as_raw_fd).collect();
        client.set_irqs(MSIX, EVENTFD_TRIGGER, 0, count, &descriptors).unwrap();
        let stop = Arc::new(line());
        let thread = thread::spawn({
            let stop = stop.clone();
            move || pass_on(&vectors, &stop, &interrupts)
        });
        *self.lines.lock() = Some(Lines { stop, thread });
    }
}

/// Boots the driver of a guest on its socket.
pub fn boot(socket: &Path, mac: [u8; 6]) -> Netdev {
    let machine = Machine::new(Arc::new(VfioUserDevice::connect(socket)), mac);
    Netdev::open(&Arc::new(Hca::boot(&Arc::new(machine))), &Options::default())
}

/// Passes interrupts on until `stop` is readable.
fn pass_on(vectors: &[OwnedFd], stop: &OwnedFd, interrupts: &Interrupts) {
    loop {
        let all = vectors.iter().chain([stop]);
        let mut ready: Vec<PollFd<'_>> = all.map(|line| PollFd::new(line, PollFlags::IN)).collect();
        poll(&mut ready, None).unwrap();
        let ready: Vec<bool> = ready.iter().map(|line| !line.revents().is_empty()).collect();
        if ready[vectors.len()] {
            return;
        }
        for ((vector, line), _) in (0..).zip(vectors).zip(&ready).filter(|(_, ready)| **ready) {
            rustix::io::read(line, &mut [0; 8]).unwrap();
            interrupts.signal(vector);
        }
    }
}

impl Drop for VfioUserDevice {
    fn drop(&mut self) {
        let _ = self.client.lock().shutdown();
        if let Some(Lines { stop, thread }) = self.lines.lock().take() {
            rustix::io::write(&stop, &1_u64.to_ne_bytes()).unwrap();
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking());
        }
    }
}
