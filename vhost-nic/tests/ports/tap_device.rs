//! Ports whose peer is the host, through a TAP device. Each test runs again in a network namespace of its own.

use std::sync::Arc;

use mlx5_test_driver::wait::eventually;
use vhost_nic::external_port::{ExternalPort, TapError, TapMedium, TapPlan};
use vhost_nic::net::Switch;

use crate::host_stack::{Station, configure, exchange, stream};
use crate::namespace::{in_namespace, ip};

/// A switch with the host and a station.
struct Bench {
    switch: Arc<Switch>,
    host: ExternalPort,
    station: Station,
}

impl Bench {
    fn new(plan: &TapPlan) -> Self {
        let switch = Switch::new();
        let medium = TapMedium::open(plan).unwrap();
        let host = ExternalPort::start(&switch, "host", Box::new(medium), 8 << 20).unwrap();
        let station = Station::new(&switch);
        configure(&plan.name);
        Self { switch, host, station }
    }
}

#[test]
fn the_host_leaves_checksums_and_segmentation_to_the_port() {
    if !in_namespace("tap_device::the_host_leaves_checksums_and_segmentation_to_the_port") {
        return;
    }
    let plan = TapPlan {
        name: "port0".to_owned(),
        create: true,
        offload: true,
    };
    let bench = Bench::new(&plan);
    let (on_wire, of_host) = exchange(&bench.station, "port0");
    assert!(
        on_wire > 200 && of_host < on_wire - 50,
        "{of_host} of the host became {on_wire}"
    );
    let (on_wire, by_host) = stream(&bench.station, "port0");
    assert!(
        by_host < on_wire / 2,
        "{on_wire} segments were {by_host} frames of the host"
    );
    let dropped = bench.host.stats().dropped;
    assert_eq!(dropped, Default::default());
}

#[test]
fn a_device_that_exists_is_used_as_it_is() {
    if !in_namespace("tap_device::a_device_that_exists_is_used_as_it_is") {
        return;
    }
    ip("tuntap add port0 mode tap");
    let plan = TapPlan {
        name: "port0".to_owned(),
        create: false,
        offload: false,
    };
    let bench = Bench::new(&plan);
    let (on_wire, of_host) = exchange(&bench.station, "port0");
    assert!(on_wire <= of_host, "{of_host} of the host became {on_wire}");
    let (on_wire, by_host) = stream(&bench.station, "port0");
    assert!(
        on_wire <= by_host,
        "{on_wire} segments were {by_host} frames of the host"
    );
    drop(bench);
    // It is still there, with its address.
    ip("address delete 10.0.0.1/24 dev port0");
}

#[test]
fn a_device_that_is_deleted_is_a_link_that_is_down() {
    if !in_namespace("tap_device::a_device_that_is_deleted_is_a_link_that_is_down") {
        return;
    }
    let plan = TapPlan {
        name: "port0".to_owned(),
        create: true,
        offload: true,
    };
    let bench = Bench::new(&plan);
    let link = || bench.switch.stats().ports[0].link_up;
    assert!(link());
    // A device that is not up takes no frames.
    ip("link set port0 down");
    bench.station.send(|ip, frame| ip.udp(1, 2).write(frame, &[]).unwrap());
    eventually("the refusal", || bench.host.stats().dropped.refused == 1);
    ip("link delete port0");
    eventually("the end of the link", || !link());
    bench.station.send(|ip, frame| ip.udp(1, 2).write(frame, &[]).unwrap());
    let stats = bench.host.stats();
    assert_eq!((stats.connected, stats.dropped.refused), (false, 1));
}

#[test]
fn no_other_interface_of_the_host_is_touched() {
    if !in_namespace("tap_device::no_other_interface_of_the_host_is_touched") {
        return;
    }
    let open = |name: &str, create| {
        let plan = TapPlan {
            name: name.to_owned(),
            create,
            offload: create,
        };
        TapMedium::open(&plan).err()
    };
    assert!(matches!(open("port0", false), Some(TapError::Absent(_))));
    assert!(matches!(open("lo", true), Some(TapError::Exists(_))));
    assert!(matches!(open("lo", false), Some(TapError::Open { .. })));
    for bad in ["", "port%d", "a/b", "a b", "sixteen-letters."] {
        assert!(matches!(open(bad, true), Some(TapError::Name(_))), "{bad:?}");
    }
    // Others may have further queues.
    ip("tuntap add several mode tap multi_queue");
    assert!(matches!(open("several", false), Some(TapError::Open { .. })));
    assert!(open("port0", true).is_none());
    // The device was that of the port, and is gone with it.
    assert!(matches!(open("port0", false), Some(TapError::Absent(_))));
}
