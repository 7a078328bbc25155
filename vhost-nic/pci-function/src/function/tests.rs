use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::msix::{Delivery, MsixMessage};

/// The device of these tests accesses no memory.
#[derive(Clone, Copy)]
struct NoPurpose;

impl Purpose for NoPurpose {
    const NAMES: &'static [&'static str] = &["none"];

    fn index(self) -> usize {
        0
    }
}

type FunctionParts = super::FunctionParts<NoPurpose>;

const BAR_SIZE: u64 = 16 << 20;
const MSIX_TABLE: u64 = 0x2000;
const MSIX_PBA: u64 = 0x3000;
/// Maximum number of vectors: their table ends where the pending bits begin.
const MOST_VECTORS: u16 = 256;

/// A device of plain memory, which a reset clears.
struct Memory(Mutex<Vec<u8>>);

impl Device for Memory {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let offset = offset as usize;
        data.copy_from_slice(&self.0.lock()[offset..offset + data.len()]);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let offset = offset as usize;
        self.0.lock()[offset..offset + data.len()].copy_from_slice(data);
    }

    fn reset(&self) {
        self.0.lock().fill(0);
    }
}

struct Line(Mutex<Vec<(u16, MsixMessage)>>);

impl InterruptLines for Line {
    fn deliver(&self, vector: u16, message: MsixMessage) -> Delivery {
        self.0.lock().push((vector, message));
        Delivery::Done
    }
}

fn function(vectors: u16) -> (PciFunction, FunctionParts) {
    let parts = FunctionParts::new(vectors);
    let spec = FunctionSpec {
        vendor_id: 0x1234,
        device_id: 0x5678,
        subsystem_vendor_id: 0x1234,
        subsystem_id: 0x5678,
        class_code: 0xff_00_00,
        bar: BarLayout {
            size: BAR_SIZE,
            msix_table: MSIX_TABLE,
            msix_pba: MSIX_PBA,
        },
        serial_number: None,
        vital_product_data: None,
        vendor_specific: None,
    };
    let device = Arc::new(Memory(Mutex::new(vec![0; BAR_SIZE as usize])));
    (PciFunction::new(spec, parts.clone(), device), parts)
}

fn enabled(vectors: u16) -> (PciFunction, FunctionParts) {
    let (function, parts) = function(vectors);
    function.config_write(4, &[6, 0]);
    (function, parts)
}

fn bar(function: &PciFunction, offset: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0xee; length];
    function.bar_read(0, offset, &mut data);
    data
}

#[test]
fn a_guest_that_masks_by_the_table_gets_its_interrupt_once_it_unmasks() {
    let (function, parts) = enabled(32);
    let line = Arc::new(Line(Mutex::default()));
    function.connect(line.clone(), Masking::Function);
    function.config_write(0x9e, &[0, 0x80]);
    parts.msix.raise(9);
    assert_eq!(bar(&function, 0x3000, 8), [0, 2, 0, 0, 0, 0, 0, 0]);
    function.bar_write(0, 0x2090, &0x000a_0000_u64.to_le_bytes());
    function.bar_write(0, 0x2098, &[77, 0, 0, 0]);
    assert!(line.0.lock().is_empty());
    function.bar_write(0, 0x209c, &[0, 0, 0, 0]);
    let message = MsixMessage {
        address: 0xa_0000,
        data: 77,
    };
    assert_eq!(*line.0.lock(), [(9, message)]);
    assert_eq!(bar(&function, 0x3000, 8), [0; 8]);
}

