//! The daemon's side of a test: one fabric, and a thread that serves each guest's socket.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;
use vhost_daemon::fault::{Faults, GuestFaults};
use vhost_daemon::finding::{Object, Record, Source};
use vhost_daemon::record::{Begun, OrderError};
use vhost_daemon::trace::Tracer;
use vhost_ism::backend;
use vhost_ism::connection::FrontendDoor;
use vhost_ism::fabric::{Fabric, FabricStats, Layout, Limits, Mode};
use vhost_ism::fault::{FaultDoor, IsmFault};
use vhost_ism::guest::Guest;
use vhost_ism::ism_finding::Finding;
use vhost_ism::record::{Order, Recorder, Setup};
use vhost_ism::stats::GuestSnapshot;

use super::{Options, TestGuest, eventually};

/// SMC fabric id of the daemon.
const CHID: u16 = 0xff42;

/// Limits that are quickly reached: 31 units of 2 MiB, which is no power of two.
pub fn limits() -> Limits {
    Limits {
        window_size: 62 << 20,
        max_dmb_size: 1 << 20,
        max_area_size: 1 << 20,
        layout: Layout::OneRegion,
        max_dmbs: 4096,
        max_maps: 64,
        mode: Mode::Mapped,
    }
}

/// A daemon in this process.
pub struct Host {
    /// Fabric of the daemon.
    pub fabric: Arc<Fabric>,
    recording: Option<Recording>,
    sockets: TempDir,
    seats: AtomicU16,
}

/// A record in progress, and the guests in it.
struct Recording {
    recorder: Recorder,
    guests: Vec<Arc<Guest>>,
    file: File,
}

