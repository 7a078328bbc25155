//! Model of indirect memory keys: translation of a range of a key to bytes of regions.

use std::collections::HashMap;
use std::ops::Range;

/// Indirect keys between a key and memory (`max_indirection` of the capabilities).
const MAX_INDIRECTION: u32 = 4;
/// Ranges passed in a translation, from which on a device may refuse it.
const MANY_STEPS: u32 = 200;

/// A range of another key, in a translation list.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Key.
    pub key: u32,
    /// First address of the range.
    pub address: u64,
    /// Bytes.
    pub length: u64,
}

/// Address translation of a key.
#[derive(Debug)]
pub enum Translation {
    /// A region, by its index.
    Region(usize),
    /// Ranges of other keys, one after the other.
    List(Vec<Entry>),
}

/// A key.
#[derive(Debug)]
pub struct Key {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// Address translation.
    pub translation: Translation,
}

/// Bytes of a region: its index and their offsets.
pub type Piece = (usize, Range<u64>);

/// Result of a translation.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The range names these bytes.
    Allowed,
    /// The range is not of the key, or names what does not exist.
    Refused,
    /// So many ranges are passed that the device may refuse to.
    Either,
}

/// Translates a range of a key. The pieces that precede one that is refused are returned, too.
pub fn translate(keys: &HashMap<u32, Key>, key: u32, address: u64, length: u64) -> (Outcome, Vec<Piece>) {
    let mut walk = Walk {
        keys,
        steps: 0,
        pieces: Vec::new(),
    };
    let allowed = walk.range(key, address, length, MAX_INDIRECTION).is_some();
    let outcome = match allowed {
        true if walk.steps > MANY_STEPS => Outcome::Either,
        true => Outcome::Allowed,
        false => Outcome::Refused,
    };
    (outcome, walk.pieces)
}

struct Walk<'a> {
    keys: &'a HashMap<u32, Key>,
    steps: u32,
    pieces: Vec<Piece>,
}

impl Walk<'_> {
    fn range(&mut self, key: u32, address: u64, length: u64, indirection: u32) -> Option<()> {
        if length == 0 {
            return Some(());
        }
        let key = self.keys.get(&key)?;
        // No range wraps around the address space, wherever its key ends.
        address.checked_add(length - 1)?;
        let offset = address.checked_sub(key.start)?;
        if offset.checked_add(length)? > key.length {
            return None;
        }
        let entries = match &key.translation {
            Translation::Region(index) => {
                self.pieces.push((*index, offset..offset + length));
                return Some(());
            }
            Translation::List(entries) => entries,
        };
        let indirection = indirection.checked_sub(1)?;
        let (mut skip, mut rest) = (offset, length);
        for entry in entries {
            if rest == 0 {
                break;
            }
            if skip >= entry.length {
                skip -= entry.length;
                continue;
            }
            let now = rest.min(entry.length - skip);
            self.steps += 1;
            self.range(entry.key, entry.address.checked_add(skip)?, now, indirection)?;
            (skip, rest) = (0, rest - now);
        }
        (rest == 0).then_some(())
    }
}
