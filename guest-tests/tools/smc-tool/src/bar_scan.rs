//! Scans the whole BAR of a PCI device.
//!
//! The scan takes a while and is no snapshot: QEMU's emulation needs some 0.4 µs for each eight bytes where nothing is
//! mapped into the BAR, 12 s for 256 MiB. Data to be found must stay in place for that long.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::mm::{MapFlags, ProtFlags};
use serde::Serialize;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

/// PCI vendor ID of virtio devices, as in sysfs.
const VIRTIO_VENDOR: &str = "0x1af4";
/// PCI device ID of a modern virtio-ism device: 0x1040 + 37.
const VIRTIO_ISM_DEVICE: &str = "0x1065";

/// Page size of the scan and of the page count.
const PAGE: usize = 4096;
/// Maximum number of reported offsets.
const REPORTED: usize = 1000;

/// Options of a scan.
#[derive(Debug, Clone, clap::Args)]
pub struct BarScanOptions {
    /// PCI address such as 0000:00:04.0, or `auto` for the only virtio-ism device
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Number of the BAR
    #[arg(long, default_value_t = 4)]
    pub resource: u8,
    /// Bytes to search for, in hexadecimal
    #[arg(long, value_parser = bytes_of_hex)]
    pub pattern: Option<Needle>,
}

/// Bytes to search for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needle(Vec<u8>);

fn bytes_of_hex(text: &str) -> Result<Needle, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let bytes: Option<Vec<u8>> = (0..digits.len())
        .step_by(2)
        .map(|start| {
            digits
                .get(start..start + 2)
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
        })
        .collect();
    bytes
        .filter(|bytes| !bytes.is_empty())
        .map(Needle)
        .ok_or_else(|| format!("`{text}` is not an even number of hexadecimal digits"))
}

/// The BAR cannot be scanned.
#[derive(Debug, thiserror::Error)]
pub enum BarScanError {
    /// No device, or more than one.
    #[error("{0} virtio-ism devices under {1}: name one with --device")]
    NotOne(usize, &'static str),
    /// An operation on a file in sysfs failed.
    #[error("cannot {operation} {}", .path.display())]
    File {
        /// The failed operation, a verb.
        operation: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Error of the system call.
        source: io::Error,
    },
    /// The BAR is empty or not a whole number of pages.
    #[error("{} has {size} bytes", .path.display())]
    Size {
        /// Path of the file.
        path: PathBuf,
        /// Size of the file in bytes.
        size: u64,
    },
}

/// Result of a scan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BarScanReport {
    /// File of the BAR in sysfs.
    pub path: PathBuf,
    /// Size of the BAR in bytes; all of them were read.
    pub bytes: u64,
    /// Duration of the scan.
    pub seconds: f64,
    /// Number of 4 KiB pages with a non-zero byte.
    pub nonzero_pages: u64,
    /// Number of occurrences of the pattern, overlapping ones included.
    pub matches: u64,
    /// Offsets of the first 1000 occurrences.
    pub offsets: Vec<u64>,
}

const DEVICES: &str = "/sys/bus/pci/devices";

/// Scans the BAR of a device.
///
/// # Errors
///
/// Fails when the device is missing or the BAR cannot be mapped.
pub fn bar_scan(options: &BarScanOptions) -> Result<BarScanReport, BarScanError> {
    let device = match options.device.as_str() {
        "auto" => find_device(Path::new(DEVICES))?,
        address => Path::new(DEVICES).join(address),
    };
    let path = device.join(format!("resource{}", options.resource));
    scan_file(&path, options.pattern.as_ref())
}

fn find_device(devices: &Path) -> Result<PathBuf, BarScanError> {
    let failed = |source| BarScanError::File {
        operation: "list",
        path: devices.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in devices.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is = |file: &str, value: &str| {
            std::fs::read_to_string(path.join(file)).is_ok_and(|content| content.trim() == value)
        };
        if is("vendor", VIRTIO_VENDOR) && is("device", VIRTIO_ISM_DEVICE) {
            found.push(path);
        }
    }
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) => Err(BarScanError::NotOne(found.len(), DEVICES)),
    }
}

