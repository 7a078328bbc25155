//! UMR and invalidation.

use mlx5_prm::layout::Layout;
use mlx5_prm::rdma_wqe::{UmrControlSegment, mkey_mask as mask};
use zerocopy::{FromBytes, IntoBytes};

use super::*;

/// A queue of a kernel driver that registers memory.
pub(super) const KERNEL: UmrPoster = UmrPoster {
    accessor: ACCESSOR,
    reg_umr: false,
    fast_register: true,
};
/// A queue of a user process.
const USER: UmrPoster = UmrPoster {
    accessor: ACCESSOR,
    reg_umr: false,
    fast_register: false,
};

/// Creates a free key with this capacity in octwords.
pub(super) fn spare(mode: AccessMode, octwords: u32) -> Mkc {
    let mut context = context(mode);
    context.set_free(true);
    context.set_umr_en(true);
    context.set_translations_octword_size(octwords);
    context.set_log_page_size(12);
    context
}

pub(super) fn control(flags: u8, mkey_mask: u64, xlt_octowords: u16) -> UmrControl {
    UmrControl {
        flags,
        mkey_mask,
        xlt_octowords,
        xlt_offset: 0,
    }
}

fn padded(mut list: Vec<u8>) -> Vec<u8> {
    list.resize(list.len().next_multiple_of(64), 0);
    list
}

#[test]
fn memory_is_registered_and_invalidated_as_the_kernel_does() {
    let table = table();
    let old = create(&table, spare(AccessMode::Mtt, 4), &[]);
    assert_eq!(reach(&table, old, 0, 1).unwrap_err(), MkeyError::Unknown(old));
    let key = old & !0xff | 0x43;
    let mut context = ranged(AccessMode::Physical, 0x1_0800, 0x1000);
    context.set_mkey_7_0(0x43);
    context.set_lw(true);
    context.set_rw(true);
    context.set_en_rinval(true);
    let selected = mask::LEN
        | mask::PAGE_SIZE
        | mask::START_ADDR
        | mask::EN_RINVAL
        | mask::KEY
        | (mask::LR | mask::LW | mask::RR | mask::RW)
        | mask::SMALL_FENCE
        | mask::FREE;
    let control_segment = control(UmrControl::CHECK_NOT_FREE, selected, 4);
    let list = padded(mtts(&[0x8000 | 3, 0x3000 | 3]));
    umr(&table, KERNEL, key, &control_segment, &context, &list).unwrap();
    let range = (0x1_0800, 0x1000);
    let pieces = reach_as(&table, key, ACCESSOR, range, Access::RemoteWrite).unwrap();
    assert_eq!(pieces, [Segment::Memory(0x8800, 0x800), Segment::Memory(0x3000, 0x800)]);
    assert_eq!(
        reach_as(&table, key, ACCESSOR, range, Access::RemoteRead).unwrap_err(),
        MkeyError::Access(key)
    );
    assert_eq!(reach(&table, old, range.0, 1).unwrap_err(), MkeyError::Unknown(old));
    // Registering again requires a free key, and fails without changing it.
    let again = umr(
        &table,
        KERNEL,
        key,
        &control_segment,
        &context,
        &padded(mtts(&[0x9000 | 3])),
    );
    assert_eq!(again.unwrap_err(), UmrError::NotFree(key));
    assert_eq!(reach(&table, key, 0x1_1000, 1).unwrap(), [Segment::Memory(0x3000, 1)]);
    let mut free = Mkc::default();
    free.set_free(true);
    let wrong = umr(&table, KERNEL, old, &control(0, mask::FREE, 0), &free, &[]);
    assert_eq!(wrong.unwrap_err(), UmrError::Unknown(old));
    umr(&table, KERNEL, key, &control(0, mask::FREE, 0), &free, &[]).unwrap();
    assert_eq!(reach(&table, key, 0x1_1000, 1).unwrap_err(), MkeyError::Unknown(key));
    let changed = umr(
        &table,
        KERNEL,
        key,
        &control(UmrControl::CHECK_FREE, mask::LR, 0),
        &free,
        &[],
    );
    assert_eq!(changed.unwrap_err(), UmrError::Free(key));
}

