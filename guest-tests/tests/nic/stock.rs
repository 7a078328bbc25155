//! Unmodified Debian kernels.

use guest_harness::{Result, Testbed};

use crate::ethtool::steering;
use crate::fixture::{Setup, step};

/// The series built by `images/build stock`.
const SERIES: [&str; 3] = ["6.1", "6.12", "7.x"];

#[test]
fn each_stock_kernel_boots_on_our_root_file_system() -> Result<()> {
    for series in SERIES {
        let testbed = Testbed::builder("stock-boot").stock_kernel(series).start()?;
        let release = testbed.guest(0).run("uname -r")?.check()?;
        let major = series.trim_end_matches('x');
        assert!(release.text().starts_with(major), "{release}");
        assert!(release.text().ends_with("-amd64"), "{release}");
        let drivers = testbed
            .guest(0)
            .run("modprobe -a -n mlx5_core mlx5_ib ib_uverbs rdma_ucm 8021q")?;
        drivers.check()?;
        testbed.finish()?;
    }
    Ok(())
}

#[test]
fn linux_6_1_of_debian_drives_the_nic() -> Result<()> {
    drive("6.1")
}

#[test]
fn linux_6_12_of_debian_drives_the_nic() -> Result<()> {
    drive("6.12")
}

#[test]
fn linux_7_of_debian_drives_the_nic() -> Result<()> {
    drive("7.x")
}

fn drive(series: &'static str) -> Result<()> {
    let fixture = Setup::new("nic-stock", 2).stock_kernel(series).start()?;
    step("ping", || {
        fixture.flow(0, 1).ping(5, 1472)?;
        fixture.flow_v6(1, 0).ping(5, 1452).map(drop)
    })?;
    step("digests", || fixture.flow(0, 1).compare_digests(2))?;
    step("iperf3", || {
        let tcp = fixture.flow(1, 0).iperf(2, "")?;
        let udp = fixture.flow_v6(0, 1).iperf(1, "--udp --bitrate 5M --length 1400")?;
        assert!(tcp.bytes > 0 && udp.packets > 0, "{tcp:?} {udp:?}");
        eprintln!(
            "TCP {:.0} Mbit/s, UDP lost {} of {}",
            tcp.bits_per_second / 1e6,
            udp.lost,
            udp.packets
        );
        Ok(())
    })?;
    step("steering", || steering(&fixture))?;
    let info = fixture.guest(0).run("ibv_devinfo")?.check()?;
    assert!(info.stdout.contains("PORT_ACTIVE"), "{info}");
    fixture.finish()
}
