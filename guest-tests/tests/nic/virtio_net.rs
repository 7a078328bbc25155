//! A guest with virtio-net, whose driver shares its memory with the daemon (`--port vhost-user`), and one with the NIC.

use guest_harness::{Guest, NIC, NicOptions, Result};

use crate::interop::peers::Peers;
use crate::interop::programs;

/// MTU of the interfaces.
const MTU: u32 = 1500;

#[test]
fn a_driver_of_virtio_net_shares_the_switch_with_the_nic() -> Result<()> {
    let peers = Peers::start_with("nic-vhost-user-net", NicOptions::default().vhost_user_net())?;
    let [nic, virtio] = peers.ends();
    features(virtio.guest)?;
    for (client, server) in [(nic, virtio), (virtio, nic)] {
        for size in [16, 56, 1472] {
            client.to(server).ping(3, size)?;
        }
        client.to(server).compare_digests(8)?;
        programs::ping_pong(client, server, "ibv_rc_pingpong -c")?;
        programs::perftest(client, server, "ib_send_bw -n 200 -s 65536")?;
    }
    // Segments arrive joined: fewer frames than the switch has passed.
    let frames = || Ok::<_, guest_harness::Error>((peers.passed(1)?, received(virtio.guest)?));
    let before = frames()?;
    nic.to(virtio).compare_digests(16)?;
    let after = frames()?;
    let (passed, received) = (after.0 - before.0, after.1 - before.1);
    assert!(
        passed > 11_000 && received < passed * 3 / 4,
        "{received} frames for {passed} of the switch"
    );
    // The device stops and starts again.
    virtio.guest.reset()?;
    virtio.guest.rxe_up(MTU)?;
    virtio.to(nic).compare_digests(4)?;
    nic.to(virtio).compare_digests(4)?;
    assert!(peers.port()?["connections"].as_u64() >= Some(2));
    peers.finish()
}

/// Asserts what the driver has accepted.
fn features(guest: &Guest) -> Result<()> {
    let settings = guest.run(&format!("ethtool -k {NIC}"))?.check()?;
    let text = settings.text();
    for expected in [
        "rx-checksumming: on",
        "tx-checksumming: on",
        "tx-tcp-segmentation: on",
        "tx-tcp6-segmentation: on",
        "tx-tcp-ecn-segmentation: on",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    Ok(())
}

/// Frames that the guest has received.
fn received(guest: &Guest) -> Result<u64> {
    let text = guest.read(&format!("/sys/class/net/{NIC}/statistics/rx_packets"))?;
    Ok(text.trim().parse().expect("a number"))
}
