//! Commands, family by family: what they create, report, modify and refuse.

use std::sync::Arc;

use mlx5_prm::command::Status;
use mlx5_prm::domain::{
    AllocXrcdIn, AllocXrcdOut, CreateUctxIn, CreateUctxOut, DeallocXrcdIn, DeallocXrcdOut, DestroyUctxIn,
    DestroyUctxOut,
};
use mlx5_prm::layout;
use mlx5_prm::opcode::Opcode;
use mlx5_prm::tis_tir_rqt::{QueryRqtIn, QueryRqtOut, QueryTirIn, QueryTirOut, QueryTisIn, QueryTisOut, RqNum};
use mlx5_prm::vport::*;
use mlx5_test_driver::command::Result;
use mlx5_test_driver::cq::{CompletionQueue, Shape};
use mlx5_test_driver::domain::{alloc_pd, alloc_transport_domain, dealloc_pd, dealloc_transport_domain};
use mlx5_test_driver::eq::EventQueue;
use mlx5_test_driver::hca::{Hca, access_register, alloc_uar, dealloc_uar};
use mlx5_test_driver::netdev::{Netdev, Options, alloc_queue_counters, dealloc_queue_counters};
use mlx5_test_driver::sq::state;
use mlx5_test_driver::steering::{self, Entry, Table, To, action, destination};
use mlx5_test_driver::tis_tir_rqt::*;
use vhost_nic::hca::nic_finding::Finding;
use vhost_nic::net::Switch;
use zerocopy::FromBytes;

use crate::found::{Found, found};
use crate::inspect::Inspect;
use crate::lan::{Lan, shut};
use crate::nic::machine;

fn hca() -> Arc<Hca> {
    Arc::new(Hca::boot(&Arc::new(machine(&Switch::new(), 1))))
}

fn netdev() -> Netdev {
    Netdev::open(&hca(), &Options::default())
}

/// Asserts that a command was refused with a status.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T>, status: Status) {
    match result {
        Err(error) => assert!(error.is(status), "{error:?} is not {status:?}"),
        Ok(value) => panic!("not refused: {value:?}"),
    }
}

/// A command of `length` bytes with object number `number` at `place`: offset and width in bits.
fn naming(hca: &Hca, opcode: Opcode, length: usize, place: (usize, usize), number: u64) -> Result<Vec<u8>> {
    let mut input = vec![0; length];
    input[..2].copy_from_slice(&opcode.0.to_be_bytes());
    layout::set(&mut input, place.0, place.1, number);
    hca.commands.execute(&input, 0x1010)
}

/// Place of the object number in most commands.
const NUMBER: (usize, usize) = (0x48, 24);

