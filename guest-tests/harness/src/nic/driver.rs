//! The mlx5 drivers in a guest: loading, setting up, unloading.

use std::time::Duration;

use super::log::KernelMessage;
use super::options::{NIC, NicOptions};
use crate::error::{Error, Result};
use crate::guest::Guest;

/// Loading under software emulation, with all the code in it never translated before.
const LOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// The driver, which User Mode Linux has in the kernel; and the first function it has a place for.
const DRIVER: &str = "/sys/bus/pci/drivers/mlx5_core";
const FUNCTION: &str = "0000:00:00.0";
const BOUND: &str = "/sys/bus/pci/drivers/mlx5_core/0000:00:00.0";

/// How a guest's NIC is set up.
#[derive(Debug, Clone)]
pub struct NicSetup {
    /// Whether the RDMA driver is loaded as well.
    pub rdma: bool,
    /// MTU of the interface, in bytes.
    pub mtu: u32,
}

impl Default for NicSetup {
    fn default() -> Self {
        Self { rdma: true, mtu: 1500 }
    }
}

impl Guest {
    /// Loads the drivers of the NIC and waits for its interface, which is then called [`NIC`] and is not up yet.
    pub fn nic_load(&self, rdma: bool) -> Result<()> {
        let modules = if rdma {
            "mlx5_core mlx5_ib ib_uverbs rdma_ucm"
        } else {
            "mlx5_core"
        };
        let load = if self.is_uml() {
            // They are in the kernel.
            format!("[ -e {BOUND} ] || echo {FUNCTION} > {DRIVER}/bind")
        } else {
            format!("modprobe -a {modules}")
        };
        let script = format!(
            "set -e\n\
             {load}\n\
             for try in $(seq 200); do\n\
             \x20 for device in /sys/class/net/*; do\n\
             \x20   if [ \"$(<$device/address)\" = {mac} ]; then\n\
             \x20     name=${{device##*/}}\n\
             \x20     [ $name = {NIC} ] || ip link set $name name {NIC}\n\
             \x20     exit\n\
             \x20   fi\n\
             \x20 done\n\
             \x20 sleep 0.1\n\
             done\n\
             echo 'there is no interface with address {mac}' >&2; exit 1\n",
            mac = NicOptions::mac(self.index()),
        );
        let load = self
            .shell(&script)
            .called(format!("load {modules}"))
            .timeout(LOAD_TIMEOUT);
        load.run()?.check().map(drop)
    }

    /// Gives the loaded NIC its addresses, takes it up and waits for the carrier.
    pub fn nic_configure(&self, mtu: u32) -> Result<()> {
        let script = format!(
            "set -e\n\
             ip link set {NIC} mtu {mtu}\n\
             ip addr replace {v4}/24 dev {NIC}\n\
             ip link set {NIC} up\n\
             ip addr replace {v6}/64 dev {NIC} nodad\n\
             for try in $(seq 200); do\n\
             \x20 [ \"$(</sys/class/net/{NIC}/carrier)\" = 1 ] && exit\n\
             \x20 sleep 0.1\n\
             done\n\
             echo '{NIC} has no carrier' >&2; exit 1\n",
            v4 = NicOptions::address(self.index()),
            v6 = NicOptions::address_v6(self.index()),
        );
        let configure = self
            .shell(&script)
            .called(format!("set {NIC} up"))
            .timeout(LOAD_TIMEOUT);
        configure.run()?.check().map(drop)
    }

    /// Loads the drivers, sets the interface up and sees that they have no complaint.
    pub fn nic_up(&self, setup: &NicSetup) -> Result<()> {
        self.nic_load(setup.rdma)?;
        self.nic_configure(setup.mtu)?;
        self.nic_check_log(&[])
    }

    /// Takes out all drivers of the NIC.
    pub fn nic_unload(&self) -> Result<()> {
        let script = if self.is_uml() {
            format!("[ ! -e {BOUND} ] || echo {FUNCTION} > {DRIVER}/unbind")
        } else {
            "for m in rdma_ucm mlx5_ib mlx5_core; do [ ! -d /sys/module/$m ] || rmmod $m || exit; done".to_owned()
        };
        let unload = self.shell(&script).called("unload").timeout(LOAD_TIMEOUT);
        unload.run()?.check().map(drop)
    }

    /// What the kernel has logged about the NIC.
    pub fn nic_log(&self) -> Result<Vec<KernelMessage>> {
        let log = self.run("dmesg --raw")?.check()?;
        let mut messages = KernelMessage::parse(&log.stdout);
        messages.retain(KernelMessage::is_of_mlx5);
        Ok(messages)
    }

    /// An error if the kernel has warned about the NIC, or worse, in words that contain none of `allowed`.
    pub fn nic_check_log(&self, allowed: &[&str]) -> Result<()> {
        let complaints: Vec<String> = self
            .nic_log()?
            .into_iter()
            .filter(|message| message.is_complaint() && !allowed.iter().any(|text| message.text.contains(text)))
            .map(|message| format!("<{}>{}", message.level, message.text))
            .collect();
        if complaints.is_empty() {
            return Ok(());
        }
        Err(Error::DriverComplaints {
            guest: self.name().to_owned(),
            messages: complaints.join("\n"),
        })
    }
}
