use etherparse::PacketBuilder;
use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::table_type::NIC_RX;
use super::*;
use crate::frame::view::FrameView;

mod attack;
mod commands;
mod sequences;

type Flows = FlowTables<u32>;

const OUTER: u8 = 1;
const MISC: u8 = 1 << 1;
const INNER: u8 = 1 << 2;
const MISC_2: u8 = 1 << 3;

fn table(flows: &Flows, level: u8, log_size: u8, miss: Miss) -> u32 {
    flows
        .create_table(NewTable {
            table_type: NIC_RX,
            level,
            log_size,
            miss,
        })
        .unwrap()
}

fn try_group(flows: &Flows, table: u32, start: u32, end: u32, criteria: &FteMatchParam, enable: u8) -> Result<u32> {
    flows.create_group(NewGroup {
        table_type: NIC_RX,
        table,
        start,
        end,
        criteria_enable: enable,
        criteria,
    })
}

fn group(flows: &Flows, table: u32, start: u32, end: u32, criteria: &FteMatchParam) -> u32 {
    // A group without criteria in outer headers must not enable them.
    let outer = criteria.as_bytes()[..64].iter().any(|byte| *byte != 0);
    let enable = if outer { OUTER } else { 0 };
    try_group(flows, table, start, end, criteria, enable).unwrap()
}

fn try_entry(flows: &Flows, place: (u32, u32, u32), value: &FteMatchParam, actions: Actions<u32>) -> Result<()> {
    let (table, group, index) = place;
    flows.create_entry(NewEntry {
        table_type: NIC_RX,
        table,
        group,
        index,
        value,
        actions,
    })
}

fn entry(flows: &Flows, place: (u32, u32, u32), value: &FteMatchParam, actions: Actions<u32>) {
    try_entry(flows, place, value, actions).unwrap();
}

fn forward(destinations: &[Destination<u32>]) -> Actions<u32> {
    Actions {
        action: action::FWD_DEST,
        destinations: destinations.to_vec(),
        ..Actions::default()
    }
}

fn to_tir(tir: u32) -> Actions<u32> {
    forward(&[Destination::Tir(tir)])
}

fn only(action: u16) -> Actions<u32> {
    Actions {
        action,
        ..Actions::default()
    }
}

fn nothing() -> FteMatchParam {
    FteMatchParam::default()
}

fn dmac(address: [u8; 6]) -> FteMatchParam {
    let [a, b, c, d, e, f] = address;
    let mut value = nothing();
    value
        .outer_headers_mut()
        .set_dmac_47_16(u32::from_be_bytes([a, b, c, d]));
    value.outer_headers_mut().set_dmac_15_0(u16::from_be_bytes([e, f]));
    value
}

fn udp_port(port: u16) -> FteMatchParam {
    let mut value = nothing();
    value.outer_headers_mut().set_udp_dport(port);
    value
}

fn frame(to: [u8; 6], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], to)
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(1, port);
    builder.write(&mut frame, b"payload").unwrap();
    frame
}

fn classify(flows: &Flows, frame: &[u8]) -> (Outcome, Vec<u32>) {
    let mut deliveries = Vec::new();
    let outcome = flows.classify(NIC_RX, &FrameView::new(frame).unwrap(), &mut deliveries);
    (
        outcome,
        deliveries.into_iter().map(|delivery| delivery.target).collect(),
    )
}

const MINE: [u8; 6] = [0x52, 0x54, 0, 0, 0xc5, 1];
const OTHER: [u8; 6] = [0x52, 0x54, 0, 0, 0xc5, 2];
const ALL_ONES: [u8; 6] = [0xff; 6];

#[test]
fn without_a_root_every_frame_misses() {
    let flows = Flows::new(&Arc::default());
    assert_eq!(classify(&flows, &frame(MINE, 1)), (Outcome::Miss, vec![]));
    let root = table(&flows, 1, 2, Miss::Default);
    assert_eq!(classify(&flows, &frame(MINE, 1)), (Outcome::Miss, vec![]));
    flows.set_root(NIC_RX, Some(root)).unwrap();
    assert_eq!(
        classify(&flows, &frame(MINE, 1)),
        (Outcome::Miss, vec![]),
        "an empty table"
    );
}

