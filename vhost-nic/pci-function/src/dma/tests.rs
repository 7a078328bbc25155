use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};

use super::{Backing, DmaError, GuestMap, MAX_REGIONS};

crate::purposes! {
    enum Purpose {
        Gather = "gather",
        Scatter = "scatter",
        Cqe = "cqe",
        DoorbellRecord = "doorbell_record",
    }
}

type Dma = super::Dma<Purpose>;

fn memory(length: u64) -> File {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(length).unwrap();
    file
}

fn backing(file: &File, offset: u64, writable: bool) -> Option<Backing> {
    Some(Backing {
        file: file.try_clone().unwrap(),
        offset,
        writable,
    })
}

#[test]
fn data_reaches_the_file_across_two_mappings() {
    let file = memory(0x4000);
    let dma = Dma::new();
    // The two halves of the file, swapped, next to each other.
    dma.map(0x10000, 0x2000, backing(&file, 0x2000, true)).unwrap();
    dma.map(0x12000, 0x2000, backing(&file, 0, true)).unwrap();
    let data: Vec<u8> = (0..0x100u32).map(|n| n as u8).collect();
    dma.write(Purpose::Scatter, 0x12000 - 0x80, &data).unwrap();
    let mut halves = [[0; 0x80]; 2];
    file.read_exact_at(&mut halves[0], 0x4000 - 0x80).unwrap();
    file.read_exact_at(&mut halves[1], 0).unwrap();
    assert_eq!(halves.concat(), data);
    let mut back = vec![0; 0x100];
    dma.read(Purpose::Gather, 0x12000 - 0x80, &mut back).unwrap();
    assert_eq!(back, data);
    assert_eq!(dma.stats_of(Purpose::Gather).bytes, 0x100);
}

#[test]
fn an_access_that_is_partly_outside_moves_nothing() {
    let file = memory(0x1000);
    let dma = Dma::new();
    dma.map(0x1000, 0x1000, backing(&file, 0, true)).unwrap();
    assert!(matches!(
        dma.write(Purpose::Scatter, 0x1fff, &[1, 2]),
        Err(DmaError::Unmapped { .. })
    ));
    let mut last = [7];
    dma.read(Purpose::Gather, 0x1fff, &mut last).unwrap();
    assert_eq!(last, [0]);
    assert!(dma.read(Purpose::Gather, 0xfff, &mut [0; 2]).is_err());
    assert!(dma.read(Purpose::Gather, u64::MAX, &mut [0; 2]).is_err());
    assert_eq!(dma.stats_of(Purpose::Scatter).failures, 1);
}

#[test]
fn memory_without_a_file_is_known_but_out_of_reach() {
    let dma = Dma::new();
    dma.map(0x1000, 0x1000, None).unwrap();
    assert!(matches!(
        dma.read(Purpose::Gather, 0x1000, &mut [0]),
        Err(DmaError::Unreachable { .. })
    ));
}

#[test]
fn read_only_memory_stays_as_it_is() {
    let file = memory(0x1000);
    let dma = Dma::new();
    dma.map(0, 0x1000, backing(&file, 0, false)).unwrap();
    assert!(matches!(
        dma.write(Purpose::Scatter, 0, &[1]),
        Err(DmaError::ReadOnly { .. })
    ));
    dma.read(Purpose::Gather, 0, &mut [0]).unwrap();
}

#[test]
fn a_hole_can_be_cut_into_a_mapping() {
    let file = memory(0x4000);
    file.write_all_at(&[1, 2, 3], 0x3000).unwrap();
    let dma = Dma::new();
    dma.map(0, 0x4000, backing(&file, 0, true)).unwrap();
    assert!(matches!(dma.map(0x1000, 0x1000, None), Err(DmaError::Overlap { .. })));
    dma.unmap(0x1000, 0x2000).unwrap();
    assert!(dma.read(Purpose::Gather, 0x1000, &mut [0]).is_err());
    assert!(dma.read(Purpose::Gather, 0x2fff, &mut [0]).is_err());
    dma.read(Purpose::Gather, 0xfff, &mut [0]).unwrap();
    let mut tail = [0; 3];
    dma.read(Purpose::Gather, 0x3000, &mut tail).unwrap();
    assert_eq!(tail, [1, 2, 3]);
    dma.map(0x1000, 0x1000, None).unwrap();
    dma.unmap_all();
    assert!(dma.read(Purpose::Gather, 0, &mut [0]).is_err());
}

#[test]
fn integers_keep_the_order_of_their_bytes() {
    let file = memory(0x1000);
    let dma = Dma::new();
    dma.map(0, 0x1000, backing(&file, 0, true)).unwrap();
    dma.store(Purpose::Cqe, 8, 0x0102_0304_u32.to_be()).unwrap();
    let mut bytes = [0; 4];
    dma.read(Purpose::Cqe, 8, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 3, 4]);
    assert_eq!(u32::from_be(dma.load(Purpose::DoorbellRecord, 8).unwrap()), 0x0102_0304);
    assert!(matches!(
        dma.load::<u32>(Purpose::DoorbellRecord, 9),
        Err(DmaError::Misaligned { .. })
    ));
}

#[test]
fn impossible_ranges_are_refused() {
    let dma = Dma::new();
    assert!(dma.map(u64::MAX, 2, None).is_err());
    assert!(dma.map(0, 0, None).is_err());
    assert!(dma.unmap(u64::MAX, 2).is_err());
    dma.unmap(0, u64::MAX).unwrap();
}

