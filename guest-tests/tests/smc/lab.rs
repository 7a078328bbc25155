//! Guests with SMC-D up and a server of workloads in each.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use guest_tests::{Guest, IsmOptions, Result, SmcOptions, Testbed};
use serde_json::Value;

use crate::ledger::Ledger;
use crate::workload::Server;

/// The server's port in every guest.
pub const PORT: u16 = 5000;

/// How much slower the kernel that checks everything may be.
const DEBUG_FACTOR: u32 = 6;

/// Which kernel the guests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    Normal,
    /// With KASAN and lockdep.
    Debug,
}

/// What a lab is to be like.
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

    /// Lets the guests see a file as `/host/NAME`.
    pub fn share(mut self, file: PathBuf) -> Self {
        self.shared.push(file);
        self
    }

    pub fn start(self) -> Result<Lab> {
        let builder = Testbed::builder(self.name)
            .guests(self.guests)
            .debug_kernel(self.kernel == Kernel::Debug)
            .ism(self.ism)
            .mesh();
        let bed = self
            .shared
            .into_iter()
            .fold(builder, |builder, file| builder.share(file))
            .start()?;
        let lab = Lab {
            gids: Mutex::new(vec![None; self.guests]),
            servers: Mutex::new((0..self.guests).map(|_| None).collect()),
            ledger: Ledger::new(self.guests),
            kernel: self.kernel,
            smc: self.smc,
            bed,
        };
        lab.bed.each(|guest| lab.bring_up(guest.index()))?;
        Ok(lab)
    }
}

/// A test bed in which every two guests can connect over SMC-D.
#[derive(Debug)]
pub struct Lab {
    // Dropped before the bed they run in.
    servers: Mutex<Vec<Option<Server>>>,
    gids: Mutex<Vec<Option<String>>>,
    ledger: Ledger,
    kernel: Kernel,
    smc: SmcOptions,
    bed: Testbed,
}

impl Lab {
    pub fn bed(&self) -> &Testbed {
        &self.bed
    }

    pub fn guest(&self, index: usize) -> &Guest {
        self.bed.guest(index)
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// This many seconds; more with the debug kernel.
    pub fn seconds(&self, seconds: u64) -> Duration {
        let factor = match self.kernel {
            Kernel::Normal => 1,
            Kernel::Debug => DEBUG_FACTOR,
        };
        Duration::from_secs(seconds) * factor
    }

    /// Sets up a guest that has just booted: SMC, driver, server.
    pub fn bring_up(&self, index: usize) -> Result<()> {
        let guest = self.guest(index);
        guest.smc_up(&self.smc)?;
        self.ledger.open(guest)?;
        lock(&self.servers)[index] = None;
        let server = Server::start(self, index, PORT, "--events")?;
        lock(&self.servers)[index] = Some(server);
        lock(&self.gids)[index] = None;
        Ok(())
    }

    /// Loads the driver again in a guest that has everything else.
    pub fn load_driver(&self, index: usize) -> Result<()> {
        self.guest(index).smc_up(&self.smc)?;
        lock(&self.gids)[index] = None;
        Ok(())
    }

    /// Takes the driver out, however many connections use it.
    pub fn unload_driver(&self, index: usize) -> Result<Duration> {
        let rmmod = self.guest(index).shell("rmmod virtio_ism").timeout(self.seconds(20));
        Ok(rmmod.run()?.check()?.elapsed)
    }

    /// How the connections of a guest's server have ended so far.
    pub fn server_ends(&self, index: usize) -> Vec<Value> {
        lock(&self.servers)[index]
            .as_ref()
            .map(Server::ends)
            .unwrap_or_default()
    }

    /// The GID of a guest's virtio-ism device, as its kernel tells it.
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

    /// The daemon's counters: of the fabric, and of each guest.
    pub fn daemon_stats(&self) -> Result<Value> {
        self.bed.daemon().stats()
    }

    /// Asserts that a counter of the daemon has grown for each of these guests.
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

    /// Ends everything: the kernels' books must agree with what the test did, the daemon must have found no fault with any guest,
    /// and nothing may be left in it once all drivers have gone.
    pub fn finish(self) -> Result<()> {
        self.finish_despite(None)
    }

    /// The same, but one guest is known to have done wrong.
    pub fn finish_despite(self, culprit: Option<usize>) -> Result<()> {
        self.ledger.settle(&self.bed)?;
        for server in std::mem::take(&mut *lock(&self.servers)).into_iter().flatten() {
            server.stop(self.seconds(20))?;
        }
        self.bed.each(|guest| self.unload_driver(guest.index()).map(drop))?;
        let stats = self.daemon_stats()?;
        for name in ["sessions", "slabs", "slab_bytes", "used_bytes", "dmbs", "lost_blocks"] {
            assert_eq!(stats["fabric"][name], 0, "left behind: {name} in {stats:#}");
        }
        for (index, guest) in stats["guests"].as_array().expect("guests").iter().enumerate() {
            let errors = guest["guest_errors"].as_object().expect("guest errors");
            let found: Vec<_> = errors.iter().filter(|(_, count)| **count != 0).collect();
            if culprit != Some(index) {
                assert!(
                    found.is_empty(),
                    "the daemon counted errors of {}: {found:?}",
                    guest["guest"]
                );
            }
        }
        self.bed.finish()
    }
}

/// A test that panicked in another thread has failed already; its data is still worth reading.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