fn scan_file(path: &Path, needle: Option<&Needle>) -> Result<BarScanReport, BarScanError> {
    let failed = |operation| {
        move |source| BarScanError::File {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    let file = File::open(path).map_err(failed("open"))?;
    let bytes = file.metadata().map_err(failed("stat"))?.len();
    let length = usize::try_from(bytes)
        .ok()
        .filter(|&length| length > 0 && length.is_multiple_of(PAGE))
        .ok_or_else(|| BarScanError::Size {
            path: path.to_owned(),
            size: bytes,
        })?;
    let start_time = Instant::now();
    let bar = map(file, length).map_err(failed("map"))?;
    let mut finder = Finder::new(needle);
    let mut nonzero_pages = 0;
    let mut page = [0; PAGE];
    for start in (0..length).step_by(PAGE) {
        read_page(&bar, start, &mut page).map_err(failed("read"))?;
        nonzero_pages += u64::from(page.iter().any(|&byte| byte != 0));
        finder.feed(&page);
    }
    Ok(BarScanReport {
        path: path.to_owned(),
        bytes,
        seconds: start_time.elapsed().as_secs_f64(),
        nonzero_pages,
        matches: finder.matches,
        offsets: finder.offsets,
    })
}

/// Maps a BAR for reading.
fn map(file: File, length: usize) -> io::Result<MmapRegion> {
    let protection = ProtFlags::READ.bits().cast_signed();
    let flags = MapFlags::SHARED.bits().cast_signed();
    MmapRegion::build(Some(FileOffset::new(file, 0)), length, protection, flags).map_err(|error| match error {
        MmapRegionError::Mmap(source) => source,
        other => io::Error::other(other),
    })
}

/// Reads the page at `offset` in atomic loads of eight bytes: each is one access to the device, and others may write
/// there at the same time.
fn read_page(bar: &MmapRegion, offset: usize, page: &mut [u8; PAGE]) -> io::Result<()> {
    for (word, chunk) in (offset..).step_by(8).zip(page.as_chunks_mut::<8>().0) {
        let word = bar.get_atomic_ref::<AtomicU64>(word).map_err(io::Error::other)?;
        *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
    }
    Ok(())
}

/// Finds a pattern in consecutive pages, including matches that span their boundaries.
struct Finder<'a> {
    needle: &'a [u8],
    /// Tail of the previous pages, one byte shorter than the pattern, followed by the current page.
    buffer: Vec<u8>,
    /// Offset of `buffer` in the BAR.
    offset: u64,
    matches: u64,
    offsets: Vec<u64>,
}

impl<'a> Finder<'a> {
    fn new(needle: Option<&'a Needle>) -> Self {
        let needle = needle.map_or(&[][..], |needle| &needle.0);
        Self {
            needle,
            buffer: Vec::new(),
            offset: 0,
            matches: 0,
            offsets: Vec::new(),
        }
    }

    fn feed(&mut self, page: &[u8]) {
        let Some(&first) = self.needle.first() else { return };
        self.buffer.extend_from_slice(page);
        let places = (self.buffer.len() + 1).saturating_sub(self.needle.len());
        // Most of a BAR is zeros: only a pattern of zeros can match there.
        let possible = self.buffer.iter().any(|&byte| byte != 0) || self.needle.iter().all(|&byte| byte == 0);
        if possible {
            self.search(first, places);
        }
        self.buffer.drain(..places);
        self.offset += places as u64;
    }

    /// Compares the pattern at the first `places` positions of the buffer.
    fn search(&mut self, first: u8, places: usize) {
        for place in 0..places {
            if self.buffer[place] == first && self.buffer[place..].starts_with(self.needle) {
                self.matches += 1;
                if self.offsets.len() < REPORTED {
                    self.offsets.push(self.offset + place as u64);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn file_is_looked_through() {
        let mut content = vec![0; 4 * PAGE];
        content[10..14].copy_from_slice(b"\xde\xad\xbe\xef");
        content[2 * PAGE - 2..2 * PAGE + 2].copy_from_slice(b"\xde\xad\xbe\xef");
        content[4 * PAGE - 4..].copy_from_slice(b"\xde\xad\xbe\xef");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&content).unwrap();
        let report = scan_file(file.path(), Some(&bytes_of_hex("deadbeef").unwrap())).unwrap();
        assert_eq!(
            (report.bytes, report.nonzero_pages, report.matches),
            (4 * PAGE as u64, 4, 3)
        );
        assert_eq!(report.offsets, [10, 2 * PAGE as u64 - 2, 4 * PAGE as u64 - 4]);
        let report = scan_file(file.path(), None).unwrap();
        assert_eq!((report.nonzero_pages, report.matches), (4, 0));
    }

    #[test]
    fn zeros_can_be_looked_for() {
        let needle = Needle(vec![0, 0]);
        let mut finder = Finder::new(Some(&needle));
        finder.feed(&[0, 0, 0, 1]);
        finder.feed(&[0, 0]);
        assert_eq!(finder.offsets, [0, 1, 4]);
    }

    #[test]
    fn overlapping_matches_count() {
        let needle = Needle(b"aa".to_vec());
        let mut finder = Finder::new(Some(&needle));
        finder.feed(b"aa");
        finder.feed(b"a");
        assert_eq!(finder.offsets, [0, 1]);
    }

    #[test]
    fn hexadecimal_is_read() {
        assert_eq!(bytes_of_hex("0x00fF").unwrap(), Needle(vec![0, 255]));
        for text in ["", "0x", "abc", "zz"] {
            assert!(bytes_of_hex(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_only_device_is_found() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(find_device(directory.path()), Err(BarScanError::NotOne(0, _))));
        for (name, device) in [("0000:00:03.0", "0x1041\n"), ("0000:00:04.0", "0x1065\n")] {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("vendor"), "0x1af4\n").unwrap();
            std::fs::write(path.join("device"), device).unwrap();
        }
        assert!(find_device(directory.path()).unwrap().ends_with("0000:00:04.0"));
    }
}