#[test]
fn data_goes_from_guest_to_guest_across_mappings_on_both_sides() {
    let (from_file, to_file) = (memory(0x3000), memory(0x3000));
    let data: Vec<u8> = (0..0x3000u32).map(|n| (n * 7) as u8).collect();
    from_file.write_all_at(&data, 0).unwrap();
    let (from, to) = (Dma::new(), Dma::new());
    from.map(0, 0x1000, backing(&from_file, 0, true)).unwrap();
    from.map(0x1000, 0x2000, backing(&from_file, 0x1000, false)).unwrap();
    to.map(0x8000, 0x2000, backing(&to_file, 0, true)).unwrap();
    to.map(0xa000, 0x1000, backing(&to_file, 0x2000, true)).unwrap();
    to.hold(Purpose::Scatter)
        .copy_from(0x8100, &mut from.hold(Purpose::Gather), 0x80, 0x2e00)
        .unwrap();
    let mut back = vec![0; 0x2e00];
    to_file.read_exact_at(&mut back, 0x100).unwrap();
    assert_eq!(back, data[0x80..0x2e80]);
    assert!(
        to.hold(Purpose::Scatter)
            .copy_from(0xaff0, &mut from.hold(Purpose::Gather), 0, 0x20)
            .is_err()
    );
    assert!(
        to.hold(Purpose::Scatter)
            .copy_from(0x8000, &mut from.hold(Purpose::Gather), 0x2ff0, 0x20)
            .is_err()
    );
    to.hold(Purpose::Scatter)
        .copy_from(0x8000, &mut to.hold(Purpose::Gather), 0x9000, 0x800)
        .unwrap();
}

#[test]
fn a_file_that_is_too_short_is_refused() {
    let file = memory(0x1000);
    assert!(matches!(
        Dma::new().map(0, 0x2000, backing(&file, 0, true)),
        Err(DmaError::Map { .. })
    ));
    assert!(matches!(
        Dma::new().map(0, 0x1000, backing(&file, 0x1000, true)),
        Err(DmaError::Map { .. })
    ));
}

/// Behind a virtual IOMMU each page may be a mapping of its own.
#[test]
fn pages_of_one_file_share_a_mapping_and_no_descriptor() {
    const PAGE: u64 = 0x1000;
    let pages = MAX_REGIONS as u64;
    let file = memory((pages + 1) * PAGE);
    file.write_all_at(&[1, 2, 3, 4], (pages - 1) * PAGE - 2).unwrap();
    let dma = Dma::new();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = || {
        std::fs::read_to_string("/proc/self/maps")
            .unwrap()
            .matches("memfd:guest")
            .count()
    };
    let none = maps();
    dma.map((pages - 1) * PAGE, PAGE, backing(&file, (pages - 1) * PAGE, true))
        .unwrap();
    let one = (descriptors(), maps());
    assert_eq!(one.1, none + 1);
    // Downwards, as Linux allocates addresses.
    for page in (0..pages - 1).rev() {
        dma.map(page * PAGE, PAGE, backing(&file, page * PAGE, true)).unwrap();
    }
    assert_eq!((descriptors(), maps()), one);
    let mut back = [0; 4];
    dma.read(Purpose::Gather, (pages - 1) * PAGE - 2, &mut back).unwrap();
    assert_eq!(back, [1, 2, 3, 4]);
    let limit = dma.map(pages * PAGE, PAGE, backing(&file, pages * PAGE, true));
    assert!(matches!(limit, Err(DmaError::Limit { .. })));
    assert!(matches!(dma.unmap(PAGE + 8, 8), Err(DmaError::Limit { .. })));
    dma.unmap(PAGE, PAGE).unwrap();
    dma.map(PAGE, PAGE, None).unwrap();
    for page in (0..pages).step_by(2) {
        dma.unmap(page * PAGE, PAGE).unwrap();
    }
    assert!(dma.read(Purpose::Gather, 2 * PAGE, &mut [0]).is_err());
    dma.read(Purpose::Gather, 3 * PAGE, &mut [0]).unwrap();
    dma.unmap(0, u64::MAX).unwrap();
    assert_eq!(maps(), none);
}

#[test]
fn a_guest_maps_no_more_than_it_may() {
    let (small, large) = (memory(0x8000), memory(1 << 46));
    let dma = Dma::new();
    dma.set_max_bytes(0x10_0000);
    dma.map(0, 0x1000, backing(&small, 0x1000, true)).unwrap();
    assert!(matches!(
        dma.map(1 << 40, 1 << 46, backing(&large, 0, true)),
        Err(DmaError::Map { .. })
    ));
    // Not the whole file, but this part.
    dma.map(0x10_0000, 0xf_0000, backing(&large, 1 << 40, true)).unwrap();
    assert!(matches!(
        dma.map(0x20_0000, 0x1_0000, backing(&large, 0, true)),
        Err(DmaError::Map { .. })
    ));
    dma.map(0x20_0000, 0x7000, backing(&small, 0x1000, true)).unwrap();
    dma.unmap(0x10_0000, 0x10_0000).unwrap();
    dma.map(0x10_0000, 0x1_0000, backing(&large, 0, true)).unwrap();
}

#[test]
fn a_file_for_reading_is_not_mapped_for_writing() {
    let file = memory(0x1000);
    let read_only = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap();
    let dma = Dma::new();
    dma.map(0, 0x1000, backing(&file, 0, true)).unwrap();
    assert!(matches!(
        dma.map(0x1000, 0x1000, backing(&read_only, 0, true)),
        Err(DmaError::Map { .. })
    ));
    dma.map(0x1000, 0x1000, backing(&read_only, 0, false)).unwrap();
}
