//! The daemon's side of a test: one fabric, and a thread that serves each guest's socket.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;
use vhost_daemon::fault::{Faults, GuestFaults};
use vhost_daemon::trace::Tracer;
use vhost_ism::backend;
use vhost_ism::fabric::{Fabric, FabricStats, Limits};
use vhost_ism::fault::{FaultDoor, IsmFault};
use vhost_ism::guest::Guest;
use vhost_ism::ism_finding::Finding;
use vhost_ism::stats::GuestSnapshot;

use super::{Options, TestGuest, eventually};

/// Limits that are quickly reached: 31 units of 2 MiB, which is no power of two.
pub fn limits() -> Limits {
    Limits {
        window_size: 62 << 20,
        max_dmb_size: 1 << 20,
        max_dmbs: 4096,
        max_maps: 64,
    }
}

/// A daemon in this process.
pub struct Host {
    /// Fabric of the daemon.
    pub fabric: Arc<Fabric>,
    sockets: TempDir,
    seats: AtomicU16,
}

/// A guest of the daemon, and its socket.
pub struct Seat {
    /// The daemon's side of the guest.
    pub guest: Arc<Guest>,
    path: PathBuf,
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
            fabric: Arc::new(Fabric::new(0xff42, limits)),
            sockets: tempfile::tempdir().unwrap(),
            seats: AtomicU16::new(0),
        }
    }

    /// Creates a guest and serves its socket.
    pub fn seat(&self, name: &str) -> Arc<Seat> {
        let path = self.sockets.path().join(name);
        let tracer = Tracer::new(self.seats.fetch_add(1, Ordering::Relaxed));
        let guest = Arc::new(Guest::new(name.to_owned(), tracer, self.fabric.clone()));
        let listener = UnixListener::bind(&path).unwrap();
        let server = backend::start(guest.clone(), listener, 1 << 40).unwrap();
        // It ends with the process.
        std::mem::forget(server);
        Arc::new(Seat { guest, path })
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
        FaultDoor::new(GuestFaults::new(faults, stats.guest()), stats.tracer).install(&self.guest)
    }

    /// Returns the path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the number of errors of a kind that the guest made.
    pub fn found(&self, error: Finding) -> u64 {
        self.guest.stats().findings().count(error)
    }

    /// Returns the counters of the guest.
    pub fn counters(&self) -> GuestSnapshot {
        self.guest.stats().counters.snapshot()
    }
}
