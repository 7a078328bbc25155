//! A testbed: guests, the links between them and the devices under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::artefacts::Artefacts;
use crate::budget::Budget;
use crate::daemon::Daemon;
use crate::device::{Device, Place};
use crate::error::{Doing, Result};
use crate::guest::Guest;
use crate::image::Image;
use crate::ism::IsmOptions;
use crate::link::{DEFAULT_MTU, Link};
use crate::locate::{binary, driver, existing, target_dir};
use crate::machine::Machine;
use crate::nic::NicOptions;
use crate::sync::lock;
use crate::uml::UmlImage;
use crate::{qemu, uml};

/// Limit on the wait for processor tokens held by other testbeds.
const BUDGET_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Configuration of a testbed.
#[derive(Debug)]
#[must_use = "a testbed does nothing until it is started"]
pub struct Builder {
    name: String,
    guests: usize,
    uml_guests: usize,
    processors: u32,
    memory_mib: Option<u32>,
    debug_kernel: bool,
    stock_kernel: Option<String>,
    image: Option<Image>,
    results: Option<PathBuf>,
    beside_another: bool,
    mtu: Option<u32>,
    devices: Vec<Arc<dyn Device>>,
    shared: Vec<PathBuf>,
    kernel_args: Vec<String>,
    qemu_args: Vec<String>,
    allowed_splats: Vec<String>,
    boot_timeout: Option<Duration>,
}

impl Builder {
    /// Sets the number of QEMU guests; the default is 1.
    pub fn guests(mut self, count: usize) -> Self {
        self.guests = count;
        self
    }

    /// Adds User Mode Linux guests, numbered after the QEMU guests; the default is 0. They boot in less than a second,
    /// have one processor and no links, and get each device that has a vhost-user socket for them.
    pub fn uml_guests(mut self, count: usize) -> Self {
        self.uml_guests = count;
        self
    }

    /// Sets the number of virtual processors per guest; the default is 2.
    pub fn smp(mut self, processors: u32) -> Self {
        self.processors = processors;
        self
    }