/// A finding: kind, object and evidence.
pub type Found = (&'static str, Object, Vec<u8>);

/// A guest of the daemon, and its socket.
pub struct Seat {
    /// The daemon's side of the guest.
    pub guest: Arc<Guest>,
    path: PathBuf,
    recorder: Option<Recorder>,
}

impl Default for Host {
    fn default() -> Self {
        Self::new(limits())
    }
}

impl Host {
    /// Creates a daemon with these limits.
    pub fn new(limits: Limits) -> Self {
        Self {
            fabric: Arc::new(Fabric::new(CHID, limits)),
            recording: None,
            sockets: tempfile::tempdir().unwrap(),
            seats: AtomicU16::new(0),
        }
    }

    /// Creates a daemon in copy mode.
    pub fn copying() -> Self {
        Self::new(Limits {
            mode: Mode::Copy,
            ..limits()
        })
    }

    /// Creates a daemon that is recorded, with these guests.
    pub fn recorded(guests: &[&str]) -> Self {
        Self::recorded_with(guests, limits())
    }

    /// Does the same with these limits.
    pub fn recorded_with(guests: &[&str], limits: Limits) -> Self {
        Self::with_recorder(guests, limits, |file, setup| Recorder::to_file(file, setup).unwrap())
    }

    /// Creates a daemon that is recorded on demand, with these guests.
    pub fn recordable(guests: &[&str]) -> Self {
        Self::with_recorder(guests, limits(), |_, setup| Recorder::on_demand(setup))
    }

    fn with_recorder(guests: &[&str], limits: Limits, recorder: impl FnOnce(File, &Setup) -> Recorder) -> Self {
        let names: Vec<String> = guests.iter().map(|name| (*name).to_owned()).collect();
        let file = tempfile::tempfile().unwrap();
        let setup = Setup::new(CHID, &limits, names.clone());
        let recorder = recorder(file.try_clone().unwrap(), &setup);
        let (fabric, guests) = recorder.create(|tape| {
            let fabric = Arc::new(Fabric::with_tape(CHID, limits, tape));
            let guest = |(name, number): (String, u16)| Guest::new(name, Tracer::new(number), fabric.clone());
            let guests = names.into_iter().zip(0..).map(guest).map(Arc::new).collect();
            (fabric, guests)
        });
        Self {
            fabric,
            recording: Some(Recording { recorder, guests, file }),
            ..Self::default()
        }
    }

    /// Returns the counters of a guest of a daemon that is recorded.
    pub fn counters(&self, name: &str) -> GuestSnapshot {
        self.guest(name).0.stats().counters.snapshot()
    }

    /// Begins a record of a daemon that is recorded on demand, and forgets the one before.
    pub fn begin_record(&self) -> Result<Begun, OrderError> {
        let recording = self.recording.as_ref().expect("the daemon is recorded");
        recording.recorder.begin(|| {
            recording.file.set_len(0).unwrap();
            (&recording.file).rewind().unwrap();
            Ok(Order {
                file: recording.file.try_clone().unwrap(),
                guests: recording.guests.clone(),
            })
        })
    }

    /// Whether a record has begun.
    pub fn has_record(&self) -> bool {
        let recording = self.recording.as_ref().expect("the daemon is recorded");
        recording.file.metadata().unwrap().len() > 0
    }

    /// Ends the record or takes back the order for one.
    pub fn end_record(&self) -> bool {
        self.recording.as_ref().expect("the daemon is recorded").recorder.end()
    }

    /// Ends the record of a daemon that is recorded, and returns its bytes.
    pub fn finish_record(&self) -> Vec<u8> {
        let recording = self.recording.as_ref().expect("the daemon is recorded");
        recording.recorder.finish();
        let mut bytes = Vec::new();
        let mut file = &recording.file;
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Returns a guest of a daemon that is recorded, or creates one, and the door before its front-ends.
    fn guest(&self, name: &str) -> (Arc<Guest>, Option<Arc<dyn FrontendDoor>>) {
        match &self.recording {
            None => {
                let tracer = Tracer::new(self.seats.fetch_add(1, Ordering::Relaxed));
                (Arc::new(Guest::new(name.to_owned(), tracer, self.fabric.clone())), None)
            }
            Some(Recording { recorder, guests, .. }) => {
                let guest = guests.iter().find(|guest| guest.stats().guest() == name);
                (
                    guest.expect("a guest of the record").clone(),
                    Some(Arc::new(recorder.clone())),
                )
            }
        }
    }

    /// Creates a guest and serves its socket.
    pub fn seat(&self, name: &str) -> Arc<Seat> {
        let path = self.sockets.path().join(name);
        let (guest, door) = self.guest(name);
        let listener = UnixListener::bind(&path).unwrap();
        let server = backend::start_with_door(guest.clone(), listener, 1 << 40, door).unwrap();
        // It ends with the process.
        std::mem::forget(server);
        let recorder = self.recording.as_ref().map(|recording| recording.recorder.clone());
        Arc::new(Seat { guest, path, recorder })
    }

    /// Boots a guest on a socket of its own.
    #[track_caller]
    pub fn boot(&self, name: &str) -> TestGuest {
        self.seat(name).boot()
    }

    /// Boots a guest with options on a socket of its own.
    #[track_caller]
    pub fn boot_with(&self, name: &str, options: Options) -> TestGuest {
        self.seat(name).boot_with(options)
    }

    /// Returns the numbers of objects in the fabric.
    pub fn stats(&self) -> FabricStats {
        self.fabric.stats()
    }

    /// Waits until the fabric is as empty as it was at first.
    #[track_caller]
    pub fn expect_empty(&self) {
        eventually("nothing is left in the fabric", || {
            let stats = self.stats();
            stats.sessions == 0 && stats.slabs == 0 && stats.dmbs == 0 && stats.slab_bytes == 0 && stats.used_bytes == 0
        });
        assert_eq!(self.stats().lost_blocks, 0);
    }
}

impl Seat {
    /// Boots a guest on this socket.
    #[track_caller]
    pub fn boot(self: &Arc<Self>) -> TestGuest {
        self.boot_with(Options::default())
    }

    /// Boots a guest on this socket.
    #[track_caller]
    pub fn boot_with(self: &Arc<Self>, options: Options) -> TestGuest {
        let mut guest = TestGuest::connect(&self.path, options);
        guest.seat = Some(self.clone());
        guest.start();
        guest
    }

    /// Puts a door before the guest, at which faults strike.
    pub fn install(&self, faults: &Arc<Faults<IsmFault>>) -> Arc<FaultDoor> {
        let stats = self.guest.stats();
        let guest = GuestFaults::new(faults, stats.guest());
        let guest = match (&self.recorder, stats.tape()) {
            (Some(recorder), Some(tape)) => guest.with_tape(recorder.of_faults(tape.guest)),
            _ => guest,
        };
        FaultDoor::new(guest, stats.tracer).install(&self.guest)
    }

    /// Returns the path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the number of errors of a kind that the guest made.
    pub fn found(&self, error: Finding) -> u64 {
        self.guest.stats().findings().count(error)
    }

    /// Returns all findings about the guest, in order.
    pub fn findings(&self) -> Vec<Found> {
        let records = self.guest.stats().findings().recent();
        let found = |record: &Arc<Record>| (record.kind.name, record.object, record.evidence.clone());
        records.iter().map(found).collect()
    }

    /// Returns the counters of the guest.
    pub fn counters(&self) -> GuestSnapshot {
        self.guest.stats().counters.snapshot()
    }
}
