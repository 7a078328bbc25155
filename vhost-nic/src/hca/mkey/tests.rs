mod attack;
mod indirect;
mod model;
mod umr;

use super::*;
use crate::hca::object_table::Table;

const PD: u32 = 5;
const VARIANT: u8 = 0x42;
const ACCESSOR: Accessor = Accessor {
    pd: PD,
    qpn: 0x77,
    reserved_lkey: false,
};

fn context(mode: AccessMode) -> Mkc {
    let mut context = Mkc::default();
    context.set_access_mode_1_0(match mode {
        AccessMode::Physical => 0,
        AccessMode::Mtt => 1,
        AccessMode::Klm => 2,
        AccessMode::Ksm => 3,
    });
    context.set_mkey_7_0(VARIANT);
    context.set_pd(PD);
    context.set_qpn(ANY_QUEUE);
    context.set_lr(true);
    context
}

fn ranged(mode: AccessMode, start: u64, length: u64) -> Mkc {
    let mut context = context(mode);
    context.set_start_addr(start);
    context.set_len(length);
    context.set_log_page_size(12);
    context
}

/// Creates a key for all of memory, as the driver does in each protection domain.
fn physical() -> Mkc {
    let mut context = context(AccessMode::Physical);
    context.set_length64(true);
    context.set_lw(true);
    context
}

fn table() -> Table<Mkey> {
    Table::new(FIRST_INDEX..1 << 20, &Arc::default())
}

fn create(table: &Table<Mkey>, context: Mkc, translations: &[u8]) -> u32 {
    table
        .insert_with(Mkey::prepare(context, translations, &Arc::default()).unwrap())
        .unwrap()
        .key()
}

fn mtts(pages: &[u64]) -> Vec<u8> {
    pages.iter().flat_map(|page| page.to_be_bytes()).collect()
}

fn klms(entries: &[(u32, u32, u64)]) -> Vec<u8> {
    let bytes = |&(count, key, address): &(u32, u32, u64)| {
        [&count.to_be_bytes()[..], &key.to_be_bytes(), &address.to_be_bytes()].concat()
    };
    entries.iter().flat_map(bytes).collect()
}

fn reach_as(
    table: &Table<Mkey>,
    key: u32,
    accessor: Accessor,
    (address, length): (u64, u64),
    access: Access,
) -> Result<Vec<Segment>, MkeyError> {
    let mut found = Vec::new();
    translate(table, key, accessor, address, length, access, |piece| {
        found.push(piece);
        Ok::<(), ()>(())
    })?
    .unwrap();
    Ok(found)
}

fn reach(table: &Table<Mkey>, key: u32, address: u64, length: u64) -> Result<Vec<Segment>, MkeyError> {
    reach_as(table, key, ACCESSOR, (address, length), Access::LocalRead)
}

#[test]
fn no_access_wraps_around_the_address_space() {
    let table = table();
    let context = ranged(AccessMode::Mtt, u64::MAX - 0xfff, 0x2000);
    let key = create(&table, context, &mtts(&[0x8000, 0x3000]));
    let (last, length) = (u64::MAX - 0xf, 0x10);
    assert_eq!(
        reach(&table, key, last, length).unwrap(),
        [Segment::Memory(0x8ff0, 0x10)]
    );
    let beyond = reach(&table, key, last, length + 1);
    assert!(matches!(beyond, Err(MkeyError::Range(..))), "{beyond:?}");
}

#[test]
fn pages_are_counted_from_the_first_byte() {
    let table = table();
    let key = create(
        &table,
        ranged(AccessMode::Mtt, 0x1234_5800, 0x1800),
        &mtts(&[0x8000, 0x3000]),
    );
    let pieces = reach(&table, key, 0x1234_5800, 0x1800).unwrap();
    assert_eq!(
        pieces,
        [Segment::Memory(0x8800, 0x800), Segment::Memory(0x3000, 0x1000)]
    );
    assert_eq!(
        reach(&table, key, 0x1234_6ffc, 4).unwrap(),
        [Segment::Memory(0x3ffc, 4)]
    );
    assert!(matches!(reach(&table, key, 0x1234_57ff, 1), Err(MkeyError::Range(..))));
    assert!(matches!(reach(&table, key, 0x1234_6fff, 2), Err(MkeyError::Range(..))));
    assert!(matches!(
        reach(&table, key, 0x1234_6000, u64::MAX),
        Err(MkeyError::Range(..))
    ));
}

#[test]
fn a_list_too_short_for_its_key_is_reached_as_far_as_it_goes() {
    let table = table();
    let key = create(&table, ranged(AccessMode::Mtt, 0, 1 << 20), &mtts(&[0x8000, 0x3000]));
    assert_eq!(reach(&table, key, 0x1fff, 1).unwrap(), [Segment::Memory(0x3fff, 1)]);
    assert!(matches!(reach(&table, key, 0x1fff, 2), Err(MkeyError::Range(..))));
}