    /// Sets the memory per guest. The default is 512 MiB, 1024 with a stock kernel, 2048 with the debug kernel, and 256
    /// for User Mode Linux.
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = Some(mib);
        self
    }

    /// Selects the debug kernel, with KASAN and lockdep. It is several times slower.
    pub fn debug_kernel(mut self, debug: bool) -> Self {
        self.debug_kernel = debug;
        self
    }

    /// Boots an unmodified Debian kernel, the newest of series "6.1", "6.12" or "7.x", instead of our own. Booting
    /// takes longer.
    pub fn stock_kernel(mut self, series: impl Into<String>) -> Self {
        self.stock_kernel = Some(series.into());
        self
    }

    /// Boots this image instead of one of `images/build`. Memory and boot time are those of a stock kernel.
    pub fn image(mut self, image: Image) -> Self {
        self.image = Some(image);
        self
    }

    /// Leaves the logs in `directory`, which exists, whatever the outcome. The testbed does not wait for the processors
    /// that others use, as the files they would agree by are in a source tree that may be read-only.
    pub fn results(mut self, directory: impl Into<PathBuf>) -> Self {
        self.results = Some(directory.into());
        self
    }

    /// Uses the processors of another testbed of this process, which is idle while this one is not.
    pub fn beside_another(mut self) -> Self {
        self.beside_another = true;
        self
    }

    /// Gives every guest a virtio-ism device; one daemon serves all.
    pub fn ism(self, options: IsmOptions) -> Self {
        self.device(options)
    }

    /// Gives every guest a NIC on the switch of one daemon.
    pub fn nic(self, options: NicOptions) -> Self {
        self.device(options)
    }

    /// Gives every guest a device under test.
    pub fn device(mut self, device: impl Device + 'static) -> Self {
        self.devices.push(Arc::new(device));
        self
    }

    /// Connects every pair of QEMU guests by a link.
    pub fn mesh(self) -> Self {
        self.mesh_mtu(DEFAULT_MTU)
    }

    /// Connects every pair of QEMU guests by a link with the given MTU.
    pub fn mesh_mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Copies a host file to where guests see it as `/host/NAME`.
    pub fn share(mut self, file: impl Into<PathBuf>) -> Self {
        self.shared.push(file.into());
        self
    }

    /// Adds a kernel parameter for every guest.
    pub fn kernel_arg(mut self, arg: impl Into<String>) -> Self {
        self.kernel_args.push(arg.into());
        self
    }

    /// Adds arguments for the QEMU of every guest.
    pub fn qemu_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.qemu_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Tolerates splats that contain `text`.
    pub fn allow_splat(mut self, text: impl Into<String>) -> Self {
        self.allowed_splats.push(text.into());
        self
    }

    /// Sets the limit on the boot time of a guest.
    pub fn boot_timeout(mut self, timeout: Duration) -> Self {
        self.boot_timeout = Some(timeout);
        self
    }

    /// Starts daemons and guests; returns when all guests are up.
    pub fn start(self) -> Result<Testbed> {
        let image = match (&self.image, &self.stock_kernel) {
            _ if self.guests == 0 => None,
            (Some(image), _) => Some(image.clone()),
            (None, Some(series)) => Some(Image::load_stock(series)?),
            (None, None) if self.debug_kernel => Some(Image::load_debug()?),
            (None, None) => Some(Image::load()?),
        };
        let uml_image = (self.uml_guests > 0).then(UmlImage::load).transpose()?;
        let count = self.guests + self.uml_guests;
        let budget = match self.beside_another || self.results.is_some() {
            true => None,
            false => {
                let processors = thread::available_parallelism().map_or(1, |count| count.get());
                let tokens = target_dir().join("guest-tests").join("tokens");
                Some(Budget::acquire(&tokens, processors, count, BUDGET_TIMEOUT)?)
            }
        };
        let artefacts = Artefacts::create(&self.name, self.results.as_deref())?;

        let place = Place {
            guests: count,
            uml_guests: self.uml_guests,
            logs: artefacts.directory().to_owned(),
            sockets: artefacts.sockets().to_owned(),
        };
        let share = artefacts.sockets().join("host");
        self.fill_share(&share, image.as_ref().map(|image| image.kernel_release.as_str()))?;

        // From here on the testbed owns, and so stops, everything started.
        let mut testbed = Testbed {
            guests: Vec::new(),
            daemons: Vec::new(),
            share,
            artefacts,
            allowed_splats: Arc::new(Mutex::new(self.allowed_splats.clone())),
            _budget: budget,
        };
        for device in &self.devices {
            if let Some(daemon) = device.start(&place)? {
                testbed.daemons.push((device.name().to_owned(), daemon));
            }
        }
        if let Some(image) = image {
            testbed.guests = self.make_guests(&Arc::new(image), &place, &testbed);
        }
        if let Some(image) = uml_image {
            testbed
                .guests
                .extend(self.make_uml_guests(&Arc::new(image), &place, &testbed));
        }
        for guest in &testbed.guests {
            guest.start()?;
        }
        testbed.each(Guest::wait_up)?;
        Ok(testbed)
    }

    /// Creates the directory that guests see as `/host`.
    fn fill_share(&self, share: &Path, kernel_release: Option<&str>) -> Result<()> {
        fs::create_dir(share).doing(|| format!("create {}", share.display()))?;
        let mut files = vec![binary("guest-agent", None)?];
        // Optional: a testbed that needs one of these fails on its own when it is missing.
        if let Ok(tool) = binary("smc-tool", Some("SMC_TOOL")) {
            // The tool looks for the library in its own directory.
            let preload = tool.with_file_name("libsmc_preload.so");
            files.extend(preload.is_file().then_some(preload));
            files.push(tool);
        }
        files.extend(kernel_release.and_then(|release| driver(release).ok()));
        files.extend(self.shared.iter().cloned());
        for file in files {
            let to = share.join(file.file_name().unwrap_or_default());
            fs::copy(&file, &to).doing(|| format!("copy {} to {}", file.display(), to.display()))?;
        }
        Ok(())
    }

    fn make_guests(&self, image: &Arc<Image>, place: &Place, testbed: &Testbed) -> Vec<Guest> {
        let links = self.mtu.map(|mtu| Link::mesh(self.guests, mtu)).unwrap_or_default();
        let (memory_mib, boot_timeout) = match (&self.image, &self.stock_kernel) {
            (None, None) if self.debug_kernel => (2048, Duration::from_secs(300)),
            (None, None) => (512, Duration::from_secs(90)),
            _ => (1024, Duration::from_secs(240)),
        };
        (0..self.guests)
            .map(|index| {
                let links: Vec<Link> = links.iter().filter(|link| link.has(index)).cloned().collect();
                let device_args = links
                    .iter()
                    .flat_map(|link| link.qemu_args(index, &place.sockets))
                    .chain(self.devices.iter().flat_map(|device| device.qemu_args(index, place)))
                    .chain(self.qemu_args.iter().cloned())
                    .collect();
                let machine = Machine::Qemu(qemu::Machine {
                    name: guest_name(index),
                    image: Arc::clone(image),
                    processors: self.processors,
                    memory_mib: self.memory_mib.unwrap_or(memory_mib),
                    kernel_args: self.kernel_args.clone(),
                    device_args,
                    share: testbed.share.clone(),
                    logs: place.logs.clone(),
                    sockets: place.sockets.clone(),
                });
                self.make_guest(index, machine, links, boot_timeout, testbed)
            })
            .collect()
    }

    fn make_uml_guests(&self, image: &Arc<UmlImage>, place: &Place, testbed: &Testbed) -> Vec<Guest> {
        (self.guests..place.guests())
            .map(|index| {
                let machine = Machine::Uml(uml::Machine {
                    name: guest_name(index),
                    image: Arc::clone(image),
                    memory_mib: self.memory_mib.unwrap_or(256),
                    kernel_args: self.kernel_args.clone(),
                    pci: self
                        .devices
                        .iter()
                        .filter_map(|device| device.uml_pci(index, place))
                        .collect(),
                    share: testbed.share.clone(),
                    logs: place.logs.clone(),
                    sockets: place.sockets.clone(),
                });
                self.make_guest(index, machine, Vec::new(), Duration::from_secs(30), testbed)
            })
            .collect()
    }

    fn make_guest(
        &self,
        index: usize,
        machine: Machine,
        links: Vec<Link>,
        boot_timeout: Duration,
        testbed: &Testbed,
    ) -> Guest {
        Guest::new(
            index,
            machine,
            links,
            self.boot_timeout.unwrap_or(boot_timeout),
            Arc::clone(testbed.artefacts.commands()),
            Arc::clone(&testbed.allowed_splats),
        )
    }
}