#[test]
fn an_access_across_the_edges_of_the_table_is_split() {
    let (function, _) = enabled(32);
    function.bar_write(0, 0x1ffc, &[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(bar(&function, 0x1ffc, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(
        bar(&function, 0x2000, 16),
        [5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    );
    // The last entry's Vector Control, then the device.
    function.bar_write(0, 0x21fc, &[0xff; 8]);
    assert_eq!(bar(&function, 0x21fc, 8), [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    // The pending bits are read-only, the bytes beside them are not.
    function.bar_write(0, 0x2ffc, &[0xff; 16]);
    assert_eq!(
        bar(&function, 0x2ffc, 16),
        [[0xff; 4], [0; 4], [0; 4], [0xff; 4]].concat()
    );
}

#[test]
fn the_largest_table_ends_where_the_pending_bits_begin() {
    let (function, parts) = enabled(MOST_VECTORS);
    assert_eq!(MSIX_TABLE + parts.msix.table_size(), MSIX_PBA);
    assert_eq!(bar(&function, MSIX_PBA - 4, 4), [1, 0, 0, 0]);
    function.bar_write(0, 0x3020, &[5]);
    assert_eq!(bar(&function, 0x301f, 2), [0, 5]);
}

#[test]
#[should_panic(expected = "for 257 vectors")]
fn a_table_that_reaches_into_the_pending_bits_is_refused() {
    function(MOST_VECTORS + 1);
}

#[test]
fn what_is_outside_reads_as_ones_and_is_counted() {
    let (function, _) = enabled(32);
    for (number, offset, length) in [
        (0, BAR_SIZE, 1),
        (0, BAR_SIZE - 1, 2),
        (0, u64::MAX, 8),
        (1, 0, 4),
        (6, 0, 4),
    ] {
        let mut data = vec![0; length];
        function.bar_read(number, offset, &mut data);
        assert_eq!(data, vec![0xff; length]);
        function.bar_write(number, offset, &data);
    }
    let mut data = [0; 4];
    function.config_read(4094, &mut data);
    assert_eq!(data, [0xff; 4]);
    function.config_write(u64::MAX, &data);
    assert_eq!(function.stats().accesses_outside, 12);
    assert_eq!(bar(&function, BAR_SIZE - 2, 2), [0, 0]);
}

#[test]
fn a_bar_that_is_not_enabled_reads_as_ones_and_takes_nothing() {
    let (function, _) = function(32);
    function.bar_write(0, 0, &[1]);
    assert_eq!(bar(&function, 0, 2), [0xff, 0xff]);
    assert_eq!(function.stats().accesses_while_disabled, 2);
    function.config_write(4, &[2, 0]);
    assert_eq!(bar(&function, 0, 2), [0, 0]);
}

#[test]
fn the_device_sees_whether_it_may_access_memory() {
    let (function, parts) = function(32);
    assert!(!parts.bus_master.enabled());
    function.config_write(4, &[4, 0]);
    assert!(parts.bus_master.enabled());
    function.config_write(0x44, &[3]);
    assert!(!parts.bus_master.enabled());
    function.config_write(0x44, &[0]);
    assert!(parts.bus_master.enabled());
    function.reset();
    assert!(!parts.bus_master.enabled());
}

#[test]
fn a_function_level_reset_resets_the_device_and_masks_its_interrupts() {
    let (function, parts) = enabled(32);
    let line = Arc::new(Line(Mutex::default()));
    function.connect(line.clone(), Masking::Function);
    function.config_write(0x9e, &[0, 0x80]);
    function.bar_write(0, 0x200c, &[0]);
    function.bar_write(0, 0x10_0000, &[1, 2, 3]);
    function.config_write(0x68, &[0x10, 0xa8]);
    assert_eq!(function.stats().resets, 1);
    parts.msix.raise(0);
    assert!(line.0.lock().is_empty(), "MSI-X is off");
    let mut command = [0; 2];
    function.config_read(4, &mut command);
    assert_eq!(command, [0, 0]);
    function.config_write(4, &[2, 0]);
    assert_eq!(bar(&function, 0x10_0000, 3), [0, 0, 0]);
    assert_eq!(bar(&function, 0x200c, 4), [1, 0, 0, 0]);
}

#[test]
fn a_reset_keeps_the_attachments_mappings_and_lines() {
    let (function, parts) = enabled(32);
    parts.dma.map(0x1000, 0x1000, None).unwrap();
    let line = Arc::new(Line(Mutex::default()));
    function.connect(line.clone(), Masking::Attachment);
    function.reset();
    parts.msix.raise(3);
    assert_eq!(line.0.lock().len(), 1);
    assert!(
        parts.dma.map(0x1800, 0x1000, None).is_err(),
        "it overlaps what is mapped"
    );
    function.disconnect();
    assert_eq!(Arc::strong_count(&line), 1);
}

/// Offsets near the edges of table, pending bits and BAR, and anywhere.
fn offsets() -> impl Strategy<Value = u64> {
    prop_oneof![
        0x1fe0_u64..0x2010,
        0x21f0_u64..0x2210,
        0x2ff0_u64..0x3010,
        BAR_SIZE - 64..BAR_SIZE + 64,
        any::<u64>(),
    ]
}

const TABLE: Range<u64> = 0x2000..0x2200;
const PBA: Range<u64> = 0x3000..0x3008;

proptest! {
    #[test]
    fn an_access_of_any_width_reads_what_bytes_would(
        offset in offsets(),
        data in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let (function, _) = enabled(32);
        function.bar_write(0, offset, &data);
        let read = bar(&function, offset, data.len());
        let inside = offset.checked_add(data.len() as u64).is_some_and(|end| end <= BAR_SIZE);
        for (at, byte) in data.iter().enumerate() {
            let place = offset.wrapping_add(at as u64);
            let expected = match place {
                _ if !inside => 0xff,
                _ if PBA.contains(&place) => 0,
                _ if TABLE.contains(&place) && place % 16 == 12 => byte & 1,
                _ if TABLE.contains(&place) && place % 16 > 12 => 0,
                _ => *byte,
            };
            prop_assert_eq!(read[at], expected, "{:#x}", place);
            if inside {
                prop_assert_eq!(bar(&function, place, 1)[0], expected);
            }
        }
    }
}
