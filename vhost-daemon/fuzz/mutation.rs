//! Mutation of a record behind its compression, for the fuzz targets of both daemons.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// Fixed part of the header: magic, version, length of the configuration.
const PREAMBLE: usize = 16;
/// Maximum number of bytes of events.
const MAX_EVENTS: usize = 1 << 23;

/// Changes the events of a record in `data`, of which `size` bytes are in use; what is no record is changed as it is.
/// Returns the new size.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    change: impl Fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let Some((header, mut events)) = split(&data[..size]) else {
        return change(data, size, max_size);
    };
    let length = events.len();
    events.resize(length + length / 8 + 64, 0);
    let room = events.len();
    let length = change(&mut events, length, room);
    let mut encoder = GzEncoder::new(data[..header].to_vec(), Compression::fast());
    let packed = encoder.write_all(&events[..length]).and_then(|()| encoder.finish());
    match packed {
        Ok(packed) if packed.len() <= max_size => {
            data[..packed.len()].copy_from_slice(&packed);
            packed.len()
        }
        _ => size,
    }
}

/// Returns the length of the header, and the events.
fn split(record: &[u8]) -> Option<(usize, Vec<u8>)> {
    let setup = record.get(12..PREAMBLE)?.first_chunk().copied().map(u32::from_le_bytes)?;
    let header = PREAMBLE.checked_add(setup as usize)?;
    let mut events = Vec::new();
    let mut decoder = GzDecoder::new(record.get(header..)?).take(MAX_EVENTS as u64);
    decoder.read_to_end(&mut events).ok()?;
    Some((header, events))
}