#[test]
fn a_frame_goes_from_address_to_protocol_to_receiver() {
    // As in mlx5e: addresses, then traffic types.
    let flows = Flows::new(&Arc::default());
    let types = table(&flows, 57, 4, Miss::Default);
    let addresses = table(&flows, 56, 4, Miss::Default);
    flows.set_root(NIC_RX, Some(addresses)).unwrap();
    let mine = group(&flows, addresses, 0, 3, &dmac(ALL_ONES));
    let everything = group(&flows, addresses, 4, 4, &nothing());
    let _ = everything;
    entry(
        &flows,
        (addresses, mine, 0),
        &dmac(MINE),
        forward(&[Destination::Table(types)]),
    );
    entry(
        &flows,
        (addresses, mine, 1),
        &dmac(ALL_ONES),
        forward(&[Destination::Table(types)]),
    );
    let mut mask = nothing();
    mask.outer_headers_mut().set_ip_protocol(0xff);
    mask.outer_headers_mut().set_ethertype(0xffff);
    let by_protocol = group(&flows, types, 0, 3, &mask);
    let rest = group(&flows, types, 4, 4, &nothing());
    let mut udp = nothing();
    udp.outer_headers_mut().set_ip_protocol(17);
    udp.outer_headers_mut().set_ethertype(0x0800);
    entry(&flows, (types, by_protocol, 2), &udp, to_tir(17));
    entry(&flows, (types, rest, 4), &nothing(), to_tir(99));
    assert_eq!(classify(&flows, &frame(MINE, 1)), (Outcome::Deliver, vec![17]));
    assert_eq!(classify(&flows, &frame(ALL_ONES, 1)), (Outcome::Deliver, vec![17]));
    assert_eq!(classify(&flows, &frame(OTHER, 1)), (Outcome::Miss, vec![]));
    let mut arp = [MINE, OTHER].concat();
    arp.extend([0x08, 0x06]);
    assert_eq!(classify(&flows, &arp), (Outcome::Deliver, vec![99]));
}

#[test]
fn the_lowest_index_wins_whatever_the_order_of_creation() {
    let flows = Flows::new(&Arc::default());
    let root = table(&flows, 1, 4, Miss::Default);
    flows.set_root(NIC_RX, Some(root)).unwrap();
    let last = group(&flows, root, 8, 9, &nothing());
    let first = group(&flows, root, 2, 3, &udp_port(0xffff));
    entry(&flows, (root, last, 8), &nothing(), to_tir(8));
    entry(&flows, (root, first, 3), &udp_port(7), to_tir(3));
    assert_eq!(classify(&flows, &frame(MINE, 7)).1, [3]);
    // Two entries for the same frames in one group.
    entry(&flows, (root, first, 2), &udp_port(7), to_tir(2));
    assert_eq!(classify(&flows, &frame(MINE, 7)).1, [2]);
    flows.delete_entry(NIC_RX, root, 2).unwrap();
    assert_eq!(classify(&flows, &frame(MINE, 7)).1, [3]);
    flows.delete_entry(NIC_RX, root, 3).unwrap();
    assert_eq!(classify(&flows, &frame(MINE, 7)).1, [8]);
}

#[test]
fn bits_outside_of_the_mask_do_not_matter() {
    let flows = Flows::new(&Arc::default());
    let root = table(&flows, 1, 4, Miss::Default);
    flows.set_root(NIC_RX, Some(root)).unwrap();
    let group = group(&flows, root, 0, 3, &dmac([1, 0, 0, 0, 0, 0]));
    let mut value = dmac(ALL_ONES);
    value.outer_headers_mut().set_udp_dport(4711);
    entry(&flows, (root, group, 0), &value, to_tir(5));
    assert_eq!(classify(&flows, &frame([0x01, 0, 0x5e, 0, 0, 1], 1)).1, [5]);
    assert_eq!(classify(&flows, &frame(MINE, 4711)).0, Outcome::Miss);
}

#[test]
fn a_part_that_is_not_enabled_does_not_count() {
    let flows = Flows::new(&Arc::default());
    let root = table(&flows, 1, 4, Miss::Default);
    flows.set_root(NIC_RX, Some(root)).unwrap();
    let mut criteria = dmac(ALL_ONES);
    criteria.misc_parameters_mut().set_bth_dst_qp(0xff_ffff);
    let group = try_group(&flows, root, 0, 0, &criteria, OUTER).unwrap();
    let mut value = dmac(MINE);
    value.misc_parameters_mut().set_bth_dst_qp(5);
    entry(&flows, (root, group, 0), &value, to_tir(5));
    assert_eq!(classify(&flows, &frame(MINE, 1)).1, [5]);
}