/// Returns the name of a guest: `a`, `b`, ... and then `g26`, `g27`, ...
fn guest_name(index: usize) -> String {
    match u8::try_from(index) {
        Ok(small @ 0..26) => char::from(b'a' + small).to_string(),
        _ => format!("g{index}"),
    }
}

/// Running guests and their daemons. Dropping it kills everything; [`Testbed::finish`] shuts down in order.
#[derive(Debug)]
pub struct Testbed {
    // Drop order: QEMU does not survive the daemon of its device, and nothing survives its sockets.
    guests: Vec<Guest>,
    daemons: Vec<(String, Daemon)>,
    share: PathBuf,
    artefacts: Artefacts,
    allowed_splats: Arc<Mutex<Vec<String>>>,
    _budget: Option<Budget>,
}

impl Testbed {
    /// Starts the configuration of a testbed; `name` becomes part of the path of its logs.
    pub fn builder(name: &str) -> Builder {
        Builder {
            name: name.to_owned(),
            guests: 1,
            uml_guests: 0,
            processors: 2,
            memory_mib: None,
            debug_kernel: false,
            stock_kernel: None,
            image: None,
            results: None,
            beside_another: false,
            mtu: None,
            devices: Vec::new(),
            shared: Vec::new(),
            kernel_args: Vec::new(),
            qemu_args: Vec::new(),
            allowed_splats: Vec::new(),
            boot_timeout: None,
        }
    }