#[test]
fn objects_that_do_not_exist_cannot_be_named() {
    let hca = hca();
    for opcode in [
        Opcode::DEALLOC_UAR,
        Opcode::DEALLOC_PD,
        Opcode::DEALLOC_TRANSPORT_DOMAIN,
        Opcode::DEALLOC_XRCD,
        Opcode::DESTROY_CQ,
        Opcode::QUERY_CQ,
        Opcode::MODIFY_CQ,
        Opcode::DESTROY_MKEY,
        Opcode::QUERY_MKEY,
        Opcode::DESTROY_TIS,
        Opcode::QUERY_TIS,
        Opcode::MODIFY_TIS,
        Opcode::DESTROY_TIR,
        Opcode::QUERY_TIR,
        Opcode::MODIFY_TIR,
        Opcode::DESTROY_RQT,
        Opcode::QUERY_RQT,
        Opcode::MODIFY_RQT,
        Opcode::DESTROY_RQ,
        Opcode::QUERY_RQ,
        Opcode::MODIFY_RQ,
        Opcode::DESTROY_SQ,
        Opcode::QUERY_SQ,
        Opcode::MODIFY_SQ,
        Opcode::DESTROY_QP,
        Opcode::QUERY_QP,
        Opcode::RST2INIT_QP,
        Opcode::INIT2RTR_QP,
        Opcode::QP_2ERR,
        Opcode::QP_2RST,
        Opcode::ATTACH_TO_MCG,
        Opcode::DETACH_FROM_MCG,
        Opcode::DESTROY_RMP,
        Opcode::QUERY_RMP,
        Opcode::MODIFY_RMP,
        Opcode::DESTROY_XRC_SRQ,
        Opcode::QUERY_XRC_SRQ,
        Opcode::ARM_XRC_SRQ,
    ] {
        for number in [0, 0x3ff, 0xff_ffff] {
            let error = naming(&hca, opcode, 0x110, NUMBER, number).unwrap_err();
            assert!(error.is(Status::BadResourceState), "{opcode}: {error:?}");
        }
    }
    for (opcode, place) in [
        (Opcode::DESTROY_EQ, (0x58, 8)),
        (Opcode::QUERY_EQ, (0x58, 8)),
        (Opcode::DEALLOC_Q_COUNTER, (0x58, 8)),
        (Opcode::QUERY_Q_COUNTER, (0xf8, 8)),
        (Opcode::DESTROY_UCTX, (0x50, 16)),
        (Opcode::DESTROY_FLOW_TABLE, (0xa8, 24)),
        (Opcode::SET_FLOW_TABLE_ROOT, (0xa8, 24)),
        (Opcode::CREATE_FLOW_GROUP, (0xa8, 24)),
        (Opcode::DESTROY_FLOW_GROUP, (0xa8, 24)),
        (Opcode::SET_FLOW_TABLE_ENTRY, (0xa8, 24)),
        (Opcode::DELETE_FLOW_TABLE_ENTRY, (0xa8, 24)),
        (Opcode::DEALLOC_FLOW_COUNTER, (0x40, 32)),
        (Opcode::QUERY_FLOW_COUNTER, (0xe0, 32)),
    ] {
        let error = naming(&hca, opcode, 0x400, place, 0xee).unwrap_err();
        assert!(error.is(Status::BadResourceState), "{opcode}: {error:?}");
    }
    Arc::into_inner(hca).unwrap().shutdown();
}

#[test]
fn queues_need_what_they_name() {
    let netdev = netdev();
    let hca = &netdev.hca;
    refused(
        CompletionQueue::create(hca, 0xee, Shape::plain(4)).map(drop),
        Status::BadResource,
    );
    refused(create_tis(hca, 0xeeee), Status::BadResource);
    refused(
        create_direct_tir(hca, netdev.transport_domain, 0xeeee),
        Status::BadResource,
    );
    refused(
        create_direct_tir(hca, 0xeeee, netdev.channels[0].rq.number),
        Status::BadResource,
    );
    refused(create_rqt(hca, &[0xeeee]), Status::BadResource);
    refused(create_rqt(hca, &[netdev.channels[0].sq.number]), Status::BadResource);
    refused(modify_rqt(hca, netdev.rqtn, &[0xeeee]), Status::BadResource);
    let vector = hca.machine.function().msix().vectors();
    let eq = EventQueue::create(&hca.machine, &hca.commands, hca.uar, vector, 4, 0);
    refused(eq.map(drop), Status::BadParameter);
    let eq = EventQueue::create(&hca.machine, &hca.commands, 0xeee, 1, 4, 0);
    refused(eq.map(drop), Status::BadResource);
    shut(netdev);
}

#[test]
fn what_is_in_use_cannot_be_destroyed() {
    let netdev = netdev();
    let hca = &netdev.hca;
    let channel = &netdev.channels[0];
    refused(channel.events.destroy(&hca.commands), Status::BadResourceState);
    refused(channel.send_cq.destroy(hca), Status::BadResourceState);
    refused(channel.receive_cq.destroy(hca), Status::BadResourceState);
    refused(channel.rq.destroy(hca), Status::BadResourceState);
    refused(destroy_tis(hca, netdev.tisn), Status::BadResourceState);
    refused(destroy_rqt(hca, netdev.rqtn), Status::BadResourceState);
    refused(destroy_tir(hca, netdev.direct[0]), Status::BadResourceState);
    refused(netdev.l2.destroy(hca), Status::BadParameter);
    refused(dealloc_pd(hca, netdev.pd), Status::BadResourceState);
    refused(
        dealloc_transport_domain(hca, netdev.transport_domain),
        Status::BadResourceState,
    );
    refused(dealloc_uar(&hca.commands, hca.uar), Status::BadResourceState);
    shut(netdev);
}

