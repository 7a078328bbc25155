//! Guests with a NIC each, on one switch.

use std::path::PathBuf;
use std::time::Instant;

use guest_harness::{Daemon, Flow, Guest, Image, NicOptions, NicSetup, Result, Testbed, cache_dir};
use serde_json::Value;

use crate::frames;

/// Configuration of a fixture.
#[derive(Debug)]
pub struct Setup {
    name: &'static str,
    guests: usize,
    memory_mib: Option<u32>,
    stock_kernel: Option<&'static str>,
    packages: Option<&'static str>,
    options: NicOptions,
    nic: NicSetup,
}

impl Setup {
    pub fn new(name: &'static str, guests: usize) -> Self {
        Self {
            name,
            guests,
            memory_mib: None,
            stock_kernel: None,
            packages: None,
            options: NicOptions::default(),
            nic: NicSetup::default(),
        }
    }

    /// Sets the memory per guest.
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = Some(mib);
        self
    }

    /// Boots an unmodified Debian kernel of this series.
    pub fn stock_kernel(mut self, series: &'static str) -> Self {
        self.stock_kernel = Some(series);
        self
    }

    /// Boots Debian's newest kernel on a root file system with more packages, whose names are joined by `+`, of
    /// `images/build --packages`.
    pub fn packages(mut self, names: &'static str) -> Self {
        self.packages = Some(names);
        self.stock_kernel("7.x")
    }

    /// Sets the options of the daemon and of the device.
    pub fn options(mut self, options: NicOptions) -> Self {
        self.options = options;
        self
    }

    /// Leaves out the RDMA driver.
    pub fn ethernet_only(mut self) -> Self {
        self.nic.rdma = false;
        self
    }

    /// Boots the guests without loading drivers.
    pub fn boot(self) -> Result<Fixture> {
        let builder = Testbed::builder(self.name)
            .guests(self.guests)
            .nic(self.options)
            // Room for all messages of a test.
            .kernel_arg("log_buf_len=2M")
            .share(frames::program());
        let builder = match self.memory_mib {
            Some(mib) => builder.memory_mib(mib),
            None => builder,
        };
        let builder = match self.stock_kernel {
            // Debian kernels report a stall after 21 s without progress of a processor, which happens on a busy host.
            Some(series) => builder
                .stock_kernel(series)
                .kernel_arg("rcupdate.rcu_cpu_stall_suppress=1"),
            None => builder,
        };
        let testbed = match self.packages {
            Some(names) => {
                let mut image = Image::load_stock("7.x")?;
                image.rootfs = cache_dir().join(format!("rootfs+{names}/rootfs.ext4"));
                builder.image(image)
            }
            None => builder,
        }
        .start()?;
        Ok(Fixture { testbed, nic: self.nic })
    }

    /// Boots the guests, loads the drivers and brings the interfaces up.
    pub fn start(self) -> Result<Fixture> {
        let fixture = self.boot()?;
        fixture.up()?;
        Ok(fixture)
    }
}

/// Running guests on one switch.
#[derive(Debug)]
pub struct Fixture {
    testbed: Testbed,
    nic: NicSetup,
}

impl Fixture {
    pub fn testbed(&self) -> &Testbed {
        &self.testbed
    }

    pub fn guest(&self, index: usize) -> &Guest {
        self.testbed.guest(index)
    }

    pub fn daemon(&self) -> &Daemon {
        self.testbed.daemon_of("vhost-nic").expect("the testbed has no NIC")
    }

    /// Loads the drivers and brings the interfaces up in all guests.
    pub fn up(&self) -> Result<()> {
        self.testbed.each(|guest| self.guest_up(guest))
    }

    /// Loads the drivers and brings the interface up in one guest.
    pub fn guest_up(&self, guest: &Guest) -> Result<()> {
        guest.nic_load(self.nic.rdma)?;
        guest.nic_configure(self.nic.mtu)?;
        guest.nic_check_log(&[])
    }

    /// Sets the MTU in all guests.
    pub fn set_mtu(&self, mtu: u32) -> Result<()> {
        self.testbed.each(|guest| guest.nic_configure(mtu))
    }

    /// Returns IPv4 traffic from one guest to another.
    pub fn flow(&self, from: usize, to: usize) -> Flow<'_> {
        Flow::new(self.guest(from), self.guest(to), NicOptions::address(to))
    }

    /// Returns IPv6 traffic from one guest to another.
    pub fn flow_v6(&self, from: usize, to: usize) -> Flow<'_> {
        Flow::new(self.guest(from), self.guest(to), NicOptions::address_v6(to))
    }

    /// Reads the daemon's statistics of one guest.
    pub fn stats(&self, guest: usize) -> Result<Value> {
        let stats = self.daemon().stats()?;
        let guests = stats["guests"].as_array().expect("the daemon's guests");
        Ok(guests[guest].clone())
    }

    /// Asserts that the daemon holds no objects or pages of a guest whose driver is unloaded.
    pub fn assert_nothing_left(&self, guest: usize) -> Result<()> {
        let stats = self.stats(guest)?;
        for (kind, count) in stats["objects"].as_object().expect("objects by kind") {
            assert_eq!(*count, 0, "{kind} left behind in {stats:#}");
        }
        assert_eq!(stats["pages"], 0, "pages left behind in {stats:#}");
        Ok(())
    }

    /// Unloads all drivers and shuts down; asserts that the drivers logged no warnings and the daemon holds nothing.
    pub fn finish(self) -> Result<()> {
        self.unload()?;
        self.testbed.finish()
    }

    /// Does the same as [`Fixture::finish`], but keeps the logs; returns their directory.
    pub fn finish_with_logs(self) -> Result<PathBuf> {
        self.unload()?;
        self.testbed.finish_with_logs()
    }

    fn unload(&self) -> Result<()> {
        for guest in self.testbed.guests() {
            let stats = self.stats(guest.index())?;
            assert_ne!(
                stats["objects"]["eq"],
                Value::Null,
                "the driver has event queues: {stats:#}"
            );
        }
        self.testbed.each(|guest| {
            guest.nic_unload()?;
            guest.nic_check_log(&[])
        })?;
        for guest in self.testbed.guests() {
            self.assert_nothing_left(guest.index())?;
        }
        Ok(())
    }
}

/// Runs a step and prints its duration.
pub fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    let begin = Instant::now();
    run()?;
    eprintln!("{name}: {:.1} s", begin.elapsed().as_secs_f64());
    Ok(())
}