#[test]
fn a_list_changes_from_an_offset() {
    let table = table();
    let mut context = spare(AccessMode::Mtt, 1 << 19);
    context.set_free(false);
    context.set_length64(true);
    let key = create(&table, context.clone(), &[]);
    let change = |offset, pages: &[u64]| {
        let list = padded(mtts(pages));
        let control = UmrControl {
            xlt_offset: offset,
            ..control(UmrControl::TRANSLATION_OFFSET_EN, 0, (list.len() / OCTWORD) as u16)
        };
        umr(&table, KERNEL, key, &control, &context, &list)
    };
    // Entries never written have no translation.
    assert!(matches!(reach(&table, key, 0, 1), Err(MkeyError::Range(..))));
    change((1 << 19) - 4, &[0, 0, 0, 0, 0, 0, 0x6000 | 3, 0x7000 | 3]).unwrap();
    let last = (1 << 32) - 1;
    assert_eq!(reach(&table, key, last, 1).unwrap(), [Segment::Memory(0x7fff, 1)]);
    assert_eq!(reach(&table, key, 0, 1).unwrap_err(), MkeyError::Access(key));
    change(0, &[0x5000 | 1, 0x6000 | 2]).unwrap();
    assert_eq!(reach(&table, key, 0, 1).unwrap(), [Segment::Memory(0x5000, 1)]);
    assert_eq!(reach(&table, key, 0x1000, 1).unwrap_err(), MkeyError::Access(key));
    assert_eq!(reach(&table, key, last, 1).unwrap(), [Segment::Memory(0x7fff, 1)]);
    for offset in [(1 << 19) - 3, 1 << 19, (1 << 48) - 1, u64::MAX] {
        assert_eq!(change(offset, &[1]).unwrap_err(), UmrError::Translations(key));
    }
}

#[test]
fn ranges_behind_a_changed_one_move() {
    let table = table();
    let memory = create(&table, physical(), &[]);
    let mut context = spare(AccessMode::Klm, 8);
    context.set_free(false);
    context.set_len(0x1000);
    let entries = [(0x10, memory, 0x1000), (0x10, memory, 0x2000), (0x10, memory, 0x3000)];
    let key = create(&table, context.clone(), &klms(&entries));
    assert_eq!(reach(&table, key, 0x20, 1).unwrap(), [Segment::Memory(0x3000, 1)]);
    let offset = UmrControl {
        xlt_offset: 1,
        ..control(UmrControl::TRANSLATION_OFFSET_EN, 0, 1)
    };
    umr(&table, USER, key, &offset, &context, &klms(&[(4, memory, 0x7000)])).unwrap();
    let pieces = reach(&table, key, 0xf, 8).unwrap();
    assert_eq!(
        pieces,
        [
            Segment::Memory(0x100f, 1),
            Segment::Memory(0x7000, 4),
            Segment::Memory(0x3000, 3)
        ]
    );
    umr(
        &table,
        USER,
        key,
        &control(0, 0, 1),
        &context,
        &klms(&[(1, memory, 0x9000)]),
    )
    .unwrap();
    assert_eq!(reach(&table, key, 0, 1).unwrap(), [Segment::Memory(0x9000, 1)]);
    assert!(matches!(reach(&table, key, 0, 2), Err(MkeyError::Range(..))));
    let short = umr(&table, USER, key, &control(0, 0, 2), &context, &klms(&[(1, memory, 0)]));
    assert_eq!(short.unwrap_err(), UmrError::Translations(key));
}

