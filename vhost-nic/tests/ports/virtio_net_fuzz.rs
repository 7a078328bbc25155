//! Fuzz driver: bytes become descriptors, indices and kicks of a virtio-net driver's queues, messages of its front-end,
//! and frames of a station meanwhile. Afterwards the next driver on the socket is served as ever.
//!
//! Shared by the fuzz target and a test that needs no fuzzer.

use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tempfile::TempDir;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost_nic::external_port::ExternalPort;
use vhost_nic::net::{Frame, Port, Switch, SwitchPort};

use crate::virtio_net_driver::*;

/// Steps of a run.
const MAX_STEPS: u64 = 300;
/// Time after which a frame counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pairs of queues.
const PAIRS: usize = 2;
const FEATURES: [u64; 4] = [
    0,
    VERSION_1 | MERGEABLE,
    VERSION_1 | EVENT_IDX | INDIRECT | MERGEABLE | GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6,
    VERSION_1 | GUEST_CSUM | GUEST_TSO4,
];
/// Addresses of buffers: in memory, at its ends, on a ring, and outside.
const ADDRESSES: [u64; 9] = [
    BASE + 0x10_0000,
    BASE + 0x10_0000,
    BASE + 0x20_0000,
    BASE + 0x20_0000,
    BASE,
    BASE + MEMORY - 64,
    BASE + MEMORY,
    0,
    u64::MAX - 7,
];
const LENGTHS: [u32; 12] = [12, 10, 64, 128, 1526, 4096, 65_562, 0, 1, 11, 0x2_0000, u32::MAX];
const NUMBERS: [u16; 8] = [0, 1, 2, SIZE - 1, SIZE, SIZE + 1, 0x7fff, u16::MAX];

struct Keeper(Sender<Vec<u8>>);

impl Port for Keeper {
    fn receive(&self, frame: Frame<'_>) {
        frame.each(|frame| {
            let bytes = frame.to_bytes().expect("frames of the port are bytes");
            let _ = self.0.send(bytes.into_owned());
        });
    }
}

/// A switch with a port for drivers, and a station.
struct Host {
    station: SwitchPort,
    received: Receiver<Vec<u8>>,
    _keeper: Arc<Keeper>,
    _port: ExternalPort,
    directory: TempDir,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("port")).unwrap();
        let switch = Switch::new();
        let port = ExternalPort::serve_vhost_user(&switch, "virtio", listener, PAIRS, 1 << 30, 1 << 20).unwrap();
        let (sender, received) = channel();
        let keeper = Arc::new(Keeper(sender));
        let weak: Weak<Keeper> = Arc::downgrade(&keeper);
        let station = switch.attach("station", weak);
        station.set_enabled(true);
        Self {
            station,
            received,
            _keeper: keeper,
            _port: port,
            directory,
        }
    }

    fn connect(&self, features: u64) -> Driver {
        Driver::connect(&self.directory.path().join("port"), features)
    }

    /// Passes a frame each way through a driver that makes no mistake.
    fn assert_works(&self) {
        let mut driver = self.connect(FEATURES[2]);
        (0..2).for_each(|index| driver.start_ring(index, SIZE));
        driver.post(0, 0, 2048);
        let frame = frame(0xfe, &[7; 300]);
        while self.received.try_recv().is_ok() {}
        driver.transmit(0, &[0; 10], &frame);
        let sent = self.received.recv_timeout(PATIENCE);
        assert!(sent.is_ok_and(|sent| sent == frame), "the frame of the next driver");
        // Its link is up now.
        self.station.send(Frame::new(&frame));
        assert!(driver.receive(0).frame == frame, "the frame for the next driver");
    }
}

/// A frame of an unknown protocol, to all.
fn frame(source: u8, payload: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &[2, 0, 0, 0, 0, source], &[0x88, 0xb5], payload].concat()
}

/// Reads choices off the input.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let index = usize::from(self.byte()?) % of.len();
        Some(of[index])
    }

    fn ring(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) % (2 * PAIRS))
    }

    fn parts(&mut self) -> Option<Vec<Part>> {
        let count = self.one(&[1, 1, 2, 2, 3, 7])?;
        (0..count)
            .map(|_| Some((self.one(&ADDRESSES)?, self.one(&LENGTHS)?, self.byte()? & 1 == 0)))
            .collect()
    }
}

/// Makes a step. `None` at the end of the input, or when the device has ended the connection.
fn step(host: &Host, driver: &mut Driver, choices: &mut Choices<'_>) -> Option<()> {
    match choices.byte()? {
        0..=99 => {
            let (ring, first) = (choices.ring()?, u16::from(choices.byte()?) % (SIZE - 8));
            let parts = choices.parts()?;
            match choices.byte()? {
                0..=199 => driver.offer(ring, first, &parts),
                _ => driver.offer_table(ring, first, BASE + 0x30_0000, &parts),
            }
        }
        100..=129 => {
            // A header of virtio-net, and the begin of a frame.
            let header: Vec<u8> = (0..12).map(|_| choices.byte()).collect::<Option<_>>()?;
            driver.write(BASE + 0x10_0000, &header);
            let bytes: Vec<u8> = (0..60).map(|_| choices.byte()).collect::<Option<_>>()?;
            driver.write(BASE + 0x10_000c, &bytes);
        }
        130..=169 => {
            let length = usize::from(choices.one(&[0_u16, 46, 300, 1486, 9000])?);
            let frame = frame(choices.byte()?, &vec![3; length]);
            host.station.send(Frame::new(&frame));
        }
        170..=189 => {
            let (ring, by) = (choices.ring()?, choices.one(&NUMBERS)?);
            driver.advance(ring, by);
        }
        190..=219 => {
            // Rings that change under the device.
            let (ring, at, value) = (choices.ring()?, choices.byte()?, choices.one(&NUMBERS)?);
            driver.scribble(ring, at, value);
        }
        220..=229 => driver.kick(choices.ring()?),
        _ => {
            let ring = choices.ring()?;
            let frontend = &mut driver.frontend;
            let done = match choices.byte()? % 6 {
                0 => frontend.set_vring_enable(ring, choices.byte()? & 1 == 0),
                1 => frontend.get_vring_base(ring).map(drop),
                2 => frontend.set_vring_base(ring, choices.one(&NUMBERS)?),
                3 => frontend.set_vring_num(ring, choices.one(&NUMBERS)?),
                4 => frontend.set_features(choices.one(&FEATURES)? | 1 << 30),
                _ => frontend.get_features().map(drop),
            };
            done.ok()?;
        }
    }
    Some(())
}

/// Runs an input. Returns the number of steps.
pub fn run(input: &[u8]) -> u64 {
    static HOST: OnceLock<Mutex<Host>> = OnceLock::new();
    let host = HOST.get_or_init(|| Mutex::new(Host::new()));
    let host = host.lock().unwrap_or_else(PoisonError::into_inner);
    let mut choices = Choices(input);
    let Some(features) = choices.one(&FEATURES) else {
        return 0;
    };
    let mut driver = host.connect(features);
    (0..2 * PAIRS).for_each(|index| driver.start_ring(index, SIZE));
    let mut steps = 0;
    while steps < MAX_STEPS && step(&host, &mut driver, &mut choices).is_some() {
        steps += 1;
    }
    drop(driver);
    host.assert_works();
    steps
}
