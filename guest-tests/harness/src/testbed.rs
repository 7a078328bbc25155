//! A set of guests with what connects them.

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

/// How long to wait for other beds to make room.
const BUDGET_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// What a test bed is to be like.
#[derive(Debug)]
#[must_use = "a bed does not exist until it is started"]
pub struct Builder {
    name: String,
    guests: usize,
    uml_guests: usize,
    processors: u32,
    memory_mib: Option<u32>,
    debug_kernel: bool,
    stock_kernel: Option<String>,
    mtu: Option<u32>,
    devices: Vec<Arc<dyn Device>>,
    shared: Vec<PathBuf>,
    kernel_args: Vec<String>,
    qemu_args: Vec<String>,
    allowed_splats: Vec<String>,
    boot_timeout: Option<Duration>,
}

impl Builder {
    /// How many guests; 1 unless told otherwise.
    pub fn guests(mut self, count: usize) -> Self {
        self.guests = count;
        self
    }

    /// How many User Mode Linux guests besides, numbered after the others; none unless told otherwise. They boot in less than a
    /// second, have one processor and no links, and get a device if that has a vhost-user socket for them.
    pub fn uml_guests(mut self, count: usize) -> Self {
        self.uml_guests = count;
        self
    }

    /// Virtual processors of each guest; 2 unless told otherwise.
    pub fn smp(mut self, processors: u32) -> Self {
        self.processors = processors;
        self
    }

    /// Memory of each guest; 512 MiB unless told otherwise, 1024 with a stock kernel, 2048 with the debug kernel, 256 for User Mode
    /// Linux.
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = Some(mib);
        self
    }

    /// Whether to boot the kernel that checks memory accesses and locking. It takes several times as long for everything.
    pub fn debug_kernel(mut self, debug: bool) -> Self {
        self.debug_kernel = debug;
        self
    }

    /// Boots a kernel of Debian as it is instead of our own: the newest of series "6.1", "6.12" or "7.x". It takes longer to boot.
    pub fn stock_kernel(mut self, series: impl Into<String>) -> Self {
        self.stock_kernel = Some(series.into());
        self
    }

    /// Gives every guest a virtio-ism device, all of one daemon.
    pub fn ism(self, options: IsmOptions) -> Self {
        self.device(options)
    }

    /// Gives every guest a NIC, all on the switch of one daemon.
    pub fn nic(self, options: NicOptions) -> Self {
        self.device(options)
    }

    /// Gives every guest a device.
    pub fn device(mut self, device: impl Device + 'static) -> Self {
        self.devices.push(Arc::new(device));
        self
    }

    /// Connects every two guests.
    pub fn mesh(self) -> Self {
        self.mesh_mtu(DEFAULT_MTU)
    }

    /// Connects every two guests, with a particular MTU.
    pub fn mesh_mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Copies a file of the host to where the guests see it as `/host/NAME`.
    pub fn share(mut self, file: impl Into<PathBuf>) -> Self {
        self.shared.push(file.into());
        self
    }

    /// Adds a kernel parameter.
    pub fn kernel_arg(mut self, arg: impl Into<String>) -> Self {
        self.kernel_args.push(arg.into());
        self
    }

    /// Adds arguments for every guest's QEMU.
    pub fn qemu_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.qemu_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Makes splats that contain `text` no failure.
    pub fn allow_splat(mut self, text: impl Into<String>) -> Self {
        self.allowed_splats.push(text.into());
        self
    }

    /// How long a guest may take to boot.
    pub fn boot_timeout(mut self, timeout: Duration) -> Self {
        self.boot_timeout = Some(timeout);
        self
    }

    /// Starts everything and waits until all guests are up.
    pub fn start(self) -> Result<Testbed> {
        let image = match &self.stock_kernel {
            _ if self.guests == 0 => None,
            Some(series) => Some(Image::load_stock(series)?),
            None if self.debug_kernel => Some(Image::load_debug()?),
            None => Some(Image::load()?),
        };
        let uml_image = (self.uml_guests > 0).then(UmlImage::load).transpose()?;
        let count = self.guests + self.uml_guests;
        let processors = thread::available_parallelism().map_or(1, |count| count.get());
        let tokens = target_dir().join("guest-tests").join("tokens");
        let budget = Budget::acquire(&tokens, processors, count, BUDGET_TIMEOUT)?;
        let artefacts = Artefacts::create(&self.name)?;

        let place = Place {
            guests: count,
            uml_guests: self.uml_guests,
            logs: artefacts.directory().to_owned(),
            sockets: artefacts.sockets().to_owned(),
        };
        let share = artefacts.sockets().join("host");
        self.fill_share(&share, image.as_ref().map(|image| image.kernel_release.as_str()))?;

        // From here on the bed owns what has been started.
        let mut bed = Testbed {
            guests: Vec::new(),
            daemons: Vec::new(),
            share,
            artefacts,
            allowed_splats: Arc::new(Mutex::new(self.allowed_splats.clone())),
            _budget: budget,
        };
        for device in &self.devices {
            if let Some(daemon) = device.start(&place)? {
                bed.daemons.push((device.name().to_owned(), daemon));
            }
        }
        if let Some(image) = image {
            bed.guests = self.make_guests(&Arc::new(image), &place, &bed);
        }
        if let Some(image) = uml_image {
            bed.guests.extend(self.make_uml_guests(&Arc::new(image), &place, &bed));
        }
        for guest in &bed.guests {
            guest.start()?;
        }
        bed.each(Guest::wait_up)?;
        Ok(bed)
    }

    /// Fills the directory the guests see as `/host`.
    fn fill_share(&self, share: &Path, kernel_release: Option<&str>) -> Result<()> {
        fs::create_dir(share).doing(|| format!("create {}", share.display()))?;
        let mut files = vec![binary("guest-agent", None)?];
        // Not every bed needs these; the ones that do notice that they are missing.
        if let Ok(tool) = binary("smc-tool", Some("SMC_TOOL")) {
            // Which looks for this one in its own directory.
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

    fn make_guests(&self, image: &Arc<Image>, place: &Place, bed: &Testbed) -> Vec<Guest> {
        let links = self.mtu.map(|mtu| Link::mesh(self.guests, mtu)).unwrap_or_default();
        let (memory_mib, boot_timeout) = match &self.stock_kernel {
            Some(_) => (1024, Duration::from_secs(240)),
            None if self.debug_kernel => (2048, Duration::from_secs(300)),
            None => (512, Duration::from_secs(90)),
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
                    share: bed.share.clone(),
                    logs: place.logs.clone(),
                    sockets: place.sockets.clone(),
                });
                self.make_guest(index, machine, links, boot_timeout, bed)
            })
            .collect()
    }

    fn make_uml_guests(&self, image: &Arc<UmlImage>, place: &Place, bed: &Testbed) -> Vec<Guest> {
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
                    share: bed.share.clone(),
                    logs: place.logs.clone(),
                    sockets: place.sockets.clone(),
                });
                self.make_guest(index, machine, Vec::new(), Duration::from_secs(30), bed)
            })
            .collect()
    }

    fn make_guest(
        &self,
        index: usize,
        machine: Machine,
        links: Vec<Link>,
        boot_timeout: Duration,
        bed: &Testbed,
    ) -> Guest {
        Guest::new(
            index,
            machine,
            links,
            self.boot_timeout.unwrap_or(boot_timeout),
            Arc::clone(bed.artefacts.commands()),
            Arc::clone(&bed.allowed_splats),
        )
    }
}

