//! Failed commands have the status and syndrome of hardware where these are known, and elsewhere numbers that hardware
//! cannot have.

use std::sync::Arc;

use mlx5_prm::capability::{QueryHcaCapIn, QueryHcaCapOut};
use mlx5_prm::command::Status;
use mlx5_prm::layout::Layout;
use mlx5_prm::mkey::{CreateMkeyIn, CreateMkeyOut};
use mlx5_prm::opcode::Opcode;
use mlx5_prm::port_counters::PpcntReg;
use mlx5_prm::qp::*;
use mlx5_prm::steering::*;
use mlx5_prm::tis_tir_rqt::*;
use mlx5_prm::vport::{SetRoceAddressIn, SetRoceAddressOut};
use mlx5_test_driver::command::CommandError;
use mlx5_test_driver::domain::{alloc_pd, alloc_transport_domain, dealloc_pd, dealloc_transport_domain};
use mlx5_test_driver::hca::{Hca, alloc_uar, dealloc_uar};
use mlx5_test_driver::mkey::{create_mkey, destroy_mkey};
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{QueuePair, RQ_NONE, Shape, service};
use mlx5_test_driver::region::{Region, Rights};
use mlx5_test_driver::steering::{Entry, NIC_RX, Table, To, action, destination};
use mlx5_test_driver::tis_tir_rqt::*;
use vhost_nic::firmware::syndrome;
use vhost_nic::hca::limits::{self, Limits};
use vhost_nic::net::Switch;

use crate::lan::shut;
use crate::nic::{machine, machine_with};

/// Number of no object.
const NONE: u32 = 0xee_eeee;
/// `FS_FT_NIC_TX`.
const NIC_TX: u8 = 1;
/// `MLX5_REG_PPCNT`, and a register that does not exist.
const PPCNT: u16 = 0x5008;
const NO_REGISTER: u16 = 0xfff0;

/// Executes a command that must be refused. Returns status and syndrome.
#[track_caller]
fn refusal<I: Layout, O: Layout + std::fmt::Debug>(hca: &Hca, opcode: Opcode, input: &I) -> (u8, u32) {
    of(hca.commands.call::<I, O>(opcode, input))
}

#[track_caller]
fn of<T: std::fmt::Debug>(result: Result<T, CommandError>) -> (u8, u32) {
    match result {
        Err(CommandError::Refused(status, syndrome)) => (status, syndrome),
        other => panic!("not refused: {other:?}"),
    }
}

fn hca() -> Arc<Hca> {
    Arc::new(Hca::boot(&Arc::new(machine(&Switch::new(), 1))))
}

/// Executes a command on the object number [`NONE`]. Returns status and syndrome.
#[track_caller]
fn naming(hca: &Hca, opcode: Opcode) -> (u8, u32) {
    let mut input = DestroyQpIn::default();
    input.set_qpn(NONE);
    of(hca
        .commands
        .call_with::<_, DestroyQpOut>(opcode, 0, &input, &[0; 0x100], 0x1000))
}

#[test]
fn of_objects_that_do_not_exist() {
    let hca = hca();
    let state = Status::BadResourceState as u8;
    for (opcode, syndrome) in [
        (Opcode::DESTROY_QP, syndrome::NO_CONTEXT),
        (Opcode::DESTROY_CQ, syndrome::NO_CONTEXT),
        (Opcode::DESTROY_MKEY, syndrome::NO_CONTEXT),
        (Opcode::DESTROY_TIR, syndrome::NO_CONTEXT),
        (Opcode::DESTROY_RQ, syndrome::NO_CONTEXT),
        (Opcode::QP_2RST, syndrome::INVALID_QP_NUMBER),
        (Opcode::QP_2ERR, syndrome::INVALID_QP_NUMBER),
        (Opcode::QUERY_QP, syndrome::QUERY_NO_QP),
        (Opcode::QUERY_CQ, syndrome::QUERY_NO_CQ),
        (Opcode::DEALLOC_PD, syndrome::PD_IN_USE),
    ] {
        assert_eq!(naming(&hca, opcode), (state, syndrome), "{opcode}");
    }
    Arc::into_inner(hca).unwrap().shutdown();
}

