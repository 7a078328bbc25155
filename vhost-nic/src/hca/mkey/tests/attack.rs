//! Small work requests that ask for much memory.

use super::umr::{KERNEL, control, spare};
use super::*;

/// Bytes of the budget.
const LIMIT: u64 = 1 << 20;

fn tables() -> (Table<Mkey>, Arc<Budget>) {
    let budget = Arc::new(Budget::new(LIMIT));
    (Table::new(FIRST_INDEX..1 << 20, &budget), budget)
}

fn add(table: &Table<Mkey>, budget: &Arc<Budget>, context: Mkc, list: &[u8]) -> u32 {
    let make = Mkey::prepare(context, list, budget).unwrap();
    table.insert_with(make).unwrap().key()
}

/// Updates four octwords from `offset` on.
fn update(table: &Table<Mkey>, key: u32, offset: u64) -> Result<(), UmrError> {
    let control = UmrControl {
        xlt_offset: offset,
        ..control(UmrControl::TRANSLATION_OFFSET_EN, 0, 4)
    };
    umr(table, KERNEL, key, &control, &Mkc::default(), &[0xff; 64]).map(drop)
}

#[test]
fn an_update_at_the_end_of_the_room_does_not_fill_the_room() {
    let (table, budget) = tables();
    let key = add(&table, &budget, spare(AccessMode::Mtt, 1 << 24), &[]);
    let before = budget.snapshot().used_bytes;
    update(&table, key, (1 << 24) - 4).unwrap();
    assert_eq!(budget.snapshot().used_bytes - before, 4096 + 32);
    table.clear();
    assert_eq!(budget.snapshot().used_bytes, 0);
}

#[test]
fn updates_beyond_the_budget_fail_and_change_nothing() {
    for (mode, stride) in [(AccessMode::Mtt, 1 << 12), (AccessMode::Klm, 4), (AccessMode::Ksm, 4)] {
        let (table, budget) = tables();
        let capacity = if mode == AccessMode::Mtt { 1 << 24 } else { 1 << 16 };
        let keys: Vec<u32> = (0..4)
            .map(|_| add(&table, &budget, spare(mode, capacity), &[]))
            .collect();
        let offsets = (0..u64::from(capacity)).step_by(stride);
        let mut updates = offsets.flat_map(|offset| keys.iter().map(move |key| (*key, offset)));
        let (key, refused) = updates
            .find_map(|(key, offset)| Some((key, update(&table, key, offset).err()?)))
            .unwrap();
        assert_eq!(refused, UmrError::OverBudget(key), "{mode:?}");
        let full = budget.snapshot();
        assert!((LIMIT / 2..=LIMIT).contains(&full.used_bytes), "{mode:?}: {full:?}");
        assert_eq!(full.refused, 1);
        let other = *keys.iter().find(|other| **other != key).unwrap();
        table.remove(other >> VARIANT_BITS).unwrap();
        update(&table, key, 0).unwrap();
        table.clear();
        assert_eq!(budget.snapshot().used_bytes, 0, "{mode:?}");
    }
}

#[test]
fn a_list_beyond_the_budget_makes_no_key() {
    let (_, budget) = tables();
    let list = vec![0; LIMIT as usize + OCTWORD];
    let refused = Mkey::prepare(spare(AccessMode::Mtt, 1 << 17), &list, &budget).map(drop);
    assert!(matches!(refused, Err(InvalidMkey::OverBudget(_))));
    assert_eq!(budget.snapshot().used_bytes, 0);
}