#[test]
fn a_window_is_bound_to_a_queue_and_unbound_by_it() {
    let table = table();
    let memory = create(&table, physical(), &[]);
    let window = create(&table, spare(AccessMode::Klm, 4), &[]);
    let rkey = window & !0xff | 0x99;
    let mut context = ranged(AccessMode::Physical, 0x4000, 0x100);
    context.set_mkey_7_0(0x99);
    context.set_qpn(ACCESSOR.qpn);
    context.set_rw(true);
    let selected = mask::FREE
        | mask::KEY
        | mask::QPN
        | (mask::LEN | mask::START_ADDR)
        | (mask::LW | mask::RR | mask::RW | mask::A);
    let bind = control(
        UmrControl::TRANSLATION_OFFSET_EN | UmrControl::CHECK_NOT_FREE,
        selected,
        4,
    );
    let list = padded(klms(&[(0x100, memory, 0x4000)]));
    // The UMR names the key by its original variant, whatever it was bound as since.
    umr(&table, USER, window, &bind, &context, &list).unwrap();
    let other = Accessor {
        qpn: ACCESSOR.qpn + 1,
        ..ACCESSOR
    };
    let reach = |accessor| reach_as(&table, rkey, accessor, (0x4010, 4), Access::RemoteWrite);
    assert_eq!(reach(ACCESSOR).unwrap(), [Segment::Memory(0x4010, 4)]);
    assert_eq!(reach(other).unwrap_err(), MkeyError::Queue(rkey));
    assert_eq!(
        umr(&table, USER, window, &bind, &context, &list).unwrap_err(),
        UmrError::NotFree(window)
    );
    let mut unbound = Mkc::default();
    unbound.set_free(true);
    unbound.set_qpn(ANY_QUEUE);
    let unbind = control(UmrControl::CHECK_QPN, mask::FREE | mask::KEY | mask::QPN, 0);
    let stranger = UmrPoster {
        accessor: other,
        ..USER
    };
    assert_eq!(
        umr(&table, stranger, rkey, &unbind, &unbound, &[]).unwrap_err(),
        UmrError::Queue(rkey)
    );
    assert_eq!(
        umr(&table, USER, window, &unbind, &unbound, &[]).unwrap_err(),
        UmrError::Unknown(window)
    );
    umr(&table, USER, rkey, &unbind, &unbound, &[]).unwrap();
    assert_eq!(reach(ACCESSOR).unwrap_err(), MkeyError::Unknown(rkey));
    let twice = umr(&table, USER, window & !0xff, &unbind, &unbound, &[]);
    assert_eq!(twice.unwrap_err(), UmrError::Queue(window & !0xff));
}

#[test]
fn a_queue_changes_what_is_its_to_change() {
    let table = table();
    let pages = create(&table, spare(AccessMode::Mtt, 4), &[]);
    let list = padded(mtts(&[3]));
    let new = Mkc::default();
    let change =
        |poster, key, selected, octwords| umr(&table, poster, key, &control(0, selected, octwords), &new, &list);
    assert_eq!(change(USER, pages, 0, 4).unwrap_err(), UmrError::NotAllowed(pages));
    change(KERNEL, pages, 0, 4).unwrap();
    assert_eq!(
        change(KERNEL, pages, mask::PD, 0).unwrap_err(),
        UmrError::NotAllowed(pages)
    );
    for bits in [mask::EN_SIGERR, mask::BSF_EN, 1 << 63] {
        assert_eq!(
            change(KERNEL, pages, bits | mask::LR, 0).unwrap_err(),
            UmrError::Mask(bits)
        );
    }
    let stranger = UmrPoster {
        accessor: Accessor { pd: PD + 1, ..ACCESSOR },
        ..KERNEL
    };
    assert_eq!(
        change(stranger, pages, mask::LR, 0).unwrap_err(),
        UmrError::Domain(pages)
    );
    change(
        UmrPoster {
            reg_umr: true,
            fast_register: false,
            ..stranger
        },
        pages,
        mask::PD,
        4,
    )
    .unwrap();
    assert_eq!(table.get(pages >> VARIANT_BITS).unwrap().context().pd(), 0);
    let fixed = create(&table, physical(), &[]);
    assert_eq!(
        change(KERNEL, fixed, mask::LR, 0).unwrap_err(),
        UmrError::Disabled(fixed)
    );
    assert_eq!(
        change(KERNEL, 0xdead_beef, mask::LR, 0).unwrap_err(),
        UmrError::Unknown(0xdead_beef)
    );
}

