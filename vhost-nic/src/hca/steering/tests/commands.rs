//! Effects and refusals of commands.

use super::super::table_type::NIC_TX;
use super::*;
use crate::hca::refcount::RefCount;

#[test]
fn counters_count_frames_and_bytes_of_their_entries() {
    let flows = Flows::new(&Arc::default());
    let root = table(&flows, 1, 2, Miss::Default);
    flows.set_root(NIC_RX, Some(root)).unwrap();
    let ports = group(&flows, root, 0, 3, &udp_port(0xffff));
    let (one, bulk) = (flows.alloc_counters(1).unwrap(), flows.alloc_counters(128).unwrap());
    let counted = |counters: &[u32]| Actions {
        counters: counters.to_vec(),
        ..only(action::DROP | action::COUNT)
    };
    entry(&flows, (root, ports, 0), &udp_port(1), counted(&[one, bulk + 127]));
    let unknown = try_entry(&flows, (root, ports, 1), &udp_port(1), counted(&[bulk + 128]));
    assert_eq!(unknown, Err(SteeringError::NoCounter(bulk + 128)));
    let bytes = frame(MINE, 1);
    for frame in [&bytes, &frame(MINE, 2), &bytes] {
        classify(&flows, frame);
    }
    let expected = Traffic {
        packets: 2,
        octets: 2 * bytes.len() as u64,
    };
    assert_eq!(flows.query_counters(one, 1, false), Ok(vec![expected]));
    assert_eq!(
        flows.query_counters(bulk + 126, 2, true),
        Ok(vec![Traffic::default(), expected])
    );
    assert_eq!(flows.query_counters(bulk + 127, 1, false), Ok(vec![Traffic::default()]));
    assert_eq!(
        flows.query_counters(bulk + 127, 2, false),
        Err(SteeringError::NoCounter(bulk + 128))
    );
    assert_eq!(
        flows.query_counters(u32::MAX, 2, false),
        Err(SteeringError::NoCounter(u32::MAX))
    );
    assert_eq!(flows.dealloc_counters(bulk), Err(SteeringError::InUse));
    flows.delete_entry(NIC_RX, root, 0).unwrap();
    flows.dealloc_counters(bulk).unwrap();
    assert_eq!(flows.dealloc_counters(bulk), Err(SteeringError::NoCounter(bulk)));
    assert_eq!(flows.dealloc_counters(one + 1), Err(SteeringError::NoCounter(one + 1)));
    assert_eq!(flows.alloc_counters(u32::MAX), Err(SteeringError::Full));
    assert_eq!(flows.object_counts()["flow_counter"], 1);
}

#[test]
fn what_is_in_use_cannot_be_destroyed() {
    let flows = Flows::new(&Arc::default());
    let second = table(&flows, 3, 1, Miss::Default);
    let third = table(&flows, 3, 1, Miss::Default);
    let root = table(&flows, 1, 1, Miss::Table(third));
    flows.set_root(NIC_RX, Some(root)).unwrap();
    let all = group(&flows, root, 0, 0, &nothing());
    let references = RefCount::default();
    let actions = Actions {
        held: vec![references.acquire()],
        ..forward(&[Destination::Tir(1), Destination::Table(second)])
    };
    entry(&flows, (root, all, 0), &nothing(), actions);
    assert_eq!(references.count(), 1);
    assert_eq!(flows.destroy_table(NIC_RX, second), Err(SteeringError::IsDestination));
    assert_eq!(flows.destroy_table(NIC_RX, third), Err(SteeringError::IsDestination));
    assert_eq!(flows.destroy_group(NIC_RX, root, all), Err(SteeringError::InUse));
    flows.delete_entry(NIC_RX, root, 0).unwrap();
    assert_eq!(references.count(), 0);
    assert_eq!(flows.destroy_table(NIC_RX, root), Err(SteeringError::HasGroups));
    flows.destroy_group(NIC_RX, root, all).unwrap();
    flows.destroy_table(NIC_RX, second).unwrap();
    flows.destroy_table(NIC_RX, root).unwrap();
    flows.destroy_table(NIC_RX, third).unwrap();
    assert_eq!(classify(&flows, &frame(MINE, 1)).0, Outcome::Miss);
    assert!(flows.object_counts().values().all(|&count| count == 0));
}