#[test]
fn what_no_frame_has_matches_as_zero_but_inner_headers_never() {
    let flows = Flows::new(&Arc::default());
    let root = table(&flows, 1, 4, Miss::Default);
    flows.set_root(NIC_RX, Some(root)).unwrap();
    let mut inner = nothing();
    inner.inner_headers_mut().set_ip_protocol(0xff);
    let inner = try_group(&flows, root, 0, 0, &inner, INNER).unwrap();
    entry(&flows, (root, inner, 0), &nothing(), to_tir(1));
    let mut metadata = nothing();
    metadata.misc_parameters_2_mut()[63] = 0xff;
    let group = try_group(&flows, root, 1, 2, &metadata, MISC_2).unwrap();
    entry(&flows, (root, group, 1), &metadata, to_tir(2));
    assert_eq!(classify(&flows, &frame(MINE, 1)).0, Outcome::Miss);
    entry(&flows, (root, group, 2), &nothing(), to_tir(3));
    assert_eq!(classify(&flows, &frame(MINE, 1)).1, [3]);
    flows.delete_entry(NIC_RX, root, 0).unwrap();
    flows.destroy_group(NIC_RX, root, inner).unwrap();
    let inner_without_mask = try_group(&flows, root, 0, 0, &nothing(), INNER | MISC).unwrap();
    entry(&flows, (root, inner_without_mask, 0), &nothing(), to_tir(4));
    assert_eq!(classify(&flows, &frame(MINE, 1)).1, [4]);
}

#[test]
fn every_destination_gets_a_copy() {
    let flows = Flows::new(&Arc::default());
    let second = table(&flows, 2, 1, Miss::Default);
    let third = table(&flows, 2, 1, Miss::Default);
    let root = table(&flows, 1, 1, Miss::Default);
    flows.set_root(NIC_RX, Some(root)).unwrap();
    for (table, actions) in [
        (
            root,
            forward(&[
                Destination::Tir(1),
                Destination::Table(second),
                Destination::Tir(2),
                Destination::Table(third),
            ]),
        ),
        (second, to_tir(3)),
        (third, forward(&[Destination::Tir(4), Destination::Tir(5)])),
    ] {
        let group = group(&flows, table, 0, 0, &nothing());
        entry(&flows, (table, group, 0), &nothing(), actions);
    }
    let (outcome, mut targets) = classify(&flows, &frame(MINE, 1));
    targets.sort();
    assert_eq!((outcome, targets), (Outcome::Deliver, vec![1, 2, 3, 4, 5]));
}

#[test]
fn the_tag_of_the_last_entry_that_has_one_counts() {
    let flows = Flows::new(&Arc::default());
    let second = table(&flows, 2, 1, Miss::Default);
    let root = table(&flows, 1, 1, Miss::Default);
    flows.set_root(NIC_RX, Some(root)).unwrap();
    let (first_group, second_group) = (
        group(&flows, root, 0, 0, &nothing()),
        group(&flows, second, 0, 0, &nothing()),
    );
    let tagged = Actions {
        flow_tag: 7,
        ..forward(&[Destination::Table(second)])
    };
    entry(&flows, (root, first_group, 0), &nothing(), tagged);
    entry(&flows, (second, second_group, 0), &nothing(), to_tir(1));
    let tag = || {
        let mut deliveries = Vec::new();
        flows.classify(NIC_RX, &FrameView::new(&frame(MINE, 1)).unwrap(), &mut deliveries);
        deliveries[0].flow_tag
    };
    assert_eq!(tag(), 7);
    let retagged = Actions {
        flow_tag: 8,
        ..Actions::default()
    };
    flows
        .modify_entry(NIC_RX, second, 0, modify::FLOW_TAG, retagged)
        .unwrap();
    assert_eq!(tag(), 8);
}

#[test]
fn drop_allow_and_miss_are_told_apart() {
    let flows = Flows::new(&Arc::default());
    let second = table(&flows, 2, 2, Miss::Default);
    let root = table(&flows, 1, 2, Miss::Table(second));
    flows.set_root(NIC_RX, Some(root)).unwrap();
    let ports = group(&flows, root, 0, 3, &udp_port(0xffff));
    entry(&flows, (root, ports, 0), &udp_port(1), only(action::DROP));
    entry(&flows, (root, ports, 1), &udp_port(2), only(action::ALLOW));
    let second_group = group(&flows, second, 0, 0, &udp_port(0xffff));
    entry(&flows, (second, second_group, 0), &udp_port(3), to_tir(9));
    let outcome = |port| classify(&flows, &frame(MINE, port)).0;
    assert_eq!(
        (outcome(1), outcome(2), outcome(3), outcome(4)),
        (Outcome::Drop, Outcome::Allow, Outcome::Deliver, Outcome::Miss)
    );
    flows.modify_table(NIC_RX, root, Miss::Default).unwrap();
    assert_eq!(outcome(3), Outcome::Miss);
}