    /// Returns the guest with this number.
    ///
    /// # Panics
    ///
    /// If there is no such guest.
    pub fn guest(&self, index: usize) -> &Guest {
        &self.guests[index]
    }

    /// Returns all guests, QEMU guests first.
    pub fn guests(&self) -> &[Guest] {
        &self.guests
    }

    /// Runs `act` on all guests in parallel; returns the error of the first guest that failed.
    pub fn each(&self, act: impl Fn(&Guest) -> Result<()> + Sync) -> Result<()> {
        thread::scope(|scope| {
            let act = &act;
            let threads: Vec<_> = self
                .guests
                .iter()
                .map(|guest| scope.spawn(move || act(guest)))
                .collect();
            let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            results
                .into_iter()
                .try_for_each(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    /// Returns the daemon of the first device that has one.
    ///
    /// # Panics
    ///
    /// If no device has a daemon.
    pub fn daemon(&self) -> &Daemon {
        match self.daemons.first() {
            Some((_, daemon)) => daemon,
            None => panic!("no device of this testbed has a daemon"),
        }
    }

    /// Returns the daemon of the device with this name.
    pub fn daemon_of(&self, device: &str) -> Option<&Daemon> {
        let mut daemons = self.daemons.iter();
        daemons.find(|(name, _)| name == device).map(|(_, daemon)| daemon)
    }

    /// Returns the directory of the logs.
    pub fn logs(&self) -> &Path {
        self.artefacts.directory()
    }

    /// Returns the directory that guests see, read-only, as `/host`.
    pub fn share(&self) -> &Path {
        &self.share
    }

    /// Fails with a hint unless guests see `/host/NAME`.
    pub(crate) fn require_shared(&self, name: &str) -> Result<()> {
        let hint = "it was not built when the testbed started; `scripts/test` and `scripts/demo` build it";
        existing(name, self.share.join(name), hint).map(drop)
    }

    /// Tolerates splats that contain `text` from now on.
    pub fn allow_splat(&self, text: impl Into<String>) {
        lock(&self.allowed_splats).push(text.into());
    }

    /// Powers off all guests and checks that there were no kernel splats and that no daemon ended or panicked. On
    /// success removes the logs unless KEEP_LOGS=1 is set.
    pub fn finish(self) -> Result<()> {
        self.end()?;
        self.artefacts.succeed();
        Ok(())
    }

    /// Does the same as [`Testbed::finish`], but keeps the logs; returns their directory.
    pub fn finish_with_logs(self) -> Result<PathBuf> {
        self.end()?;
        self.artefacts.keep();
        Ok(self.logs().to_owned())
    }

    fn end(&self) -> Result<()> {
        // A splat explains more than a guest that fails to power off.
        for guest in &self.guests {
            guest.check()?;
        }
        self.power_off()?;
        for guest in &self.guests {
            guest.check()?;
        }
        self.stop_daemons()
    }

    /// Powers off all guests, whatever their consoles show.
    pub fn power_off(&self) -> Result<()> {
        // As init does on shutdown, and in all guests before the first is gone, so that nothing waits for a peer.
        self.each(Guest::kill_all)?;
        self.each(Guest::power_off)
    }

    /// Stops all daemons; fails if one had ended or panicked.
    pub fn stop_daemons(&self) -> Result<()> {
        for (_, daemon) in &self.daemons {
            daemon.check()?;
            daemon.stop()?;
        }
        Ok(())
    }
}
