//! Translation compared with a model that translates byte by byte.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Layout {
    Physical,
    Mtt { shift: u8, pages: Vec<u64> },
    Klm(Vec<Entry>),
    Ksm { shift: u8, entries: Vec<Entry> },
}

/// A range of an earlier key, or of the null key.
#[derive(Debug, Clone)]
struct Entry {
    count: u32,
    target: usize,
    skip: u64,
}

#[derive(Debug, Clone)]
struct Key {
    start: u64,
    length: u64,
    layout: Layout,
}

#[derive(Debug, PartialEq)]
enum Byte {
    Memory(u64),
    Null,
}

/// Returns the key that an entry of key `at` names: an earlier one, or none for the null key.
fn target(entry: &Entry, at: usize) -> Option<usize> {
    entry.target.checked_rem(at + 1).filter(|target| *target < at)
}

fn byte(keys: &[Key], at: usize, address: u64, indirection: u32) -> Option<Byte> {
    let key = &keys[at];
    let offset = address.checked_sub(key.start).filter(|offset| *offset < key.length)?;
    let inner = |entry: &Entry, offset| {
        let indirection = indirection.checked_sub(1)?;
        match target(entry, at) {
            Some(target) => byte(keys, target, keys[target].start + entry.skip + offset, indirection),
            None => Some(Byte::Null),
        }
    };
    match &key.layout {
        Layout::Physical => Some(Byte::Memory(address)),
        Layout::Mtt { shift, pages } => {
            let size = 1 << shift;
            let at = offset + key.start % size;
            Some(Byte::Memory(pages.get((at / size) as usize)? + at % size))
        }
        Layout::Klm(entries) => {
            let mut rest = offset;
            for entry in entries {
                if rest < u64::from(entry.count) {
                    return inner(entry, rest);
                }
                rest -= u64::from(entry.count);
            }
            None
        }
        Layout::Ksm { shift, entries } => {
            let size = 1 << shift;
            inner(entries.get((offset / size) as usize)?, offset % size)
        }
    }
}

fn make(table: &Table<Mkey>, keys: &[Key]) -> Vec<u32> {
    let mut names = Vec::new();
    for (at, key) in keys.iter().enumerate() {
        let list = |entries: &[Entry]| {
            let entry = |entry: &Entry| match target(entry, at) {
                Some(target) => (entry.count, names[target], keys[target].start + entry.skip),
                None => (entry.count, NULL_MKEY, entry.skip),
            };
            klms(&entries.iter().map(entry).collect::<Vec<_>>())
        };
        let (mode, shift, list) = match &key.layout {
            Layout::Physical => (AccessMode::Physical, 0, Vec::new()),
            Layout::Mtt { shift, pages } => {
                // A list of odd length is padded by an entry.
                let mut list = mtts(pages);
                list.truncate(list.len() / OCTWORD * OCTWORD);
                (AccessMode::Mtt, *shift, list)
            }
            Layout::Klm(entries) => (AccessMode::Klm, 0, list(entries)),
            Layout::Ksm { shift, entries } => (AccessMode::Ksm, *shift, list(entries)),
        };
        let mut context = ranged(mode, key.start, key.length);
        context.set_log_page_size(shift);
        names.push(create(table, context, &list));
    }
    names
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let count = prop_oneof![Just(0_u32), 1..4_u32, 1..3000_u32];
    let entry = (count, any::<usize>(), 0..0x800_u64).prop_map(|(count, target, skip)| Entry { count, target, skip });
    prop::collection::vec(entry, 1..12)
}

fn layouts() -> impl Strategy<Value = Layout> {
    let pages = prop::collection::vec((0..1_u64 << 40).prop_map(|page| page << 12), 1..4);
    prop_oneof![
        Just(Layout::Physical),
        // An octword holds two pages.
        (12..14_u8, pages).prop_map(|(shift, pages)| Layout::Mtt {
            shift,
            pages: pages.repeat(2)
        }),
        entries().prop_map(Layout::Klm),
        (4..12_u8, entries()).prop_map(|(shift, entries)| Layout::Ksm { shift, entries }),
    ]
}

fn keys() -> impl Strategy<Value = Vec<Key>> {
    let key = (
        0..0x2_0000_u64,
        prop_oneof![4 => Just(0x4000_u64), 1 => 0..0x4000_u64],
        layouts(),
    );
    let key = key.prop_map(|(start, length, layout)| Key { start, length, layout });
    prop::collection::vec(key, 1..9)
}

proptest! {
    #[test]
    fn every_byte_is_where_the_model_finds_it(keys in keys(), offset in 0..0x1800_u64, length in 1..3000_u64) {
        let table = table();
        let names = make(&table, &keys);
        for (at, key) in keys.iter().enumerate() {
            let address = key.start + offset;
            let expected: Option<Vec<Byte>> =
                (address..address + length).map(|address| byte(&keys, at, address, MAX_INDIRECTION)).collect();
            let found = reach(&table, names[at], address, length).ok().map(|pieces| {
                let bytes = |piece| (0..Segment::length(piece) as u64).map(move |at| match piece {
                    Segment::Memory(address, _) => Byte::Memory(address + at),
                    Segment::Null(_) => Byte::Null,
                });
                pieces.into_iter().flat_map(bytes).collect::<Vec<_>>()
            });
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn lists_changed_in_parts_are_those_made_at_once(first in entries(), second in entries(), at in 0..16_u64) {
        let (first, second) = [first, second]
            .map(|entries| entries.iter().map(|entry| (entry.count, NULL_MKEY, entry.skip)).collect::<Vec<_>>())
            .into();
        let mut whole = first.clone();
        whole.resize(whole.len().max(at as usize + second.len()), (0, 0, 0));
        whole[at as usize..][..second.len()].copy_from_slice(&second);
        let mut context = ranged(AccessMode::Klm, 0, 1 << 20);
        context.set_translations_octword_size(64);
        context.set_umr_en(true);
        let table = table();
        let at_once = create(&table, context.clone(), &klms(&whole));
        let in_parts = create(&table, context.clone(), &klms(&first));
        let poster = UmrPoster { accessor: ACCESSOR, reg_umr: false, fast_register: false };
        let control = UmrControl {
            flags: UmrControl::TRANSLATION_OFFSET_EN,
            mkey_mask: 0,
            xlt_octowords: second.len() as u16,
            xlt_offset: at,
        };
        umr(&table, poster, in_parts, &control, &context, &klms(&second)).unwrap();
        let total: u64 = whole.iter().map(|(count, _, _)| u64::from(*count)).sum();
        for (address, length) in [(0, total), (total / 3, total / 2), (total, 1)] {
            let range = |key| reach(&table, key, address, length).map_err(|_| ());
            prop_assert_eq!(range(in_parts), range(at_once));
        }
        let list = |key: u32| table.get(key >> VARIANT_BITS).unwrap().translations(1 << 16);
        prop_assert_eq!(list(in_parts), klms(&whole));
        prop_assert_eq!(list(at_once), klms(&whole));
    }
}