#[test]
fn a_table_is_free_when_the_last_way_to_it_leads_elsewhere() {
    let flows = Flows::new(&Arc::default());
    let [first, second] = [0; 2].map(|_| table(&flows, 3, 1, Miss::Default));
    let root = table(&flows, 1, 1, Miss::Table(first));
    let all = group(&flows, root, 0, 1, &nothing());
    for index in 0..2 {
        let destinations = [Destination::Table(first), Destination::Table(second)];
        entry(&flows, (root, all, index), &nothing(), forward(&destinations));
    }
    let free = |table| flows.destroy_table(NIC_RX, table);
    let to_second = || forward(&[Destination::Table(second)]);
    let mask = modify::DESTINATION_LIST;
    flows.modify_entry(NIC_RX, root, 0, mask, to_second()).unwrap();
    // Refused: the entry stays as it is.
    assert_eq!(
        flows.modify_entry(NIC_RX, root, 1, mask, only(0)),
        Err(SteeringError::BadList)
    );
    assert_eq!(free(first), Err(SteeringError::IsDestination));
    flows.modify_entry(NIC_RX, root, 1, mask, to_second()).unwrap();
    assert_eq!(
        free(first),
        Err(SteeringError::IsDestination),
        "of frames without an entry"
    );
    flows.modify_table(NIC_RX, root, Miss::Default).unwrap();
    free(first).unwrap();
    flows
        .modify_entry(NIC_RX, root, 0, modify::FLOW_TAG, to_second())
        .unwrap();
    flows.delete_entry(NIC_RX, root, 0).unwrap();
    assert_eq!(free(second), Err(SteeringError::IsDestination));
    flows.delete_entry(NIC_RX, root, 1).unwrap();
    free(second).unwrap();
}

#[test]
fn a_modified_entry_does_what_is_new_and_keeps_the_rest() {
    let flows = Flows::new(&Arc::default());
    let root = table(&flows, 1, 1, Miss::Default);
    flows.set_root(NIC_RX, Some(root)).unwrap();
    let all = group(&flows, root, 0, 0, &nothing());
    let references = RefCount::default();
    entry(
        &flows,
        (root, all, 0),
        &nothing(),
        Actions {
            held: vec![references.acquire()],
            flow_tag: 3,
            ..to_tir(1)
        },
    );
    flows
        .modify_entry(NIC_RX, root, 0, modify::DESTINATION_LIST, to_tir(2))
        .unwrap();
    assert_eq!((classify(&flows, &frame(MINE, 1)).1, references.count()), (vec![2], 0));
    // A change whose lists do not match its actions has no effect.
    let mask = modify::DESTINATION_LIST | modify::FLOW_TAG;
    assert_eq!(
        flows.modify_entry(NIC_RX, root, 0, mask, only(0)),
        Err(SteeringError::BadList)
    );
    assert_eq!(
        flows.modify_entry(NIC_RX, root, 0, modify::ACTION, only(action::DROP)),
        Err(SteeringError::BadList)
    );
    assert_eq!(classify(&flows, &frame(MINE, 1)).1, [2]);
    let counter = flows.alloc_counters(1).unwrap();
    let counted = Actions {
        counters: vec![counter],
        ..only(action::FWD_DEST | action::COUNT)
    };
    flows
        .modify_entry(NIC_RX, root, 0, modify::ACTION | modify::FLOW_COUNTERS, counted)
        .unwrap();
    assert_eq!(classify(&flows, &frame(MINE, 1)).1, [2]);
    assert_eq!(flows.query_counters(counter, 1, false).unwrap()[0].packets, 1);
    flows.modify_entry(NIC_RX, root, 0, 0xf, only(action::DROP)).unwrap();
    assert_eq!(classify(&flows, &frame(MINE, 1)).0, Outcome::Drop);
    assert_eq!(
        flows.modify_entry(NIC_RX, root, 1, 0xf, only(action::DROP)),
        Err(SteeringError::NoEntry(1))
    );
    flows.dealloc_counters(counter).unwrap();
}

