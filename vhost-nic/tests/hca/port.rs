//! The port: link, counters, loopback.

use mlx5_prm::access_reg::PtysReg;
use mlx5_prm::queue_entry::EventType;
use mlx5_test_driver::cq::error_of;
use mlx5_test_driver::netdev::Options;
use mlx5_test_driver::sq::Request;
use mlx5_test_driver::tis_tir_rqt::{ALLOW_LOOPBACK, set_self_loopback};

use crate::frames::plain;
use crate::inspect::Inspect;
use crate::lan::Lan;

/// Subtypes of a port change event (`MLX5_PORT_CHANGE_SUBTYPE_*`).
const DOWN: u8 = 1;
const ACTIVE: u8 = 4;

#[test]
fn the_driver_is_told_when_the_cable_goes_and_comes() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let (source, destination) = (a.hca.machine.mac, b.hca.machine.mac);
    while a.hca.events.lock().poll().is_some() {}
    for _ in 0..3 {
        a.hca.machine.nic().set_cable(false);
        let event = a.hca.wait_event(EventType::PortChange);
        assert_eq!((event.sub_type, event.data[8]), (DOWN, 1 << 4));
        assert!(!a.link_up());
        let before = b.hca.machine.nic().snapshot().port.received;
        let frame = plain(source, destination, 60);
        let block = a.place(&frame);
        let channel = &mut a.channels[0];
        channel.sq.send(&Request {
            data: &[(block.address(), 60)],
            ..Request::default()
        });
        assert_eq!(
            error_of(&channel.send_cq.wait()),
            None,
            "the frame is lost, not the queue"
        );
        channel.send_cq.release();
        drop(block);
        b.expect_silence();
        assert_eq!(b.hca.machine.nic().snapshot().port.received, before);
        a.hca.machine.nic().set_cable(true);
        let event = a.hca.wait_event(EventType::PortChange);
        assert_eq!((event.sub_type, event.data[8]), (ACTIVE, 1 << 4));
        assert!(a.link_up());
        a.send(&frame);
        assert_eq!(b.receive().frame, frame);
    }
    lan.end();
}

#[test]
fn a_port_that_is_off_takes_no_frames() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let frame = plain(a.hca.machine.mac, b.hca.machine.mac, 60);
    b.set_port(false).unwrap();
    assert!(!b.link_up());
    a.send(&frame);
    b.expect_silence();
    b.set_port(true).unwrap();
    a.send(&frame);
    assert_eq!(b.receive().frame, frame);
    lan.end();
}

/// Register for ACCESS_REG: link modes (`MLX5_REG_PTYS`).
const PTYS: u16 = 0x5004;

#[test]
fn the_driver_sees_the_speed_of_the_link() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, _b) = lan.pair();
    let mut request = PtysReg::default();
    request.set_local_port(1);
    request.set_proto_mask(1 << 2);
    let ptys = || a.hca.read_register(PTYS, &request).unwrap();
    let all = 1 << 1 | 1 << 4 | 1 << 7 | 1 << 22 | 1 << 28 | 1 << 31;
    assert_eq!((ptys().eth_proto_capability(), ptys().eth_proto_admin()), (all, all));
    assert_eq!(
        (ptys().eth_proto_oper(), ptys().eth_proto_lp_advertise()),
        (1 << 22, all)
    );
    while a.hca.events.lock().poll().is_some() {}
    // A link that changes its speed goes down and comes up.
    assert!(a.hca.machine.nic().set_partner_speed(Some(25)));
    for sub_type in [DOWN, ACTIVE] {
        let event = a.hca.wait_event(EventType::PortChange);
        assert_eq!((event.sub_type, event.data[8]), (sub_type, 1 << 4));
    }
    assert_eq!(
        (ptys().eth_proto_oper(), ptys().eth_proto_lp_advertise()),
        (1 << 28, 1 << 28)
    );
    assert!(a.link_up());
    // The guest allows another speed only: no link.
    request.set_eth_proto_admin(1 << 7);
    a.hca.write_register(PTYS, &request).unwrap();
    assert_eq!(a.hca.wait_event(EventType::PortChange).sub_type, DOWN);
    assert!(!a.link_up());
    assert_eq!(a.hca.read_register(PTYS, &request).unwrap().eth_proto_oper(), 0);
    assert!(a.hca.machine.nic().set_partner_speed(None));
    assert_eq!(a.hca.wait_event(EventType::PortChange).sub_type, ACTIVE);
    assert_eq!(a.hca.read_register(PTYS, &request).unwrap().eth_proto_oper(), 1 << 7);
    lan.end();
}

#[test]
fn frames_to_the_own_address_come_back_where_the_driver_wants_them() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let frame = plain(a.hca.machine.mac, a.hca.machine.mac, 90);
    a.send(&frame);
    a.expect_silence();
    for tirn in a.direct.iter().copied().chain(a.spread.iter().map(|&(_, tirn)| tirn)) {
        set_self_loopback(&a.hca, tirn, ALLOW_LOOPBACK).unwrap();
    }
    a.send(&frame);
    assert_eq!(a.receive().frame, frame);
    a.disable_loopback(true).unwrap();
    a.send(&frame);
    a.expect_silence();
    b.expect_silence();
    lan.end();
}

#[test]
fn the_mtu_is_that_of_the_port() {
    let mut lan = Lan::new(
        2,
        &Options {
            parts: vec![16 << 10],
            ..Options::default()
        },
    );
    let (a, b) = lan.pair();
    let (source, destination) = (a.hca.machine.mac, b.hca.machine.mac);
    let long = plain(source, destination, 9014);
    a.send(&long);
    b.expect_silence();
    assert_eq!(a.hca.machine.nic().snapshot().port.send_errors, 1);
    a.set_mtu(9000).unwrap();
    a.send(&long);
    b.expect_silence();
    assert_eq!(b.hca.machine.nic().snapshot().port.refused, 1);
    b.set_mtu(9000).unwrap();
    a.send(&long);
    assert_eq!(b.receive().frame, long);
    lan.end();
}

#[test]
fn the_vport_counts_what_passes() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let (source, destination) = (a.hca.machine.mac, b.hca.machine.mac);
    for length in [60, 100, 1000] {
        a.send(&plain(source, destination, length));
        b.receive();
    }
    a.send(&plain(source, [0xff; 6], 70));
    b.receive();
    let (sent, received) = (a.vport_counters(), b.vport_counters());
    let (transmitted, arrived) = (sent.transmitted_eth_unicast(), received.received_eth_unicast());
    assert_eq!((transmitted.packets(), transmitted.octets()), (3, 1160));
    assert_eq!((arrived.packets(), arrived.octets()), (3, 1160));
    assert_eq!(sent.transmitted_eth_broadcast().packets(), 1);
    assert_eq!(received.received_eth_broadcast().packets(), 1);
    lan.end();
}
