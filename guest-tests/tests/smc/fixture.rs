//! Guests with SMC-D set up and a server of workloads in each.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use guest_harness::{Guest, IsmOptions, Result, SmcOptions, Testbed};
use serde_json::Value;

use crate::ledger::Ledger;
use crate::server::Server;

/// Port of the server in every guest.
pub const PORT: u16 = 5000;

/// Factor on time limits with the debug kernel.
const DEBUG_FACTOR: u32 = 6;

/// Kernel of the guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    Normal,
    /// With KASAN and lockdep.
    Debug,
}

/// Configuration of a fixture.
#[derive(Debug)]
pub struct Setup {
    name: &'static str,
    guests: usize,
    kernel: Kernel,
    ism: IsmOptions,
    smc: SmcOptions,
    shared: Vec<PathBuf>,
}

impl Setup {
    pub fn new(name: &'static str, guests: usize) -> Self {
        Self {
            name,
            guests,
            kernel: Kernel::Normal,
            ism: IsmOptions::default(),
            smc: SmcOptions::default(),
            shared: Vec::new(),
        }
    }

    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }

    pub fn daemon_args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.ism = self.ism.args(args);
        self
    }

    pub fn driver_arg(mut self, arg: &str) -> Self {
        self.smc.driver_args.push(arg.to_owned());
        self
    }

    /// Shares a host file with the guests as `/host/NAME`.
    pub fn share(mut self, file: PathBuf) -> Self {
        self.shared.push(file);
        self
    }

    pub fn start(self) -> Result<Fixture> {
        let builder = Testbed::builder(self.name)
            .guests(self.guests)
            .debug_kernel(self.kernel == Kernel::Debug)
            .ism(self.ism)
            .mesh();
        let testbed = self
            .shared
            .into_iter()
            .fold(builder, |builder, file| builder.share(file))
            .start()?;
        let fixture = Fixture {
            gids: Mutex::new(vec![None; self.guests]),
            servers: Mutex::new((0..self.guests).map(|_| None).collect()),
            ledger: Ledger::new(self.guests),
            kernel: self.kernel,
            smc: self.smc,
            testbed,
        };
        fixture.testbed.each(|guest| fixture.bring_up(guest.index()))?;
        Ok(fixture)
    }
}

/// A testbed in which every pair of guests can connect over SMC-D.
#[derive(Debug)]
pub struct Fixture {
    // Dropped before the testbed.
    servers: Mutex<Vec<Option<Server>>>,
    gids: Mutex<Vec<Option<String>>>,
    ledger: Ledger,
    kernel: Kernel,
    smc: SmcOptions,
    testbed: Testbed,
}

impl Fixture {
    pub fn testbed(&self) -> &Testbed {
        &self.testbed
    }

    pub fn guest(&self, index: usize) -> &Guest {
        self.testbed.guest(index)
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Returns a time limit of `seconds`, longer with the debug kernel.
    pub fn seconds(&self, seconds: u64) -> Duration {
        let factor = match self.kernel {
            Kernel::Normal => 1,
            Kernel::Debug => DEBUG_FACTOR,
        };
        Duration::from_secs(seconds) * factor
    }

    /// Sets up a freshly booted guest: SMC, driver, server.
    pub fn bring_up(&self, index: usize) -> Result<()> {
        let guest = self.guest(index);
        guest.smc_up(&self.smc)?;
        self.ledger.open(guest)?;
        lock(&self.servers)[index] = None;
        let server = Server::start(guest, PORT, "--events", self.seconds(10))?;
        lock(&self.servers)[index] = Some(server);
        lock(&self.gids)[index] = None;
        Ok(())
    }

    /// Reloads the driver in a guest that has everything else.
    pub fn load_driver(&self, index: usize) -> Result<()> {
        self.guest(index).smc_up(&self.smc)?;
        lock(&self.gids)[index] = None;
        Ok(())
    }

    /// Unloads the driver, even if connections use it; returns the time taken.
    pub fn unload_driver(&self, index: usize) -> Result<Duration> {
        let rmmod = self.guest(index).shell("rmmod virtio_ism").timeout(self.seconds(20));
        Ok(rmmod.run()?.check()?.elapsed)
    }

    /// Returns the ended connections of a guest's server so far.
    pub fn server_ends(&self, index: usize) -> Vec<Value> {
        lock(&self.servers)[index]
            .as_ref()
            .map(Server::ends)
            .unwrap_or_default()
    }

    /// Returns the GID of a guest's virtio-ism device, as reported by the guest's kernel.
    pub fn gid(&self, index: usize) -> Result<String> {
        if let Some(gid) = &lock(&self.gids)[index] {
            return Ok(gid.clone());
        }
        let devices = self.guest(index).run("/host/smc-tool --json devices")?.check()?;
        let devices: Value = serde_json::from_str(devices.text()).expect("the devices are JSON");
        let mut found: Vec<String> = devices["dibs"]
            .as_array()
            .expect("a list of dibs devices")
            .iter()
            .filter(|device| {
                device["name"]
                    .as_str()
                    .is_some_and(|name| name.starts_with("virtio_ism"))
            })
            .map(|device| device["gid"].as_str().expect("a GID").to_owned())
            .collect();
        assert_eq!(found.len(), 1, "virtio-ism devices among {devices}");
        let gid = found.remove(0);
        lock(&self.gids)[index] = Some(gid.clone());
        Ok(gid)
    }

    /// Reads the statistics of the daemon: the fabric and each guest.
    pub fn daemon_stats(&self) -> Result<Value> {
        self.testbed.daemon().stats()
    }

    /// Asserts that counters of the daemon have grown for each of these guests.
    pub fn assert_daemon_saw(&self, before: &Value, guests: &[usize], counters: &[&str]) -> Result<()> {
        let now = self.daemon_stats()?;
        for &guest in guests {
            for counter in counters {
                let [before, now] = [before, &now].map(|stats| stats["guests"][guest][counter].as_u64());
                let grew = before.zip(now).is_some_and(|(before, now)| now > before);
                assert!(
                    grew,
                    "the daemon's {counter} of guest {guest}: {before:?}, then {now:?}"
                );
            }
        }
        Ok(())
    }

    /// Shuts down; asserts that the kernels' counters match the test, that the daemon counted no guest errors, and that
    /// it holds nothing once all drivers are unloaded.
    pub fn finish(self) -> Result<()> {
        self.finish_despite(None)
    }

    /// Does the same as [`Fixture::finish`], but one guest may have caused guest errors.
    pub fn finish_despite(self, culprit: Option<usize>) -> Result<()> {
        self.ledger.settle(&self.testbed)?;
        for server in std::mem::take(&mut *lock(&self.servers)).into_iter().flatten() {
            server.stop(self.seconds(20))?;
        }
        self.testbed.each(|guest| self.unload_driver(guest.index()).map(drop))?;
        let stats = self.daemon_stats()?;
        for name in ["sessions", "slabs", "slab_bytes", "used_bytes", "dmbs", "lost_blocks"] {
            assert_eq!(stats["fabric"][name], 0, "left behind: {name} in {stats:#}");
        }
        for (index, guest) in stats["guests"].as_array().expect("guests").iter().enumerate() {
            let errors = guest["guest_errors"].as_object().expect("guest errors");
            let found: Vec<_> = errors.iter().filter(|(_, count)| **count != 0).collect();
            if culprit != Some(index) {
                assert!(found.is_empty(), "guest errors of {}: {found:?}", guest["guest"]);
            }
        }
        self.testbed.finish()
    }
}

/// Locks `mutex`, poisoned or not: a panic in another thread has failed the test already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
