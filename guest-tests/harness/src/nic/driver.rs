//! The mlx5 drivers in a guest: loading, configuration, unloading.

use std::time::Duration;

use super::log::KernelMessage;
use super::options::{NIC, NicOptions};
use crate::error::{Error, Result};
use crate::guest::Guest;

/// Limit on loading the drivers, when software emulation has to translate all their code.
const LOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Paths in User Mode Linux, which has the driver built in: the driver, and the first PCI function.
const DRIVER: &str = "/sys/bus/pci/drivers/mlx5_core";
const FUNCTION: &str = "0000:00:00.0";
const BOUND: &str = "/sys/bus/pci/drivers/mlx5_core/0000:00:00.0";

/// Name of the device of software RoCE.
pub const RXE: &str = "rxe0";

/// Configuration of a guest's NIC.
#[derive(Debug, Clone)]
pub struct NicSetup {
    /// Whether the RDMA driver is loaded, too.
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
    /// Loads the drivers, waits for the interface and renames it to [`NIC`]; does not bring it up.
    pub fn nic_load(&self, rdma: bool) -> Result<()> {
        let modules = if rdma {
            "mlx5_core mlx5_ib ib_uverbs rdma_ucm"
        } else {
            "mlx5_core"
        };
        self.load_modules(modules)
    }

    /// Loads software RoCE (rdma_rxe) and its user interfaces, waits for the interface of a guest without a NIC,
    /// renames it to [`NIC`], and brings it up with the device [`RXE`] on it.
    pub fn rxe_up(&self, mtu: u32) -> Result<()> {
        self.load_modules("rdma_rxe ib_uverbs rdma_ucm")?;
        self.nic_configure(mtu)?;
        let add = format!("rdma link add {RXE} type rxe netdev {NIC}");
        self.run(&add)?.check().map(drop)
    }

    /// Loads drivers, waits for the interface and renames it to [`NIC`].
    fn load_modules(&self, modules: &str) -> Result<()> {
        let load = if self.is_uml() {
            // The drivers are built in.
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

    /// Sets MTU and addresses, brings the interface up and waits for the carrier.
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

    /// Loads the drivers, brings the interface up and checks the kernel log for warnings.
    pub fn nic_up(&self, setup: &NicSetup) -> Result<()> {
        self.nic_load(setup.rdma)?;
        self.nic_configure(setup.mtu)?;
        self.nic_check_log(&[])
    }

    /// Unloads all drivers of the NIC.
    pub fn nic_unload(&self) -> Result<()> {
        let script = if self.is_uml() {
            format!("[ ! -e {BOUND} ] || echo {FUNCTION} > {DRIVER}/unbind")
        } else {
            "for m in rdma_ucm mlx5_ib mlx5_core; do [ ! -d /sys/module/$m ] || rmmod $m || exit; done".to_owned()
        };
        let unload = self.shell(&script).called("unload").timeout(LOAD_TIMEOUT);
        unload.run()?.check().map(drop)
    }

    /// Returns the kernel messages about the NIC.
    pub fn nic_log(&self) -> Result<Vec<KernelMessage>> {
        let log = self.run("dmesg --raw")?.check()?;
        let mut messages = KernelMessage::parse(&log.stdout);
        messages.retain(KernelMessage::is_of_mlx5);
        Ok(messages)
    }

    /// Fails if the kernel log has warnings or worse about the NIC that contain none of `allowed`.
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
