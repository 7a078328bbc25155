//! Gets a guest ready for SMC-R over the NIC.

use super::options::{NIC, NicOptions};
use crate::error::Result;
use crate::guest::Guest;

impl Guest {
    /// Sets up SMC-R version 2 with another guest of the bed, with the NIC up in both.
    pub fn smc_r_up(&self, peer: usize) -> Result<()> {
        // User Mode Linux has SMC in the kernel.
        let load = if self.is_uml() { "" } else { "modprobe -a smc smc_diag" };
        // SMC takes the hardware address of a peer next door from the handshake of version 1, which needs a GID of RoCE v1; that of a
        // gateway it asks the neighbour table for (`smc_ib_find_route`). So each guest is the other's gateway to itself. And peers of
        // version 2 need an enterprise id in common.
        let script = format!(
            "set -e\n\
             {load}\n\
             ip route replace {peer}/32 via {peer} dev {NIC} onlink\n\
             /host/smc-tool ueid add VHOST-NIC.TEST\n",
            peer = NicOptions::address(peer)
        );
        let command = self.shell(&script).called("set up SMC-R");
        command.run()?.check().map(drop)
    }
}