#[test]
fn of_objects_in_use() {
    let netdev = Netdev::open(&hca(), &Options::default());
    let (hca, channel) = (&netdev.hca, &netdev.channels[0]);
    let state = Status::BadResourceState as u8;
    for (refused, syndrome) in [
        (of(channel.send_cq.destroy(hca)), syndrome::CQ_IN_USE),
        (of(channel.events.destroy(&hca.commands)), syndrome::EQ_IN_USE),
        (of(dealloc_pd(hca, netdev.pd)), syndrome::PD_IN_USE),
        (of(destroy_tis(hca, netdev.tisn)), syndrome::CONTEXT_IN_USE),
        (of(destroy_rqt(hca, netdev.rqtn)), syndrome::CONTEXT_IN_USE),
        (of(channel.rq.destroy(hca)), syndrome::CONTEXT_IN_USE),
    ] {
        assert_eq!(refused, (state, syndrome));
    }
    shut(netdev);
}

/// Creates objects until the table is full. Returns them, and status and syndrome of the next attempt.
#[track_caller]
fn fill(mut create: impl FnMut() -> Result<u32, CommandError>) -> (Vec<u32>, (u8, u32)) {
    let mut objects = Vec::new();
    let refused = loop {
        match create() {
            Ok(object) => objects.push(object),
            Err(error) => break of(Err::<(), _>(error)),
        }
    };
    (objects, refused)
}

/// Checks that there are as many objects as a capability says, except for a few numbers that the device reserves.
#[track_caller]
fn assert_nearly_all(objects: &[u32], log_max: u8) {
    let most = 1_usize << log_max;
    assert!(
        (most - 0x100..=most).contains(&objects.len()),
        "{} of {most}",
        objects.len()
    );
}

#[test]
fn of_doorbell_pages_that_are_all_taken() {
    let hca = hca();
    let (uars, refused) = fill(|| alloc_uar(&hca.commands));
    assert_eq!(refused, (Status::LimitExceeded as u8, syndrome::NO_MORE_UARS));
    for uar in uars {
        dealloc_uar(&hca.commands, uar).unwrap();
    }
    Arc::into_inner(hca).unwrap().shutdown();
}

#[test]
fn of_keys_that_are_all_taken() {
    // By default there are 2^20 keys, which take 20 seconds to create.
    assert_eq!(u64::from(hca().capabilities.log_max_mkey()), limits::LOG_MAX_MKEY);
    let log_max_mkey = 12;
    let limits = Limits { log_max_mkey };
    let machine = machine_with(&Switch::new(), 1, |config| config.limits = limits);
    let hca = Arc::new(Hca::boot(&Arc::new(machine)));
    assert_eq!(hca.capabilities.log_max_mkey(), log_max_mkey);
    let pd = alloc_pd(&hca).unwrap();
    let (keys, refused) = fill(|| create_mkey(&hca, pd));
    assert_eq!(refused, (Status::LimitExceeded as u8, syndrome::NO_MORE_MKEYS));
    assert_nearly_all(&keys, log_max_mkey);
    for key in keys {
        destroy_mkey(&hca, key).unwrap();
    }
    dealloc_pd(&hca, pd).unwrap();
    Arc::into_inner(hca).unwrap().shutdown();
}

#[test]
fn of_queue_pairs_that_are_all_taken() {
    let node = Node::open(machine(&Switch::new(), 1), 1);
    let mut create = CreateQpIn::default();
    let context = create.qpc_mut();
    context.set_pd(node.pd);
    context.set_no_sq(true);
    context.set_rq_type(RQ_NONE);
    let (pairs, refused) = fill(|| {
        let commands = &node.hca.commands;
        commands
            .call(Opcode::CREATE_QP, &create)
            .map(|output: CreateQpOut| output.qpn())
    });
    assert_eq!(refused, (Status::BadResource as u8, syndrome::NO_MORE_QPS));
    assert_nearly_all(&pairs, node.hca.capabilities.log_max_qp());
    for pair in pairs {
        let mut input = DestroyQpIn::default();
        input.set_qpn(pair);
        node.hca
            .commands
            .call::<_, DestroyQpOut>(Opcode::DESTROY_QP, &input)
            .unwrap();
    }
    node.close();
}