#[test]
fn commands_that_do_not_exist_are_bad_operations() {
    let hca = hca();
    let opcodes = [
        0,
        1,
        0x0fff,
        Opcode::CREATE_DCT.0,
        Opcode::CREATE_GENERAL_OBJECT.0,
        0xffff,
    ];
    for opcode in opcodes {
        refused(naming(&hca, Opcode(opcode), 0x40, NUMBER, 0x77), Status::BadOperation);
    }
    let found = found(&hca.machine);
    assert_eq!(found.len(), opcodes.len());
    for (found, opcode) in found.iter().zip(opcodes) {
        let mut input = [0; 0x40];
        input[..2].copy_from_slice(&opcode.to_be_bytes());
        input[11] = 0x77;
        let slot = found.object.number;
        let expected = Found::new(Finding::UnknownCommand, "command_slot", slot, &input);
        assert_eq!(*found, expected);
    }
    Arc::into_inner(hca).unwrap().shutdown();
}

#[test]
fn inputs_that_are_too_short_are_refused() {
    let hca = hca();
    for (opcode, length) in [
        (Opcode::CREATE_CQ, 0x110),
        (Opcode::CREATE_EQ, 0x110),
        (Opcode::CREATE_SQ, 0x110),
        (Opcode::CREATE_RQ, 0x110),
        (Opcode::CREATE_QP, 0x110),
        (Opcode::CREATE_MKEY, 0x110),
        (Opcode::CREATE_TIR, 0x110),
        (Opcode::CREATE_FLOW_GROUP, 0x400),
        (Opcode::SET_FLOW_TABLE_ENTRY, 0x340),
        (Opcode::MODIFY_NIC_VPORT_CONTEXT, 0x200),
        (Opcode::SET_HCA_CAP, 0x1010),
        (Opcode::DESTROY_CQ, 0x10),
        (Opcode::TEARDOWN_HCA, 0x10),
        (Opcode::ACCESS_REG, 0x10),
    ] {
        for length in [8, length / 2, length - 1] {
            let mut input = vec![0; length.max(8)];
            input[..2].copy_from_slice(&opcode.0.to_be_bytes());
            let error = hca.commands.execute(&input, 0x110).unwrap_err();
            assert!(error.is(Status::BadInputLength), "{opcode}, {length} bytes: {error:?}");
        }
    }
    Arc::into_inner(hca).unwrap().shutdown();
}

#[test]
fn domains_come_and_go() {
    let hca = hca();
    let first = alloc_pd(&hca).unwrap();
    let second = alloc_pd(&hca).unwrap();
    assert_ne!(first, second);
    dealloc_pd(&hca, first).unwrap();
    refused(dealloc_pd(&hca, first), Status::BadResourceState);
    dealloc_pd(&hca, second).unwrap();
    let domain = alloc_transport_domain(&hca).unwrap();
    dealloc_transport_domain(&hca, domain).unwrap();
    refused(dealloc_transport_domain(&hca, domain), Status::BadResourceState);
    let uar = alloc_uar(&hca.commands).unwrap();
    assert!(
        (16..4096).contains(&uar) && uar != hca.uar,
        "a page of the BAR, behind those of MSI-X"
    );
    dealloc_uar(&hca.commands, uar).unwrap();
    let counters = alloc_queue_counters(&hca).unwrap();
    assert_ne!(counters, 0, "0 is none");
    dealloc_queue_counters(&hca, counters).unwrap();
    let xrcd: AllocXrcdOut = hca.commands.call(Opcode::ALLOC_XRCD, &AllocXrcdIn::default()).unwrap();
    let mut input = DeallocXrcdIn::default();
    input.set_xrcd(xrcd.xrcd());
    hca.commands
        .call::<_, DeallocXrcdOut>(Opcode::DEALLOC_XRCD, &input)
        .unwrap();
    let uctx: CreateUctxOut = hca
        .commands
        .call(Opcode::CREATE_UCTX, &CreateUctxIn::default())
        .unwrap();
    assert_ne!(uctx.uid(), 0, "0 is the kernel");
    let mut input = DestroyUctxIn::default();
    input.set_uid(uctx.uid());
    hca.commands
        .call::<_, DestroyUctxOut>(Opcode::DESTROY_UCTX, &input)
        .unwrap();
    Arc::into_inner(hca).unwrap().shutdown();
}

