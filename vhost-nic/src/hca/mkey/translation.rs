//! Translation lists of memory keys.

use std::sync::Arc;

use mlx5_prm::mkey::Mkc;

use super::context::{AccessMode, access_mode};
use super::error::ListError;
use super::page_list::PageList;
use super::{InvalidMkey, OCTWORD};
use crate::hca::memory_budget::{Budget, Charge, OverBudget};

/// Permissions in the lowest bits of an MTT (`MLX5_MTT_PERM_*`, mlx5_ifc.h).
pub(super) const MTT_READ: u64 = 1 << 0;
pub(super) const MTT_WRITE: u64 = 1 << 1;
/// Bits of an MTT below the address.
pub(super) const MTT_FLAGS: u64 = 0x7;
/// Maximum octwords of an MTT list: 128 GiB in 4 KiB pages.
const MAX_MTT_OCTWORDS: usize = 1 << 24;
/// Maximum octwords of a KLM or KSM list: 2^`log_max_klm_list_size` of the capabilities.
const MAX_KLM_OCTWORDS: usize = 1 << 16;
/// Octwords of the unit of updates (`MLX5_UMR_FLEX_ALIGNMENT`, device.h): the last update of a list may extend beyond
/// its end.
const UPDATE_OCTWORDS: usize = 4;

/// A KLM or KSM entry: a range of another key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Klm {
    pub(super) byte_count: u32,
    pub(super) key: u32,
    pub(super) address: u64,
}

impl Klm {
    /// Parses a `struct mlx5_klm`, or a `struct mlx5_ksm`, whose first field is reserved (qp.h).
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

/// Translation of a key's bytes to guest memory or ranges of other keys. Bytes beyond the list have no translation.
#[derive(Debug)]
pub(super) enum Translations {
    Physical,
    Mtt {
        pages: PageList,
        capacity: usize,
    },
    Klm {
        ranges: Vec<Klm>,
        /// End of each range, in bytes from the start of the key.
        ends: Vec<u64>,
        capacity: usize,
        charge: Charge,
    },
    Ksm {
        blocks: Vec<Klm>,
        capacity: usize,
        charge: Charge,
    },
}

impl Translations {
    /// Creates the list of a new key. Unused capacity takes no memory.
    pub(super) fn new(context: &Mkc, bytes: &[u8], budget: &Arc<Budget>) -> Result<Self, InvalidMkey> {
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
                pages: PageList::new(budget),
                capacity,
            },
            AccessMode::Klm => Self::Klm {
                ranges: Vec::new(),
                ends: Vec::new(),
                capacity,
                charge: Charge::none(budget),
            },
            AccessMode::Ksm => Self::Ksm {
                blocks: Vec::new(),
                capacity,
                charge: Charge::none(budget),
            },
        };
        translations.replace(bytes)?;
        if let Self::Mtt { pages, .. } = &mut translations {
            // The entries of CREATE_MKEY have permissions only with `pg_access`, for on-demand paging.
            pages.set_bits(MTT_READ | MTT_WRITE);
        }
        Ok(translations)
    }

    /// Whether the list names guest memory directly, not through other keys.
    pub(super) fn is_direct(&self) -> bool {
        matches!(self, Self::Physical | Self::Mtt { .. })
    }

    /// Replaces the list.
    pub(super) fn replace(&mut self, bytes: &[u8]) -> Result<(), ListError> {
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

    /// Overwrites a part of the list, from octword `offset` on.
    pub(super) fn update(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ListError> {
        let offset = self.check(offset, bytes)?;
        match self {
            Self::Physical => {}
            Self::Mtt { pages, capacity, .. } => {
                let entries = bytes.as_chunks().0.iter().map(|entry| u64::from_be_bytes(*entry));
                pages.write(offset * 2, entries, *capacity * 2)?;
            }
            Self::Klm {
                ranges, ends, charge, ..
            } => {
                let first = offset.min(ranges.len());
                let bytes_of_entry = size_of::<Klm>() + size_of::<u64>();
                put(ranges, offset, bytes, charge, bytes_of_entry)?;
                ends.reserve_exact(ranges.capacity() - ends.len());
                ends.truncate(first);
                // The sum of 2^16 lengths of 32 bits cannot overflow.
                let mut end = ends.last().copied().unwrap_or(0);
                ends.extend(ranges[first..].iter().map(|range| {
                    end += u64::from(range.byte_count);
                    end
                }));
            }
            Self::Ksm { blocks, charge, .. } => put(blocks, offset, bytes, charge, size_of::<Klm>())?,
        }
        Ok(())
    }

    fn check(&self, offset: u64, bytes: &[u8]) -> Result<usize, ListError> {
        let capacity = match self {
            Self::Physical => 0,
            Self::Mtt { capacity, .. } | Self::Klm { capacity, .. } | Self::Ksm { capacity, .. } => *capacity,
        };
        let offset = usize::try_from(offset).map_err(|_| ListError::TooLong)?;
        let room = capacity.checked_sub(offset).ok_or(ListError::TooLong)?;
        if bytes.len().div_ceil(OCTWORD) > room {
            Err(ListError::TooLong)
        } else {
            Ok(offset)
        }
    }

    /// Returns the first bytes of the list, at most `limit`.
    pub(super) fn bytes(&self, limit: usize) -> Vec<u8> {
        match self {
            Self::Physical => Vec::new(),
            Self::Mtt { pages, .. } => (0..pages.len().min(limit / size_of::<u64>()))
                .flat_map(|index| pages.entry(index).to_be_bytes())
                .collect(),
            Self::Klm { ranges: entries, .. } | Self::Ksm { blocks: entries, .. } => entries
                .iter()
                .take(limit / OCTWORD)
                .flat_map(|entry| entry.to_bytes())
                .collect(),
        }
    }
}

/// Overwrites entries of a list of ranges from `at` on. A list that grows is charged for its capacity.
fn put(
    list: &mut Vec<Klm>,
    at: usize,
    bytes: &[u8],
    charge: &mut Charge,
    bytes_of_entry: usize,
) -> Result<(), OverBudget> {
    let (entries, _) = bytes.as_chunks();
    let end = at + entries.len();
    let capacity = list.capacity();
    if capacity < end {
        // Doubled, so that a list that grows by small updates is copied seldom.
        let wanted = if capacity == 0 { end } else { end.max(2 * capacity) };
        charge.resize((wanted * bytes_of_entry) as u64)?;
        list.reserve_exact(wanted - list.len());
    }
    if list.len() < end {
        list.resize(end, Klm::default());
    }
    let places = list[at..end].iter_mut();
    places
        .zip(entries)
        .for_each(|(place, entry)| *place = Klm::from_bytes(*entry));
    Ok(())
}