#[test]
fn of_parameters_that_make_no_sense() {
    let hca = hca();
    let bad = Status::BadParameter as u8;
    // A capability group and a register that do not exist.
    let caps = QueryHcaCapIn::default();
    let refused = of(hca
        .commands
        .call_with::<_, QueryHcaCapOut>(Opcode::QUERY_HCA_CAP, 0x3f << 1, &caps, &[], 0));
    assert_eq!(refused, (bad, syndrome::UNKNOWN_CAPABILITIES));
    let refused = of(hca.read_register(NO_REGISTER, &PpcntReg::default()));
    assert_eq!(refused, (bad, syndrome::UNKNOWN_REGISTER));
    let mut counters = PpcntReg::default();
    counters.set_local_port(2);
    let refused = of(hca.read_register(PPCNT, &counters));
    assert_eq!(refused, (bad, syndrome::COUNTERS_PORT));
    // Addresses.
    let mut address = SetRoceAddressIn::default();
    let entry = address.roce_address_mut();
    entry.set_roce_version(2);
    entry.source_l3_address_mut()[15] = 1;
    entry.set_source_mac_47_32(0x0100);
    let set = |address: &SetRoceAddressIn| refusal::<_, SetRoceAddressOut>(&hca, Opcode::SET_ROCE_ADDRESS, address);
    assert_eq!(set(&address), (bad, syndrome::MULTICAST_SOURCE_MAC));
    let entry = address.roce_address_mut();
    entry.set_roce_version(1);
    entry.set_source_mac_47_32(0x0200);
    assert_eq!(set(&address), (bad, syndrome::ROCE_VERSION));
    // Ethernet queues.
    let domain = alloc_transport_domain(&hca).unwrap();
    let mut tis = CreateTisIn::default();
    tis.ctx_mut().set_transport_domain(domain);
    tis.ctx_mut().set_lag_tx_port_affinity(1);
    let refused = refusal::<_, CreateTisOut>(&hca, Opcode::CREATE_TIS, &tis);
    assert_eq!(refused, (bad, syndrome::TIS_PORT_AFFINITY));
    dealloc_transport_domain(&hca, domain).unwrap();
    let mut rqt = CreateRqtIn::default();
    rqt.rqt_context_mut().set_rqt_max_size(0x8000);
    let refused = refusal::<_, CreateRqtOut>(&hca, Opcode::CREATE_RQT, &rqt);
    assert_eq!(refused, (bad, syndrome::RQT_SIZE));
    // More pages than a key can have (`translations_octword_size`).
    let mut key = CreateMkeyIn::default();
    let context = key.memory_key_mkey_entry_mut();
    context.set_access_mode_1_0(1);
    context.set_qpn(0xff_ffff);
    context.set_translations_octword_size(1 << 30);
    let refused = refusal::<_, CreateMkeyOut>(&hca, Opcode::CREATE_MKEY, &key);
    assert_eq!(refused, (bad, syndrome::TRANSLATION_SIZE));
    Arc::into_inner(hca).unwrap().shutdown();
}

#[test]
fn of_queue_pairs() {
    let node = Node::open(machine(&Switch::new(), 1), 1);
    let bad = Status::BadParameter as u8;
    let mut create = CreateQpIn::default();
    let context = create.qpc_mut();
    context.set_pd(node.pd);
    context.set_log_sq_size(9);
    let refused = of(node
        .hca
        .commands
        .call_with::<_, CreateQpOut>(Opcode::CREATE_QP, 0, &create, &[0; 16], 0));
    assert_eq!(refused, (bad, syndrome::QP_PAGES));
    let qp = QueuePair::create(&node, Shape::new(service::RC)).unwrap();
    let mut change = Rst2initQpIn::default();
    change.set_qpn(qp.number);
    change.set_opt_param_mask(1 << 7);
    let refused = refusal::<_, Rst2initQpOut>(&node.hca, Opcode::RTS2RTS_QP, &change);
    assert_eq!(refused, (bad, syndrome::OPTIONAL_PARAMETER));
    qp.destroy(&node).unwrap();
    node.close();
}