#[test]
fn only_the_selected_fields_change() {
    let selections: [(u64, &[&str]); 17] = [
        (mask::LEN, &["len", "length64"]),
        (mask::PAGE_SIZE, &["log_page_size"]),
        (mask::PAGE_SIZE_5, &["log_page_size"]),
        (mask::START_ADDR, &["start_addr"]),
        (mask::PD, &["pd"]),
        (mask::EN_RINVAL, &["en_rinval"]),
        (mask::KEY, &["mkey_7_0"]),
        (mask::QPN, &["qpn"]),
        (mask::LR, &["lr"]),
        (mask::LW, &["lw"]),
        (mask::RR, &["rr"]),
        (mask::RW, &["rw"]),
        (mask::A, &["a"]),
        (mask::SMALL_FENCE, &["small_fence_on_rdma_read_response"]),
        (mask::RELAXED_ORDERING_WRITE, &["relaxed_ordering_write"]),
        (mask::RELAXED_ORDERING_READ, &["relaxed_ordering_read"]),
        (mask::FREE, &["free"]),
    ];
    let ones = Mkc::read_from_bytes(&[0xff; Mkc::SIZE]).unwrap();
    let registrar = UmrPoster {
        reg_umr: true,
        ..KERNEL
    };
    for (selected, names) in selections {
        let table = table();
        let mut before = Mkc::default();
        before.set_umr_en(true);
        let key = create(&table, before.clone(), &[]);
        umr(&table, registrar, key, &control(0, selected, 0), &ones, &[]).unwrap();
        let after = table.get(key >> VARIANT_BITS).unwrap().context();
        let value = |context: &Mkc, offset, width| mlx5_prm::layout::get(context.as_bytes(), offset, width);
        for field in Mkc::FIELDS {
            let (offset, width) = (field.offset, field.width);
            let expected = match selected {
                _ if !names.contains(&field.name) => value(&before, offset, width),
                mask::PAGE_SIZE => 0x1f,
                mask::PAGE_SIZE_5 => 0x20,
                _ => value(&ones, offset, width),
            };
            assert_eq!(
                value(&after, offset, width),
                expected,
                "{} selected by {selected:#x}",
                field.name
            );
        }
    }
}

#[test]
fn a_peer_invalidates_what_it_may() {
    let table = table();
    let mut context = physical();
    let firm = create(&table, context.clone(), &[]);
    context.set_en_rinval(true);
    let key = create(&table, context, &[]);
    assert_eq!(
        invalidate(&table, firm, ACCESSOR, true).unwrap_err(),
        MkeyError::Access(firm)
    );
    reach(&table, firm, 0, 1).unwrap();
    let stranger = Accessor { pd: PD + 1, ..ACCESSOR };
    assert_eq!(
        invalidate(&table, key, stranger, true).unwrap_err(),
        MkeyError::Domain(key)
    );
    assert_eq!(
        invalidate(&table, key, ACCESSOR, false).unwrap_err(),
        MkeyError::Access(key)
    );
    assert_eq!(
        invalidate(&table, key + 1, ACCESSOR, true).unwrap_err(),
        MkeyError::Unknown(key + 1)
    );
    invalidate(&table, key, ACCESSOR, true).unwrap();
    assert_eq!(reach(&table, key, 0, 1).unwrap_err(), MkeyError::Unknown(key));
    assert_eq!(
        invalidate(&table, key, ACCESSOR, true).unwrap_err(),
        MkeyError::Unknown(key)
    );
}

#[test]
fn the_control_segment_is_read_from_the_wqe() {
    let mut bytes = [0; 48];
    bytes[..8].copy_from_slice(&[0x90, 0, 0, 0, 0x12, 0x34, 0xab, 0xcd]);
    bytes[8..16].copy_from_slice(&(mask::PAGE_SIZE_5 | mask::LEN).to_be_bytes());
    bytes[16..20].copy_from_slice(&0x89ab_cdef_u32.to_be_bytes());
    let segment = UmrControlSegment::ref_from_bytes(&bytes).unwrap();
    let expected = UmrControl {
        flags: 0x90,
        mkey_mask: mask::PAGE_SIZE_5 | mask::LEN,
        xlt_octowords: 0x1234,
        xlt_offset: 0x89ab_cdef_abcd,
    };
    assert_eq!(UmrControl::from(segment), expected);
}