#[test]
fn circles_and_avalanches_come_to_an_end() {
    let flows = Flows::new(&Arc::default());
    let root = table(&flows, 1, 0, Miss::Default);
    flows.set_root(NIC_RX, Some(root)).unwrap();
    let all = group(&flows, root, 0, 0, &nothing());
    let again = vec![Destination::Table(root); MAX_DESTINATIONS - 1]
        .into_iter()
        .chain([Destination::Tir(1)])
        .collect();
    let actions = Actions {
        destinations: again,
        ignore_level: true,
        ..only(action::FWD_DEST)
    };
    entry(&flows, (root, all, 0), &nothing(), actions);
    let (outcome, targets) = classify(&flows, &frame(MINE, 1));
    assert_eq!((outcome, targets.len()), (Outcome::Deliver, MAX_COPIES));
    assert_eq!(flows.exhausted(), 1);
    flows
        .modify_entry(
            NIC_RX,
            root,
            0,
            0xf,
            Actions {
                ignore_level: true,
                ..forward(&[Destination::Table(root)])
            },
        )
        .unwrap();
    assert_eq!(classify(&flows, &frame(MINE, 1)).0, Outcome::Drop);
}

#[test]
fn frames_find_their_way_while_commands_change_it() {
    let flows = Flows::new(&Arc::default());
    let root = table(&flows, 1, 10, Miss::Default);
    flows.set_root(NIC_RX, Some(root)).unwrap();
    let ports = group(&flows, root, 0, 1000, &udp_port(0xffff));
    entry(&flows, (root, ports, 0), &udp_port(1), to_tir(1));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| (0..5000).for_each(|_| assert_eq!(classify(&flows, &frame(MINE, 1)).1, [1]))))
            .collect();
        while readers.iter().any(|reader| !reader.is_finished()) {
            for index in 1..100 {
                entry(&flows, (root, ports, index), &udp_port(1), to_tir(2));
            }
            for index in 1..100 {
                flows.delete_entry(NIC_RX, root, index).unwrap();
            }
        }
    });
}

proptest! {
    /// By definition: the lowest index whose value equals the frame's bits under its group's mask.
    #[test]
    fn the_executor_finds_what_a_search_finds(
        groups in prop::collection::vec(
            (prop::sample::subsequence(vec![0usize, 1, 2], 0..=3), prop::collection::vec(0..8u8, 0..4)),
            1..6,
        ),
        frames in prop::collection::vec(0..8u8, 1..8),
    ) {
        // Three fields of one bit each: the last bits of address, port and VLAN id, of a VLAN no frame has.
        let make = |bits: u8, fields: &[usize]| {
            let mut value = nothing();
            for &field in fields {
                let bit = bits >> field & 1 == 1;
                match field {
                    0 => value.outer_headers_mut().set_dmac_15_0(bit.into()),
                    1 => value.outer_headers_mut().set_udp_dport(bit.into()),
                    _ => value.outer_headers_mut().set_first_vid(bit.into()),
                }
            }
            value
        };
        let flows = Flows::new(&Arc::default());
        let root = table(&flows, 1, 8, Miss::Default);
        flows.set_root(NIC_RX, Some(root)).unwrap();
        let mut rules = Vec::new();
        for (number, (fields, values)) in groups.iter().enumerate() {
            let start = number as u32 * 10;
            let id = group(&flows, root, start, start + 9, &make(0xff, fields));
            for (offset, &value) in values.iter().enumerate() {
                let index = start + offset as u32;
                entry(&flows, (root, id, index), &make(value, &[0, 1, 2]), to_tir(index));
                rules.push((index, fields.clone(), value));
            }
        }
        for bits in frames {
            let bits = bits & 3;
            let frame = frame([2, 0, 0, 0, 0, bits & 1], u16::from(bits >> 1));
            let matches = |fields: &[usize], value: u8| fields.iter().all(|&field| (bits ^ value) >> field & 1 == 0);
            let expected = rules.iter().find(|(_, fields, value)| matches(fields, *value)).map(|rule| rule.0);
            prop_assert_eq!(classify(&flows, &frame).1, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