#[test]
fn of_flow_tables() {
    let hca = hca();
    let bad = Status::BadParameter as u8;
    let [low, high] = [1, 2].map(|level| Table::create(&hca, level, 4).unwrap());
    let value = destination([2, 0, 0, 0, 0, 9]);
    let mask = destination([0xff; 6]);
    let group = low.create_group(&hca, 0..=3, &mask).unwrap();
    assert_eq!(of(low.destroy(&hca)), (bad, syndrome::FLOW_TABLE_HAS_GROUPS));
    let entry = Entry {
        group,
        index: 0,
        value: &value,
        action: action::COUNT,
        to: &[],
        counters: &[],
        tag: 0,
    };
    assert_eq!(of(low.set(&hca, &entry)), (bad, syndrome::NO_ACTION));
    low.forward(&hca, group, 0, &value, To::Table(high.id)).unwrap();
    assert_eq!(of(high.destroy(&hca)), (bad, syndrome::FLOW_TABLE_IS_DESTINATION));
    let refused = of(low.destroy_group(&hca, group));
    assert_eq!(refused, (Status::BadResourceState as u8, syndrome::FLOW_GROUP_IN_USE));
    let above = high.create_group(&hca, 0..=3, &mask).unwrap();
    let refused = of(high.forward(&hca, above, 0, &value, To::Table(low.id)));
    assert_eq!(refused, (bad, syndrome::FLOW_TABLE_LEVEL));
    // match_criteria_enable that disagrees with the criteria.
    let mut criteria = CreateFlowGroupIn::default();
    criteria.set_table_type(NIC_RX);
    criteria.set_table_id(low.id);
    criteria.set_start_flow_index(4);
    criteria.set_end_flow_index(5);
    criteria.set_match_criteria_enable(1);
    let create = |input: &CreateFlowGroupIn| refusal::<_, CreateFlowGroupOut>(&hca, Opcode::CREATE_FLOW_GROUP, input);
    assert_eq!(create(&criteria), (bad, syndrome::EMPTY_CRITERIA));
    criteria.set_match_criteria_enable(0);
    criteria.match_criteria_mut().inner_headers_mut().set_ethertype(0xffff);
    assert_eq!(create(&criteria), (bad, syndrome::DISABLED_CRITERIA));
    // Destinations that NIC_TX does not have.
    for (kind, syndrome) in [(0, syndrome::SENT_TO_VPORT), (8, syndrome::SENT_TO_UPLINK)] {
        let mut input = SetFteIn::default();
        input.set_table_type(NIC_TX);
        input.flow_context_mut().set_action(action::FORWARD);
        input.flow_context_mut().set_destination_list_size(1);
        let refused = of(hca.commands.call_with::<_, SetFteOut>(
            Opcode::SET_FLOW_TABLE_ENTRY,
            0,
            &input,
            &[kind, 0, 0, 0, 0, 0, 0, 0],
            0,
        ));
        assert_eq!(refused, (bad, syndrome));
    }
    low.delete(&hca, 0).unwrap();
    high.destroy_group(&hca, above).unwrap();
    low.destroy_group(&hca, group).unwrap();
    for table in [low, high] {
        table.destroy(&hca).unwrap();
    }
    Arc::into_inner(hca).unwrap().shutdown();
}

#[test]
fn of_causes_whose_number_is_not_known() {
    let hca = hca();
    let (_, one) = of(Region::create(&hca, NONE, 4096, Rights::ALL).map(drop));
    let (_, other) = of(create_tis(&hca, NONE));
    assert_ne!(one, other);
    for own in [one, other] {
        assert!(own > 0xff_ffff, "{own:#x} could be hardware's");
    }
    Arc::into_inner(hca).unwrap().shutdown();
}
