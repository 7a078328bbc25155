//! Setup of SMC-R over the NIC.

use super::options::{NIC, NicOptions};
use crate::error::Result;
use crate::guest::Guest;

impl Guest {
    /// Sets up SMC-R version 2 with the guest `peer`; the NIC must be up in both.
    pub fn smc_r_up(&self, peer: usize) -> Result<()> {
        // User Mode Linux has SMC built in.
        let load = if self.is_uml() { "" } else { "modprobe -a smc smc_diag" };
        // For a peer on the same subnet, SMC takes the MAC address from the handshake of version 1, which needs a RoCE
        // v1 GID; for a gateway it asks the neighbour table (`smc_ib_find_route`). So each guest is configured as the
        // gateway to itself. Peers of version 2 also need a common enterprise id.
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
