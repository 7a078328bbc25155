//! Indirect keys.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::*;

#[test]
fn ranges_of_other_keys_follow_each_other() {
    let table = table();
    let memory = create(&table, physical(), &[]);
    let pages = create(
        &table,
        ranged(AccessMode::Mtt, 0x10_0000, 0x2000),
        &mtts(&[0x8000, 0x3000]),
    );
    let list = klms(&[
        (0x10, memory, 0x5000),
        (0, pages, 0),
        (0x20, pages, 0x10_0ff0),
        (0, 0, 0),
        (8, NULL_MKEY, 0),
    ]);
    let key = create(&table, ranged(AccessMode::Klm, 0x700, 0x38), &list);
    let all = [
        Segment::Memory(0x5000, 0x10),
        Segment::Memory(0x8ff0, 0x10),
        Segment::Memory(0x3000, 0x10),
        Segment::Null(8),
    ];
    assert_eq!(reach(&table, key, 0x700, 0x38).unwrap(), all);
    assert_eq!(
        reach(&table, key, 0x70f, 2).unwrap(),
        [Segment::Memory(0x500f, 1), Segment::Memory(0x8ff0, 1)]
    );
    assert_eq!(reach(&table, key, 0x710, 1).unwrap(), [Segment::Memory(0x8ff0, 1)]);
    assert!(matches!(reach(&table, key, 0x6ff, 1), Err(MkeyError::Range(..))));
    assert!(matches!(reach(&table, key, 0x737, 2), Err(MkeyError::Range(..))));
}

#[test]
fn blocks_of_other_keys_are_equally_long() {
    let table = table();
    let memory = create(&table, physical(), &[]);
    let mut context = ranged(AccessMode::Ksm, 0, 0x300);
    context.set_log_page_size(8);
    // The first field of a KSM entry is reserved.
    let key = create(
        &table,
        context,
        &klms(&[(7, memory, 0x5000), (0, memory, 0x1000), (0, NULL_MKEY, 0)]),
    );
    let pieces = reach(&table, key, 0xf0, 0x1a0).unwrap();
    assert_eq!(
        pieces,
        [
            Segment::Memory(0x50f0, 0x10),
            Segment::Memory(0x1000, 0x100),
            Segment::Null(0x90)
        ]
    );
}

#[test]
fn the_memory_behind_a_window_need_only_be_the_guests_own() {
    let table = table();
    let memory = create(&table, physical(), &[]);
    let mut read_only = physical();
    read_only.set_lw(false);
    let read_only = create(&table, read_only, &[]);
    let mut window = ranged(AccessMode::Klm, 0, 0x20);
    window.set_rr(true);
    window.set_rw(true);
    window.set_a(true);
    let key = create(
        &table,
        window,
        &klms(&[(0x10, memory, 0x1000), (0x10, read_only, 0x2000)]),
    );
    let reach = |address, access| reach_as(&table, key, ACCESSOR, (address, 8), access);
    for access in [Access::RemoteRead, Access::RemoteWrite, Access::RemoteAtomic] {
        assert_eq!(reach(0, access).unwrap(), [Segment::Memory(0x1000, 8)]);
    }
    assert_eq!(reach(0x10, Access::RemoteRead).unwrap(), [Segment::Memory(0x2000, 8)]);
    for access in [Access::RemoteWrite, Access::RemoteAtomic] {
        assert_eq!(reach(0x10, access).unwrap_err(), MkeyError::Access(read_only));
    }
}

#[test]
fn keys_behind_a_key_are_checked_too() {
    let table = table();
    let mut foreign = physical();
    foreign.set_pd(PD + 1);
    let mut free = physical();
    free.set_free(true);
    let [foreign, free] = [foreign, free].map(|context| create(&table, context, &[]));
    let list = klms(&[
        (8, foreign, 0),
        (8, free, 0),
        (8, 0xdead_be00, 0),
        (8, RESERVED_LKEY, 0),
    ]);
    let key = create(&table, ranged(AccessMode::Klm, 0, 32), &list);
    assert_eq!(reach(&table, key, 0, 1).unwrap_err(), MkeyError::Domain(foreign));
    assert_eq!(reach(&table, key, 8, 1).unwrap_err(), MkeyError::Unknown(free));
    assert_eq!(reach(&table, key, 16, 1).unwrap_err(), MkeyError::Unknown(0xdead_be00));
    assert_eq!(
        reach(&table, key, 24, 1).unwrap_err(),
        MkeyError::Unknown(RESERVED_LKEY)
    );
}

#[test]
fn keys_are_behind_keys_only_so_far() {
    let table = table();
    let mut key = create(&table, physical(), &[]);
    for depth in 1..=MAX_INDIRECTION + 1 {
        key = create(
            &table,
            ranged(AccessMode::Klm, 0, 0x100),
            &klms(&[(0x100, key, u64::from(depth))]),
        );
        let result = reach(&table, key, 0, 1);
        if depth <= MAX_INDIRECTION {
            assert!(matches!(result.unwrap()[..], [Segment::Memory(_, 1)]));
        } else {
            assert!(matches!(result, Err(MkeyError::Indirection(_))));
        }
    }
}

#[test]
fn a_key_behind_itself_ends() {
    let table = table();
    let key = FIRST_INDEX << VARIANT_BITS | u32::from(VARIANT);
    assert_eq!(
        create(
            &table,
            ranged(AccessMode::Klm, 0, 0x100),
            &klms(&[(0x80, key, 0), (0x80, key, 0x80)])
        ),
        key
    );
    assert_eq!(reach(&table, key, 0, 0x100).unwrap_err(), MkeyError::Indirection(key));
}

#[test]
fn a_change_waits_for_translations_and_does_not_stop_them() {
    let table = Arc::new(table());
    let memory = create(&table, physical(), &[]);
    let key = (FIRST_INDEX + 1) << VARIANT_BITS | u32::from(VARIANT);
    // The key refers to itself, so it is locked recursively while the change waits.
    let mut context = ranged(AccessMode::Klm, 0, 0x20);
    context.set_umr_en(true);
    assert_eq!(
        create(&table, context, &klms(&[(0x10, memory, 0x1000), (0x10, key, 0)])),
        key
    );
    let (done, wait) = channel();
    let mut change = None;
    let mut pieces = Vec::new();
    translate(&table, key, ACCESSOR, 0, 0x20, Access::LocalRead, |piece| {
        if change.is_none() {
            let (table, done) = (table.clone(), done.clone());
            change = Some(std::thread::spawn(move || {
                done.send(invalidate(&table, key, ACCESSOR, false)).unwrap()
            }));
        }
        assert!(wait.recv_timeout(Duration::from_millis(50)).is_err());
        pieces.push(piece);
        Ok::<(), ()>(())
    })
    .unwrap()
    .unwrap();
    assert_eq!(pieces, [Segment::Memory(0x1000, 0x10), Segment::Memory(0x1000, 0x10)]);
    wait.recv().unwrap().unwrap();
    change.unwrap().join().unwrap();
    assert_eq!(reach(&table, key, 0, 1).unwrap_err(), MkeyError::Unknown(key));
}
