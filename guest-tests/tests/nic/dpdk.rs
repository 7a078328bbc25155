//! DPDK: testpmd with its mlx5 driver in one guest, with default arguments, against Linux in the other.

use std::time::Duration;

use guest_harness::{NIC, Result};

use crate::fixture::{Setup, step};

/// Sends frames and compares what comes back.
const PEER: &str = include_str!("macswap.py");
/// Frames, and how many of them at once: more than testpmd takes from its queue at a time.
const FRAMES: u64 = 5000;
const BURST: u64 = 100;
/// SIGINT.
const INT: i32 = 2;
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
#[ignore = "long: needs a root file system with DPDK"]
fn testpmd_returns_every_frame() -> Result<()> {
    let fixture = Setup::new("nic-dpdk", 2)
        .packages("dpdk-dev+librte-meta-net")
        .memory_mib(1024)
        .start()?;
    let (dpdk, linux) = (fixture.guest(0), fixture.guest(1));
    let address = dpdk.run(&format!("cat /sys/class/net/{NIC}/address"))?.check()?;
    let testpmd = dpdk.spawn(
        "exec dpdk-testpmd --no-huge -m 256 -- --total-num-mbufs=4096 --forward-mode=macswap --auto-start \
         --stats-period 1",
    )?;
    testpmd.wait_line("Port statistics", PATIENCE)?;
    step("frames", || {
        let [frames, burst] = [FRAMES, BURST].map(|number| number.to_string());
        let peer = linux.command(["python3", "-c", PEER, NIC, address.text(), &frames, &burst]);
        let said = peer.called("macswap.py").timeout(PATIENCE).run()?.check()?;
        assert_eq!(said.text(), format!("{FRAMES} {FRAMES}"));
        Ok(())
    })?;
    testpmd.kill(INT);
    let said = testpmd.wait(PATIENCE)?.check()?.stdout;
    let last = said.split("Forward statistics for port 0").last().expect("a text");
    // What Linux sends of itself is returned, too.
    let counted = |name: &str| -> u64 {
        let (_, value) = last.split_once(name).unwrap_or_else(|| panic!("{name} in {last}"));
        value
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .parse()
            .expect("a number")
    };
    assert!(counted("RX-packets:") >= FRAMES, "{last}");
    assert_eq!(counted("TX-packets:"), counted("RX-packets:"), "{last}");
    for dropped in ["RX-dropped:", "TX-dropped:"] {
        assert_eq!(counted(dropped), 0, "{last}");
    }
    fixture.finish()
}