#[test]
fn queries_tell_what_was_made() {
    let netdev = netdev();
    let hca = &netdev.hca;
    let mut input = QueryTisIn::default();
    input.set_tisn(netdev.tisn);
    let tis: QueryTisOut = hca.commands.call(Opcode::QUERY_TIS, &input).unwrap();
    assert_eq!(tis.tis_context().transport_domain(), netdev.transport_domain);
    let mut input = QueryTirIn::default();
    input.set_tirn(netdev.spread[0].1);
    let tir: QueryTirOut = hca.commands.call(Opcode::QUERY_TIR, &input).unwrap();
    assert_eq!(tir.tir_context().indirect_table(), netdev.rqtn);
    assert_eq!(tir.tir_context().rx_hash_toeplitz_key(), netdev.hash_key());
    let mut input = QueryRqtIn::default();
    input.set_rqtn(netdev.rqtn);
    let (rqt, list): (QueryRqtOut, _) = hca.commands.call_with(Opcode::QUERY_RQT, 0, &input, &[], 4).unwrap();
    assert_eq!(rqt.rqt_context().rqt_actual_size(), 1);
    assert_eq!(
        RqNum::read_from_bytes(&list).unwrap().rq_num(),
        netdev.channels[0].rq.number
    );
    let channel = &netdev.channels[0];
    let rq = channel.rq.query(hca).unwrap();
    assert_eq!(
        (rq.state(), rq.cqn(), rq.counter_set_id()),
        (state::READY, channel.receive_cq.number, netdev.counters)
    );
    let sq = channel.sq.query(hca).unwrap();
    assert_eq!(
        (sq.state(), sq.cqn(), sq.tis_num_0()),
        (state::READY, channel.send_cq.number, netdev.tisn)
    );
    let cq = channel.send_cq.query(hca).unwrap();
    assert_eq!(
        (cq.log_cq_size(), cq.c_eqn_or_apu_element()),
        (7, channel.events.number.into())
    );
    shut(netdev);
}

#[test]
fn queues_change_state_only_as_they_can() {
    let netdev = netdev();
    let hca = &netdev.hca;
    let channel = &netdev.channels[0];
    // The queue is in another state, or the state does not exist.
    for (from, to) in [
        (state::RESET, state::READY),
        (state::ERROR, state::RESET),
        (state::READY, 7),
    ] {
        refused(channel.sq.modify(hca, from, to), Status::BadParameter);
        refused(channel.rq.modify(hca, from, to), Status::BadParameter);
    }
    for (from, to) in [
        (state::READY, state::READY),
        (state::READY, state::ERROR),
        (state::ERROR, state::ERROR),
    ] {
        channel.sq.modify(hca, from, to).unwrap();
        channel.rq.modify(hca, from, to).unwrap();
    }
    // Only RST is reachable from ERR.
    refused(channel.sq.modify(hca, state::ERROR, state::READY), Status::BadParameter);
    refused(channel.rq.modify(hca, state::ERROR, state::READY), Status::BadParameter);
    for (from, to) in [(state::ERROR, state::RESET), (state::RESET, state::READY)] {
        channel.sq.modify(hca, from, to).unwrap();
        channel.rq.modify(hca, from, to).unwrap();
    }
    shut(netdev);
}

