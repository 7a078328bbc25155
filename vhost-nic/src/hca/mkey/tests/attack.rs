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

/// A key of `count` ranges of `bytes` bytes each of another key.
fn shredded(table: &Table<Mkey>, budget: &Arc<Budget>, inner: u32, count: u32, bytes: u32) -> u32 {
    let entries: Vec<_> = (0..count)
        .map(|index| (bytes, inner, u64::from(index * bytes)))
        .collect();
    let context = ranged(AccessMode::Klm, 0, u64::from(count * bytes));
    add(table, budget, context, &klms(&entries))
}

#[test]
fn a_key_of_bytes_is_not_walked_to_its_end() {
    let (table, budget) = (table(), Arc::default());
    let memory = add(&table, &budget, physical(), &[]);
    let once = shredded(&table, &budget, memory, 1 << 14, 1);
    let reached = |key, length| {
        let mut segments = 0;
        let result = translate(&table, key, ACCESSOR, 0, length, Access::LocalRead, |_| {
            segments += 1;
            Ok::<(), ()>(())
        });
        (result.map(|_| ()), segments)
    };
    // 256 steps, and one per 32 bytes.
    assert_eq!(reached(once, 264), (Ok(()), 264));
    assert_eq!(reached(once, 265), (Err(MkeyError::Steps(memory)), 264));
    assert_eq!(reached(once, 1 << 14), (Err(MkeyError::Steps(memory)), 768));
    // Each level has its steps.
    let twice = shredded(&table, &budget, once, 1 << 10, 16);
    assert_eq!(reached(twice, 1 << 14).1, 722);
    // The ranges of a real scatter list pass.
    let sectors = shredded(&table, &budget, memory, 1 << 12, 512);
    assert_eq!(reached(sectors, 1 << 21), (Ok(()), 1 << 12));
}

#[test]
fn a_check_does_not_depend_on_the_length() {
    let (table, budget) = (table(), Arc::default());
    let missing = 0x5500;
    let key = shredded(&table, &budget, missing, 1 << 10, 1 << 10);
    let checked = |length, access| check(&table, key, ACCESSOR, 0, length, access);
    assert_eq!(checked(1 << 20, Access::LocalRead), Ok(()));
    assert_eq!(checked(1 << 20, Access::RemoteWrite), Err(MkeyError::Access(key)));
    assert_eq!(
        checked((1 << 20) + 1, Access::LocalRead),
        Err(MkeyError::Range(key, (1 << 20) + 1, 0))
    );
}
