//! Setup of SMC-R over the NIC.

use super::options::{NIC, NicOptions};
use crate::error::Result;
use crate::guest::Guest;

/// Interface of a guest's second NIC.
const SECOND: &str = "nic1";
/// Name of the physical network of both NICs.
const PNETID: &str = "NICS";

impl Guest {
    /// Loads SMC; the NIC must be up. With GIDs of RoCE v1 and no common enterprise id, peers of one subnet talk SMC-R
    /// version 1.
    pub fn smc_load(&self) -> Result<()> {
        // User Mode Linux has SMC built in.
        let load = if self.is_uml() {
            "true"
        } else {
            "modprobe -a smc smc_diag"
        };
        self.run(load)?.check().map(drop)
    }

    /// Adds the enterprise id that peers of SMC-R version 2 need in common.
    pub fn smc_r_v2(&self) -> Result<()> {
        self.run("/host/smc-tool ueid add VHOST-NIC.TEST")?.check().map(drop)
    }

    /// Sets up SMC-R version 2; the NIC must be up.
    pub fn smc_r_up(&self) -> Result<()> {
        self.smc_load()?;
        self.smc_r_v2()
    }

    /// Brings the second NIC up, without addresses, and names the network of both.
    pub fn smc_r_pair_nics(&self) -> Result<()> {
        let script = format!(
            "set -e\n\
             for device in /sys/class/net/*; do\n\
             \x20 [ \"$(<$device/address)\" = {mac} ] || continue\n\
             \x20 ip link set ${{device##*/}} name {SECOND}\n\
             \x20 break\n\
             done\n\
             ip link set {SECOND} up\n\
             /host/smc-tool pnetid add {PNETID} --interface {NIC}\n\
             for device in mlx5_0 mlx5_1; do /host/smc-tool pnetid add {PNETID} --device $device; done\n",
            mac = NicOptions::second_mac(self.index())
        );
        let pair = self.shell(&script).called("pair the NICs");
        pair.run()?.check().map(drop)
    }
}