#[test]
fn send_receive_and_pair_numbers_are_of_one_space() {
    let netdev = netdev();
    let channel = &netdev.channels[0];
    assert_ne!(channel.sq.number, channel.rq.number);
    for opcode in [
        Opcode::QUERY_SQ,
        Opcode::QUERY_QP,
        Opcode::DESTROY_SQ,
        Opcode::DESTROY_QP,
    ] {
        refused(
            naming(&netdev.hca, opcode, 0x110, NUMBER, channel.rq.number.into()),
            Status::BadResourceState,
        );
    }
    shut(netdev);
}

#[test]
fn registers_that_do_not_exist_are_bad_parameters() {
    let hca = hca();
    for id in [0, 0x5001, 0x9021, 0xffff] {
        for write in [false, true] {
            refused(
                access_register(&hca.commands, id, write, &[0; 16]),
                Status::BadParameter,
            );
        }
    }
    Arc::into_inner(hca).unwrap().shutdown();
}

#[test]
fn the_vport_knows_its_addresses() {
    let netdev = netdev();
    let hca = &netdev.hca;
    let list = [[2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 8]];
    netdev.set_mac_list(&list).unwrap();
    let (context, bytes): (QueryNicVportContextOut, _) = hca
        .commands
        .call_with(
            Opcode::QUERY_NIC_VPORT_CONTEXT,
            0,
            &QueryNicVportContextIn::default(),
            &[],
            16,
        )
        .unwrap();
    let context = context.nic_vport_context();
    assert_eq!(context.allowed_list_size(), 2);
    assert_eq!(bytes, [[0, 0, 2, 0, 0, 0, 0, 9], [0, 0, 2, 0, 0, 0, 0, 8]].concat());
    let address = context.permanent_address();
    let mac = [
        &address.mac_addr_47_32().to_be_bytes()[..],
        &address.mac_addr_31_0().to_be_bytes(),
    ]
    .concat();
    assert_eq!(mac, hca.machine.mac);
    shut(netdev);
}

#[test]
fn entries_of_flow_tables_drop_count_and_tag() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let hca = Arc::clone(&b.hca);
    let (source, target) = (a.hca.machine.mac, b.hca.machine.mac);
    let counter = steering::alloc_counter(&hca).unwrap();
    let table = Table::create(&hca, 40, 2).unwrap();
    let group = table.create_group(&hca, 0..=2, &destination([0xff; 6])).unwrap();
    let to = [To::Tir(b.direct[0])];
    let entry = Entry {
        group,
        index: 0,
        value: &destination(target),
        action: action::FORWARD | action::COUNT,
        to: &to,
        counters: &[counter],
        tag: 0x1234,
    };
    table.set(&hca, &entry).unwrap();
    let other = [2, 0, 0, 0, 0, 1];
    let drop_it = Entry {
        index: 1,
        value: &destination(other),
        action: action::DROP,
        to: &[],
        counters: &[],
        tag: 0,
        ..entry
    };
    table.set(&hca, &drop_it).unwrap();
    table.set_root(&hca).unwrap();
    for length in [60, 100] {
        let frame = crate::frames::plain(source, target, length);
        a.send(&frame);
        let received = b.receive();
        assert_eq!(received.frame, frame);
        assert_eq!(received.cqe.sop_drop_qpn.get() & 0xff_ffff, 0x1234);
    }
    a.send(&crate::frames::plain(source, other, 60));
    b.expect_silence();
    assert_eq!(steering::query_counter(&hca, counter).unwrap(), (2, 160));
    refused(
        table.set(
            &hca,
            &Entry {
                index: 3,
                ..entry.clone()
            },
        ),
        Status::BadIndex,
    );
    refused(destroy_tir(&hca, b.direct[0]), Status::BadResourceState);
    b.l2.set_root(&hca).unwrap();
    table.delete(&hca, 0).unwrap();
    table.delete(&hca, 1).unwrap();
    assert!(table.delete(&hca, 1).is_err());
    table.destroy_group(&hca, group).unwrap();
    table.destroy(&hca).unwrap();
    steering::dealloc_counter(&hca, counter).unwrap();
    drop(hca);
    lan.guests.into_iter().for_each(shut);
}