#[test]
fn a_key_is_for_its_domain_and_its_accesses() {
    let table = table();
    let mut context = physical();
    context.set_lw(false);
    let key = create(&table, context, &[]);
    assert_eq!(reach(&table, key, 0x7000, 9).unwrap(), [Segment::Memory(0x7000, 9)]);
    let stranger = Accessor { pd: PD + 1, ..ACCESSOR };
    let as_stranger = reach_as(&table, key, stranger, (0x7000, 9), Access::LocalRead);
    assert_eq!(as_stranger.unwrap_err(), MkeyError::Domain(key));
    assert_eq!(
        reach(&table, key + 1, 0x7000, 9).unwrap_err(),
        MkeyError::Unknown(key + 1)
    );
    assert!(matches!(reach(&table, key, u64::MAX - 3, 5), Err(MkeyError::Range(..))));
    for access in [
        Access::LocalWrite,
        Access::RemoteRead,
        Access::RemoteWrite,
        Access::RemoteAtomic,
    ] {
        assert_eq!(
            reach_as(&table, key, ACCESSOR, (0, 1), access).unwrap_err(),
            MkeyError::Access(key)
        );
    }
}

#[test]
fn each_access_has_its_permission() {
    type Permit = fn(&mut Mkc, bool);
    let permissions: [(Access, Permit); 5] = [
        (Access::LocalRead, Mkc::set_lr),
        (Access::LocalWrite, Mkc::set_lw),
        (Access::RemoteRead, Mkc::set_rr),
        (Access::RemoteWrite, Mkc::set_rw),
        (Access::RemoteAtomic, Mkc::set_a),
    ];
    let table = table();
    for (allowed, set) in permissions {
        let mut context = physical();
        context.set_lr(false);
        context.set_lw(false);
        set(&mut context, true);
        let key = create(&table, context, &[]);
        for (access, _) in permissions {
            assert_eq!(
                reach_as(&table, key, ACCESSOR, (0, 8), access).is_ok(),
                access == allowed,
                "{allowed:?}, {access:?}"
            );
        }
    }
}

#[test]
fn a_key_of_one_queue_is_not_for_others() {
    let table = table();
    let mut context = physical();
    context.set_qpn(ACCESSOR.qpn);
    let key = create(&table, context, &[]);
    reach(&table, key, 0, 1).unwrap();
    let other = Accessor {
        qpn: ACCESSOR.qpn + 1,
        ..ACCESSOR
    };
    assert_eq!(
        reach_as(&table, key, other, (0, 1), Access::LocalRead).unwrap_err(),
        MkeyError::Queue(key)
    );
}

#[test]
fn the_keys_of_the_device_are_there_without_being_made() {
    let table = table();
    for key in [NULL_MKEY, DUMP_FILL_MKEY] {
        assert_eq!(reach(&table, key, 0x1234, 99).unwrap(), [Segment::Null(99)]);
    }
    assert_eq!(
        reach(&table, RESERVED_LKEY, 0x1234, 9).unwrap_err(),
        MkeyError::Unknown(RESERVED_LKEY)
    );
    let privileged = Accessor {
        reserved_lkey: true,
        ..ACCESSOR
    };
    let pieces = reach_as(&table, RESERVED_LKEY, privileged, (0x1234, 9), Access::LocalWrite).unwrap();
    assert_eq!(pieces, [Segment::Memory(0x1234, 9)]);
    let remote = reach_as(&table, RESERVED_LKEY, privileged, (0x1234, 9), Access::RemoteRead);
    assert_eq!(remote.unwrap_err(), MkeyError::Unknown(RESERVED_LKEY));
}

#[test]
fn nothing_is_in_any_key() {
    assert_eq!(reach(&table(), 0xdead_beef, 1, 0).unwrap(), []);
}

#[test]
fn what_the_caller_fails_with_comes_back() {
    let table = table();
    let key = create(&table, physical(), &[]);
    let result = translate(&table, key, ACCESSOR, 0, 1, Access::LocalRead, |_| Err("no"));
    assert_eq!(result.unwrap(), Err("no"));
}

#[test]
fn a_revoked_key_is_not_reached() {
    let table = table();
    let key = create(&table, physical(), &[]);
    table.get(key >> VARIANT_BITS).unwrap().revoke();
    assert_eq!(reach(&table, key, 0, 1).unwrap_err(), MkeyError::Unknown(key));
}

#[test]
fn lists_too_long_and_unknown_modes_make_no_key() {
    let mut large = context(AccessMode::Klm);
    large.set_translations_octword_size((1 << 16) + 1);
    assert!(matches!(
        Mkey::prepare(large, &[], &Arc::default()).map(drop),
        Err(InvalidMkey::Length)
    ));
    let mut unknown = context(AccessMode::Physical);
    unknown.set_access_mode_4_2(1);
    assert!(matches!(
        Mkey::prepare(unknown, &[], &Arc::default()).map(drop),
        Err(InvalidMkey::Mode)
    ));
}
