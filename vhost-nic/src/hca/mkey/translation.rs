//! Lists of translations.

use mlx5_prm::mkey::Mkc;

use super::context::{AccessMode, access_mode};
use super::{InvalidMkey, OCTWORD};

/// Permissions in the lowest bits of an MTT (`MLX5_MTT_PERM_*`, mlx5_ifc.h).
pub(super) const MTT_READ: u64 = 1 << 0;
pub(super) const MTT_WRITE: u64 = 1 << 1;
/// Bits of an MTT that are no address.
pub(super) const MTT_FLAGS: u64 = 0x7;
/// Octwords that a list of MTTs may have: 128 GiB in pages of 4 KiB.
const MAX_MTT_OCTWORDS: usize = 1 << 24;
/// Octwords that a list of other keys may have: 2^`log_max_klm_list_size` of the capabilities.
const MAX_KLM_OCTWORDS: usize = 1 << 16;
/// Lists are updated in units of 64 bytes (`MLX5_UMR_FLEX_ALIGNMENT`, device.h), so that the last update of a list may go beyond its end.
const UPDATE_OCTWORDS: usize = 4;

/// A range of another key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Klm {
    pub(super) byte_count: u32,
    pub(super) key: u32,
    pub(super) address: u64,
}

impl Klm {
    /// `struct mlx5_klm`, and `struct mlx5_ksm`, whose first field is reserved (qp.h).
    fn from_bytes(bytes: [u8; OCTWORD]) -> Self {
        let fields = u128::from_be_bytes(bytes);
        Self {
            byte_count: (fields >> 96) as u32,
            key: (fields >> 64) as u32,
            address: fields as u64,
        }
    }

    fn to_bytes(self) -> [u8; OCTWORD] {
        (u128::from(self.byte_count) << 96 | u128::from(self.key) << 64 | u128::from(self.address)).to_be_bytes()
    }
}

/// How a key gets from its bytes to those of the guest's memory or of other keys. What a list does not say is not there.
#[derive(Debug)]
pub(super) enum Translations {
    Physical,
    Mtt {
        pages: Vec<u64>,
        capacity: usize,
    },
    Klm {
        ranges: Vec<Klm>,
        /// Where each range ends, in bytes from the start of the key.
        ends: Vec<u64>,
        capacity: usize,
    },
    Ksm {
        blocks: Vec<Klm>,
        capacity: usize,
    },
}

/// A list does not fit in the room that its key was made with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Translations {
    /// The list of a new key. Its room is counted in octwords until it is used: a key with much room costs nothing.
    pub(super) fn new(context: &Mkc, bytes: &[u8]) -> Result<Self, InvalidMkey> {
        let mode = access_mode(context).ok_or(InvalidMkey::Mode)?;
        let capacity = (context.translations_octword_size() as usize).max(bytes.len() / OCTWORD);
        let limit = if mode == AccessMode::Mtt {
            MAX_MTT_OCTWORDS
        } else {
            MAX_KLM_OCTWORDS
        };
        if capacity > limit {
            return Err(InvalidMkey::Length);
        }
        let capacity = capacity.next_multiple_of(UPDATE_OCTWORDS);
        let mut translations = match mode {
            AccessMode::Physical => Self::Physical,
            AccessMode::Mtt => Self::Mtt {
                pages: Vec::new(),
                capacity,
            },
            AccessMode::Klm => Self::Klm {
                ranges: Vec::new(),
                ends: Vec::new(),
                capacity,
            },
            AccessMode::Ksm => Self::Ksm {
                blocks: Vec::new(),
                capacity,
            },
        };
        translations.replace(bytes).map_err(|TooLong| InvalidMkey::Length)?;
        if let Self::Mtt { pages, .. } = &mut translations {
            // Only with `pg_access`, which is for paging on demand, do the entries of the command have permissions.
            pages.iter_mut().for_each(|page| *page |= MTT_READ | MTT_WRITE);
        }
        Ok(translations)
    }

    /// Whether it names guest memory itself, rather than keys that do.
    pub(super) fn is_direct(&self) -> bool {
        matches!(self, Self::Physical | Self::Mtt { .. })
    }

    /// Makes the list what `bytes` say.
    pub(super) fn replace(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.check(0, bytes)?;
        match self {
            Self::Physical => {}
            Self::Mtt { pages, .. } => pages.clear(),
            Self::Klm { ranges, ends, .. } => {
                ranges.clear();
                ends.clear();
            }
            Self::Ksm { blocks, .. } => blocks.clear(),
        }
        self.update(0, bytes)
    }

    /// Puts `bytes` in the list, `offset` octwords from its start.
    pub(super) fn update(&mut self, offset: u64, bytes: &[u8]) -> Result<(), TooLong> {
        let offset = self.check(offset, bytes)?;
        match self {
            Self::Physical => {}
            Self::Mtt { pages, .. } => {
                put(
                    pages,
                    offset * 2,
                    bytes.as_chunks().0.iter().map(|entry| u64::from_be_bytes(*entry)),
                );
            }
            Self::Klm { ranges, ends, .. } => {
                let first = offset.min(ranges.len());
                put(
                    ranges,
                    offset,
                    bytes.as_chunks().0.iter().map(|entry| Klm::from_bytes(*entry)),
                );
                ends.truncate(first);
                // No sum of 2^16 lengths of 32 bits overflows.
                let mut end = ends.last().copied().unwrap_or(0);
                ends.extend(ranges[first..].iter().map(|range| {
                    end += u64::from(range.byte_count);
                    end
                }));
            }
            Self::Ksm { blocks, .. } => {
                put(
                    blocks,
                    offset,
                    bytes.as_chunks().0.iter().map(|entry| Klm::from_bytes(*entry)),
                );
            }
        }
        Ok(())
    }

    fn check(&self, offset: u64, bytes: &[u8]) -> Result<usize, TooLong> {
        let capacity = match self {
            Self::Physical => 0,
            Self::Mtt { capacity, .. } | Self::Klm { capacity, .. } | Self::Ksm { capacity, .. } => *capacity,
        };
        let offset = usize::try_from(offset).map_err(|_| TooLong)?;
        let room = capacity.checked_sub(offset).ok_or(TooLong)?;
        if bytes.len().div_ceil(OCTWORD) > room {
            Err(TooLong)
        } else {
            Ok(offset)
        }
    }

    /// The first bytes of the list, at most `limit`.
    pub(super) fn bytes(&self, limit: usize) -> Vec<u8> {
        match self {
            Self::Physical => Vec::new(),
            Self::Mtt { pages, .. } => pages
                .iter()
                .take(limit / size_of::<u64>())
                .flat_map(|page| page.to_be_bytes())
                .collect(),
            Self::Klm { ranges: entries, .. } | Self::Ksm { blocks: entries, .. } => entries
                .iter()
                .take(limit / OCTWORD)
                .flat_map(|entry| entry.to_bytes())
                .collect(),
        }
    }
}

/// Puts entries in a list that grows as it must.
fn put<T: Copy + Default>(list: &mut Vec<T>, at: usize, entries: impl ExactSizeIterator<Item = T>) {
    let end = at + entries.len();
    if list.len() < end {
        list.resize(end, T::default());
    }
    list[at..end]
        .iter_mut()
        .zip(entries)
        .for_each(|(place, entry)| *place = entry);
}