/// `a`, `b`, ... and then `g26`, `g27`, ...
fn guest_name(index: usize) -> String {
    match u8::try_from(index) {
        Ok(small @ 0..26) => char::from(b'a' + small).to_string(),
        _ => format!("g{index}"),
    }
}

/// Guests that run, with the daemons they need. Dropping it ends everything at once; see also [`Testbed::finish`].
#[derive(Debug)]
pub struct Testbed {
    // In this order everything is dropped: QEMU does not survive its device's daemon, and nothing survives its sockets.
    guests: Vec<Guest>,
    daemons: Vec<(String, Daemon)>,
    share: PathBuf,
    artefacts: Artefacts,
    allowed_splats: Arc<Mutex<Vec<String>>>,
    _budget: Budget,
}

impl Testbed {
    /// A bed of the given name, which appears in the path of its logs.
    pub fn builder(name: &str) -> Builder {
        Builder {
            name: name.to_owned(),
            guests: 1,
            uml_guests: 0,
            processors: 2,
            memory_mib: None,
            debug_kernel: false,
            stock_kernel: None,
            mtu: None,
            devices: Vec::new(),
            shared: Vec::new(),
            kernel_args: Vec::new(),
            qemu_args: Vec::new(),
            allowed_splats: Vec::new(),
            boot_timeout: None,
        }
    }

    /// One guest.
    ///
    /// # Panics
    ///
    /// If the bed has fewer.
    pub fn guest(&self, index: usize) -> &Guest {
        &self.guests[index]
    }

    /// All guests.
    pub fn guests(&self) -> &[Guest] {
        &self.guests
    }

    /// Does something with all guests at the same time; returns the first guest's error, if any.
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

    /// The daemon of the bed's first device that has one.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn daemon(&self) -> &Daemon {
        match self.daemons.first() {
            Some((_, daemon)) => daemon,
            None => panic!("this bed has no device with a daemon"),
        }
    }

    /// The daemon of a device, by the device's name.
    pub fn daemon_of(&self, device: &str) -> Option<&Daemon> {
        let mut daemons = self.daemons.iter();
        daemons.find(|(name, _)| name == device).map(|(_, daemon)| daemon)
    }

    /// Where the bed's logs are.
    pub fn logs(&self) -> &Path {
        self.artefacts.directory()
    }

    /// The directory that the guests see, read-only, as `/host`.
    pub fn share(&self) -> &Path {
        &self.share
    }

    /// An error that says what to do, unless the guests see `/host/NAME`.
    pub(crate) fn require_shared(&self, name: &str) -> Result<()> {
        let hint = "it had not been built when the bed was started; `scripts/test` and `scripts/demo` build it";
        existing(name, self.share.join(name), hint).map(drop)
    }

    /// Makes splats that contain `text` no failure from now on.
    pub fn allow_splat(&self, text: impl Into<String>) {
        lock(&self.allowed_splats).push(text.into());
    }

    /// Turns all guests off, and sees that all is well: no kernel splats, no daemon ended or panicked. The logs are removed then,
    /// unless KEEP_LOGS=1 is set.
    pub fn finish(self) -> Result<()> {
        self.end()?;
        self.artefacts.succeed();
        Ok(())
    }

    /// As [`Testbed::finish`], but the logs stay. Returns their directory.
    pub fn finish_with_logs(self) -> Result<PathBuf> {
        self.end()?;
        self.artefacts.keep();
        Ok(self.logs().to_owned())
    }

    fn end(&self) -> Result<()> {
        // A splat explains more than a guest that does not turn off.
        for guest in &self.guests {
            guest.check()?;
        }
        // As any init does first; and in all guests before the first is gone, so that nothing hangs on a peer.
        self.each(Guest::kill_all)?;
        self.each(Guest::power_off)?;
        for guest in &self.guests {
            guest.check()?;
        }
        for (_, daemon) in &self.daemons {
            daemon.check()?;
            daemon.stop()?;
        }
        Ok(())
    }
}