#[test]
fn bad_commands_are_refused() {
    let flows = Flows::new(&Arc::default());
    let low = table(&flows, 5, 2, Miss::Default);
    let same = table(&flows, 5, 2, Miss::Default);
    let all = group(&flows, low, 0, 1, &nothing());
    let place = |index| (low, all, index);
    let bad = |index, actions| try_entry(&flows, place(index), &nothing(), actions).unwrap_err();
    let level = SteeringError::Level { from: 5, to: 5 };
    assert_eq!(bad(0, forward(&[Destination::Table(same)])), level);
    assert_eq!(bad(0, forward(&[Destination::Table(77)])), SteeringError::NoTable(77));
    assert_eq!(bad(2, to_tir(1)), SteeringError::OutsideGroup(2));
    assert_eq!(bad(0, only(0)), SteeringError::NoAction);
    assert_eq!(bad(0, only(action::DROP | action::ALLOW)), SteeringError::BadAction(3));
    assert_eq!(bad(0, only(0x40 | action::DROP)), SteeringError::BadAction(0x42));
    assert_eq!(bad(0, only(action::FWD_DEST)), SteeringError::BadList);
    assert_eq!(bad(0, only(action::DROP | action::COUNT)), SteeringError::BadList);
    assert_eq!(
        bad(
            0,
            Actions {
                action: action::DROP,
                ..to_tir(1)
            }
        ),
        SteeringError::BadList
    );
    assert_eq!(
        bad(0, forward(&[const { Destination::Tir(1) }; MAX_DESTINATIONS + 1])),
        SteeringError::BadList
    );
    entry(&flows, place(1), &nothing(), to_tir(1));
    assert_eq!(bad(1, to_tir(1)), SteeringError::Exists(1));
    for (start, end) in [(1, 2), (0, 3), (0, 0), (3, 2), (2, 4), (4, u32::MAX)] {
        let refused = try_group(&flows, low, start, end, &nothing(), 0);
        assert_eq!(refused, Err(SteeringError::BadRange { start, end }));
    }
    assert_eq!(flows.destroy_group(NIC_RX, same, all), Err(SteeringError::NoGroup(all)));
    assert_eq!(flows.delete_entry(NIC_RX, low, 0), Err(SteeringError::NoEntry(0)));
    assert_eq!(flows.delete_entry(NIC_RX, low, 3), Err(SteeringError::NoEntry(3)));
    assert_eq!(flows.modify_table(NIC_RX, low, Miss::Table(same)), Err(level));
    assert_eq!(flows.modify_table(NIC_RX, low, Miss::Table(low)), Err(level));
    assert_eq!(flows.set_root(NIC_TX, Some(low)), Err(SteeringError::NoTable(low)));
    assert_eq!(flows.destroy_table(NIC_TX, low), Err(SteeringError::NoTable(low)));
    let too_large = NewTable {
        log_size: MAX_LOG_SIZE + 1,
        ..NewTable::default()
    };
    assert_eq!(flows.create_table(too_large), Err(SteeringError::TooLarge(25)));
    while flows.object_counts()["flow_table"] < MAX_TABLES {
        flows.create_table(NewTable::default()).unwrap();
    }
    assert_eq!(flows.create_table(NewTable::default()), Err(SteeringError::Full));
    flows.clear();
    assert!(flows.object_counts().values().all(|&count| count == 0));
}
