//! Flow tables that are made to keep the senders of frames busy.

use super::*;
use crate::hca::memory_budget::Budget;

/// Creates a root table with as many groups as possible, the last of which can match every frame.
fn crowded(flows: &Flows) -> (u32, u32) {
    let root = table(flows, 1, 12, Miss::Default);
    flows.set_root(NIC_RX, Some(root)).unwrap();
    let last = MAX_TABLE_GROUPS as u32 - 1;
    for start in 0..last {
        group(flows, root, start, start, &dmac(ALL_ONES));
    }
    let all = group(flows, root, last, last, &nothing());
    (root, all)
}

#[test]
fn a_table_has_no_more_groups_than_a_frame_may_pass() {
    let flows = Flows::new(&Arc::default());
    let (root, _) = crowded(&flows);
    let more = try_group(&flows, root, 1 << 11, 1 << 11, &dmac(ALL_ONES), OUTER);
    assert_eq!(more, Err(SteeringError::Full));
}

#[test]
fn groups_and_tables_count_together() {
    let flows = Flows::new(&Arc::default());
    let (root, all) = crowded(&flows);
    let counter = flows.alloc_counters(1).unwrap();
    let again = Actions {
        action: action::FWD_DEST | action::COUNT,
        counters: vec![counter],
        ignore_level: true,
        ..forward(&[Destination::Table(root)])
    };
    entry(&flows, (root, all, MAX_TABLE_GROUPS as u32 - 1), &nothing(), again);
    assert_eq!(classify(&flows, &frame(MINE, 1)).0, Outcome::Drop);
    let rounds = MAX_VISITS.div_ceil(MAX_TABLE_GROUPS + 1) as u64;
    assert_eq!(flows.query_counters(counter, 1, false).unwrap()[0].packets, rounds);
    assert_eq!(flows.exhausted(), 1);
}

#[test]
fn objects_are_charged_until_they_are_gone() {
    let budget = Arc::new(Budget::new(64 << 10));
    let flows = Flows::new(&budget);
    let used = || budget.snapshot().used_bytes;
    let root = table(&flows, 1, 20, Miss::Default);
    let all = group(&flows, root, 0, 1 << 19, &dmac(ALL_ONES));
    let empty = used();
    let add = |index| try_entry(&flows, (root, all, index), &dmac(MINE), to_tir(1));
    let mut count = 0;
    let refusal = loop {
        match add(count) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refusal, SteeringError::OverBudget(_)));
    let of_entry = (used() - empty) / u64::from(count);
    assert_eq!(u64::from(count), ((64 << 10) - empty) / of_entry);
    // Longer lists take more.
    let copies = forward(&[const { Destination::Tir(1) }; MAX_DESTINATIONS]);
    let long = flows.modify_entry(NIC_RX, root, 0, modify::DESTINATION_LIST, copies);
    assert_eq!(long, Err(refusal));
    let counters = budget.snapshot().limit_bytes as u32;
    assert_eq!(flows.alloc_counters(counters), Err(refusal));
    (0..count).for_each(|index| flows.delete_entry(NIC_RX, root, index).unwrap());
    assert_eq!(used(), empty);
    let bulk = flows.alloc_counters(7).unwrap();
    assert!(used() > empty);
    flows.dealloc_counters(bulk).unwrap();
    flows.clear();
    assert_eq!(used(), 0);
}
