//! Map of BAR 0, and the accesses that hit no register.
//!
//! ```text
//! 0x0000000  initialization segment
//! 0x0002000  MSI-X table         answered by the PCI function, which reports
//! 0x0003000  MSI-X pending bits  both places in its MSI-X capability
//! 0x0010000  UARs, a page each, up to the end
//! ```

use std::fmt::{Arguments, Display};
use std::ops::Range;
use std::sync::Arc;

use mlx5_prm::init_segment::InitSegment;

use crate::hca::nic_finding::{Finding, Findings, Object};
use crate::pci::{BAR_SIZE, MAX_VECTORS, MSIX_PBA, MSIX_TABLE};

/// Log2 of the size of a UAR in bytes.
const UAR_SHIFT: u32 = 12;
/// Page numbers of the UARs.
pub(super) const UAR_PAGES: Range<u32> = 16..(BAR_SIZE >> UAR_SHIFT) as u32;

/// The initialization segment.
const INIT_SEGMENT: Range<u64> = 0..size_of::<InitSegment>() as u64;
/// The UARs.
const UARS: Range<u64> = (UAR_PAGES.start as u64) << UAR_SHIFT..(UAR_PAGES.end as u64) << UAR_SHIFT;

// The regions are disjoint: 16 bytes per vector in the table, one bit in the pending bit array.
const _: () = assert!(INIT_SEGMENT.end <= MSIX_TABLE);
const _: () = assert!(MSIX_TABLE + MAX_VECTORS as u64 * 16 <= MSIX_PBA);
const _: () = assert!(MSIX_PBA + MAX_VECTORS as u64 / 8 <= UARS.start && UARS.end == BAR_SIZE);

/// The region that an access hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Region {
    InitSegment,
    Uar {
        page: u32,
        /// Offset within the page.
        offset: u64,
    },
    /// No region of the device.
    Hole,
}

impl Region {
    /// Returns the region at `offset` of the BAR.
    pub(super) fn at(offset: u64) -> Self {
        if UARS.contains(&offset) {
            Self::Uar {
                page: (offset >> UAR_SHIFT) as u32,
                offset: offset & ((1 << UAR_SHIFT) - 1),
            }
        } else if INIT_SEGMENT.contains(&offset) {
            Self::InitSegment
        } else {
            Self::Hole
        }
    }
}

/// Returns the BAR offset of a place in a UAR.
pub(super) fn uar_offset(page: u32, offset: u64) -> u64 {
    (u64::from(page) << UAR_SHIFT) + offset
}

/// Reports stray accesses and doorbells.
#[derive(Debug)]
pub(super) struct Strays {
    findings: Arc<Findings>,
}

impl Strays {
    pub(super) fn new(findings: Arc<Findings>) -> Self {
        Self { findings }
    }

    /// Reports a read at `offset` of the BAR that hits no register, or has the wrong width for it.
    pub(super) fn read(&self, offset: u64, length: usize) {
        self.access(offset, format_args!("read of {length} bytes"), &[]);
    }

    /// Reports a write of `data` at `offset` of the BAR that hits no register, or has the wrong width for it.
    pub(super) fn write(&self, offset: u64, data: &[u8]) {
        self.access(offset, format_args!("write of {} bytes", data.len()), data);
    }

    fn access(&self, offset: u64, access: impl Display, data: &[u8]) {
        let text = format_args!("{access} at BAR offset {offset:#x} hits no register");
        self.findings
            .report(Finding::StrayAccess, Object::new("bar_offset", offset), data, text);
    }

    /// Reports a doorbell for an object that does not exist.
    pub(super) fn doorbell(&self, object: Object, data: &[u8], text: Arguments<'_>) {
        self.findings.report(Finding::StrayDoorbell, object, data, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_end_where_the_next_begins() {
        for (offset, region) in [
            (0, Region::InitSegment),
            (0x1fff, Region::InitSegment),
            (0x2000, Region::Hole),
            (0xffff, Region::Hole),
            (0x1_0000, Region::Uar { page: 16, offset: 0 }),
            (
                0x1_1804,
                Region::Uar {
                    page: 17,
                    offset: 0x804,
                },
            ),
            (
                BAR_SIZE - 1,
                Region::Uar {
                    page: 4095,
                    offset: 0xfff,
                },
            ),
            (BAR_SIZE, Region::Hole),
            (u64::MAX, Region::Hole),
        ] {
            assert_eq!(Region::at(offset), region, "{offset:#x}");
            if let Region::Uar { page, offset: within } = region {
                assert_eq!(uar_offset(page, within), offset);
            }
        }
    }
}
