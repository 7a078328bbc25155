//! A guest with the NIC, and one with software RoCE on a virtio-net device at a port of the same switch.

use std::env;
use std::net::Ipv4Addr;

use guest_harness::{DaemonControl, Flow, Guest, NicOptions, RXE, Result, Testbed};
use serde_json::Value;

use crate::interop::outcome::Outcome;

/// MTU of the interfaces: the path MTU of RoCE is 1024 then.
const MTU: u32 = 1500;

/// An end of a conversation.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    pub guest: &'a Guest,
    pub device: &'static str,
    /// Index of the GID of the IPv4 address.
    pub gid: u32,
    pub address: Ipv4Addr,
}

/// The two guests.
#[derive(Debug)]
pub struct Peers {
    testbed: Testbed,
    control: DaemonControl,
    gids: [u32; 2],
}

impl Peers {
    pub fn start(name: &str) -> Result<Self> {
        Self::start_with(name, NicOptions::default())
    }

    /// Does the same with these options of the NIC and the port.
    pub fn start_with(name: &str, options: NicOptions) -> Result<Self> {
        let socket = env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let options = options
            .virtio_guests(1)
            .args(["--control-socket".to_owned(), socket.display().to_string()]);
        let testbed = Testbed::builder(name).guests(2).nic(options).start()?;
        let control = DaemonControl::new(NicOptions::program()?, socket);
        let (nic, rxe) = (testbed.guest(0), testbed.guest(1));
        nic.nic_load(true)?;
        nic.nic_configure(MTU)?;
        rxe.rxe_up(MTU)?;
        let gids = [gid_index(nic, "mlx5_0")?, gid_index(rxe, RXE)?];
        Ok(Self { testbed, control, gids })
    }

    /// Puts a plan of faults in force.
    pub fn apply(&self, plan: &str) -> Result<()> {
        self.control.apply(plan)
    }

    /// Strikes of each fault in force.
    pub fn strikes(&self) -> Result<Vec<u64>> {
        let rules = self.control.faults()?;
        Ok(rules.iter().filter_map(|rule| rule["strikes"].as_u64()).collect())
    }

    /// Statistics of the port.
    pub fn port(&self) -> Result<Value> {
        Ok(self.testbed.daemon().stats()?["ports"][0].take())
    }

    /// Frames that the switch has passed to the NIC (0), or to the port (1).
    pub fn passed(&self, port: usize) -> Result<u64> {
        let stats = self.testbed.daemon().stats()?;
        let frames = &stats["switch"]["ports"][port]["received"]["frames"];
        Ok(frames.as_u64().expect("a counter"))
    }

    /// The NIC, then software RoCE.
    pub fn ends(&self) -> [End<'_>; 2] {
        [0, 1].map(|index| End {
            guest: self.testbed.guest(index),
            device: ["mlx5_0", RXE][index],
            gid: self.gids[index],
            address: NicOptions::address(index),
        })
    }

    /// Runs a program with the client, the requester or the sender at the NIC, then with it at software RoCE.
    pub fn both_ways<'a>(&'a self, name: &str, run: impl Fn(End<'a>, End<'a>) -> Result<()>) -> Outcome {
        let [nic, rxe] = self.ends();
        Outcome::of(
            name,
            [(nic, rxe), (rxe, nic)].map(|(client, server)| run(client, server)),
        )
    }

    /// Shuts down; asserts that no packet between the two was corrupted or refused. Some may have found the queue of
    /// the port full, as on any switch: the sender went back, or the program would have said so.
    pub fn finish(self) -> Result<()> {
        let stats = self.testbed.daemon().stats()?;
        let dropped = &stats["ports"][0]["dropped"];
        for reason in ["unreadable", "malformed", "bad_icrc", "too_long", "refused"] {
            assert_eq!(dropped[reason], 0, "{stats:#}");
        }
        let [nic, rxe] = self.ends();
        rxe.guest.run(&format!("rdma link del {RXE}"))?.check()?;
        nic.guest.nic_unload()?;
        nic.guest.nic_check_log(&[])?;
        self.testbed.finish()
    }
}

impl<'a> End<'a> {
    /// Traffic from this end to another.
    pub fn to(self, server: End<'a>) -> Flow<'a> {
        Flow::new(self.guest, server.guest, server.address)
    }
}

/// Finds the GID of RoCE v2 of a guest's IPv4 address.
fn gid_index(guest: &Guest, device: &str) -> Result<u32> {
    let [a, b, c, d] = NicOptions::address(guest.index()).octets();
    let script = format!(
        "cd /sys/class/infiniband/{device}/ports/1\n\
         for index in $(seq 0 15); do\n\
         \x20 [ \"$(<gids/$index)\" = 0000:0000:0000:0000:0000:ffff:{a:02x}{b:02x}:{c:02x}{d:02x} ] || continue\n\
         \x20 grep -q v2 gid_attrs/types/$index && echo $index && exit\n\
         done\n\
         exit 1\n"
    );
    let found = guest.shell(&script).called("find the GID").run()?.check()?;
    Ok(found.text().parse().expect("an index"))
}
