//! Translation of ranges of memory keys to guest memory.

use std::cell::Cell;

use mlx5_prm::mkey::Mkc;
use parking_lot::{ArcRwLockReadGuard, RawRwLock};

use super::context::{check_range, check_user};
use super::translation::{Klm, MTT_FLAGS, MTT_READ, MTT_WRITE, Translations};
use super::{
    Access, Accessor, DUMP_FILL_MKEY, Mkey, MkeyError, NULL_MKEY, RESERVED_LKEY, Segment, State, VARIANT_BITS,
};
use crate::hca::buffer::ADAPTER_PAGE_SHIFT;
use crate::hca::object_table::Table;

/// Maximum number of indirect keys between a key and memory (`max_indirection` of the capabilities).
pub const MAX_INDIRECTION: u32 = 4;

/// Most steps from range to range of indirect keys in a translation of `length` bytes. A peer's thread takes them: a
/// list of single bytes would keep it busy for minutes. Lists whose ranges have 128 bytes on average pass through four
/// levels.
const fn most_steps(length: u64) -> u64 {
    256 + length / 32
}

/// Checks that a key allows an access to a range of it. The keys and the memory behind it are not looked at: that would
/// take time in proportion to the length.
pub fn check(
    table: &Table<Mkey>,
    key: u32,
    accessor: Accessor,
    address: u64,
    length: u64,
    access: Access,
) -> Result<(), MkeyError> {
    if length == 0 || matches!(key, NULL_MKEY | DUMP_FILL_MKEY) {
        return Ok(());
    }
    let mkey = table.get(key >> VARIANT_BITS).ok_or(MkeyError::Unknown(key))?;
    let range = Range { key, address, length };
    check_locked(&mkey.state.read_recursive(), accessor, range, access)
}

fn check_locked(state: &State, accessor: Accessor, range: Range, access: Access) -> Result<(), MkeyError> {
    let Range { key, address, length } = range;
    check_user(&state.context, key, accessor)?;
    check_range(&state.context, key, address, length, access).map(drop)
}

/// Calls `act` with each segment of `length` bytes at `address` of a key, in order.
///
/// If the key does not allow the access, no segment is visited. Of an indirect key, segments before one that fails may
/// have been visited. A range of no bytes is valid for every key, even one that does not exist (IBTA C9-88). `act` must
/// not change keys.
pub fn translate<E>(
    table: &Table<Mkey>,
    key: u32,
    accessor: Accessor,
    address: u64,
    length: u64,
    access: Access,
    mut act: impl FnMut(Segment) -> Result<(), E>,
) -> Result<Result<(), E>, MkeyError> {
    if length == 0 {
        return Ok(Ok(()));
    }
    let mut act = |segment| act(segment).map_err(Stop::Act);
    let range = Range { key, address, length };
    result(Walk::new(table, accessor, length).range(range, access, MAX_INDIRECTION, &mut act))
}

fn result<E>(result: Result<(), Stop<E>>) -> Result<Result<(), E>, MkeyError> {
    match result {
        Ok(()) => Ok(Ok(())),
        Err(Stop::Act(error)) => Ok(Err(error)),
        Err(Stop::Mkey(error)) => Err(error),
    }
}

/// Translation with a cache of the last key. The cached key stays read-locked: changes of it wait.
#[derive(Debug)]
pub struct Recent<'a> {
    table: &'a Table<Mkey>,
    /// The locked key, with its index.
    held: Option<(u32, ArcRwLockReadGuard<RawRwLock, State>)>,
}

impl<'a> Recent<'a> {
    /// Creates an empty cache.
    pub fn new(table: &'a Table<Mkey>) -> Self {
        Self { table, held: None }
    }

    /// Unlocks the cached key.
    pub fn unlock(&mut self) {
        self.held = None;
    }

    /// Locks a key, and unlocks the one before it.
    #[inline]
    fn hold(&mut self, key: u32) -> Option<&State> {
        let index = key >> VARIANT_BITS;
        if self.held.as_ref().is_none_or(|(held, _)| *held != index) {
            self.unlock();
            let mkey = self.table.get(index);
            self.held = mkey.map(|mkey| (index, mkey.state.read_arc_recursive()));
        }
        self.held.as_ref().map(|(_, state)| &**state)
    }

    /// Does the same as [`check`].
    pub fn check(
        &mut self,
        key: u32,
        accessor: Accessor,
        address: u64,
        length: u64,
        access: Access,
    ) -> Result<(), MkeyError> {
        let table = self.table;
        let (Some(state), 1..) = (self.hold(key), length) else {
            return check(table, key, accessor, address, length, access);
        };
        check_locked(state, accessor, Range { key, address, length }, access)
    }

    /// Does the same as [`translate`].
    pub fn translate<E>(
        &mut self,
        key: u32,
        accessor: Accessor,
        address: u64,
        length: u64,
        access: Access,
        mut act: impl FnMut(Segment) -> Result<(), E>,
    ) -> Result<Result<(), E>, MkeyError> {
        let table = self.table;
        let (Some(state), 1..) = (self.hold(key), length) else {
            return translate(table, key, accessor, address, length, access, act);
        };
        let mut act = |segment| act(segment).map_err(Stop::Act);
        let range = Range { key, address, length };
        result(Walk::new(table, accessor, length).of_key(state, range, access, MAX_INDIRECTION, &mut act))
    }
}

enum Stop<E> {
    Act(E),
    Mkey(MkeyError),
}

impl<E> From<MkeyError> for Stop<E> {
    fn from(error: MkeyError) -> Self {
        Self::Mkey(error)
    }
}

#[derive(Clone, Copy)]
struct Range {
    key: u32,
    address: u64,
    length: u64,
}

impl Range {
    fn outside(self) -> MkeyError {
        MkeyError::Range(self.key, self.length, self.address)
    }
}

struct Walk<'a> {
    table: &'a Table<Mkey>,
    accessor: Accessor,
    /// Steps left.
    steps: Cell<u64>,
}

impl<'a> Walk<'a> {
    fn new(table: &'a Table<Mkey>, accessor: Accessor, length: u64) -> Self {
        Self {
            table,
            accessor,
            steps: Cell::new(most_steps(length)),
        }
    }
}

impl Walk<'_> {
    /// Translates a range of a key. At most `indirection` indirect keys may follow, this one included. Each segment has
    /// at least one byte, so that the length of the range bounds the work.
    fn range<E>(
        &self,
        range: Range,
        access: Access,
        indirection: u32,
        act: &mut impl FnMut(Segment) -> Result<(), Stop<E>>,
    ) -> Result<(), Stop<E>> {
        let Range { key, address, length } = range;
        match key {
            NULL_MKEY | DUMP_FILL_MKEY => return act(Segment::Null(length as usize)),
            RESERVED_LKEY if self.accessor.reserved_lkey && is_local(access) => {
                address.checked_add(length).ok_or(range.outside())?;
                return act(Segment::Memory(address, length as usize));
            }
            _ => {}
        }
        let mkey = self.table.get(key >> VARIANT_BITS).ok_or(MkeyError::Unknown(key))?;
        // The same key may be read-locked already on this path: a waiting writer must not block a recursive read.
        self.of_key(&mkey.state.read_recursive(), range, access, indirection, act)
    }

    /// Translates a range of a locked key.
    fn of_key<E>(
        &self,
        state: &State,
        range: Range,
        access: Access,
        indirection: u32,
        act: &mut impl FnMut(Segment) -> Result<(), Stop<E>>,
    ) -> Result<(), Stop<E>> {
        let Range { key, address, length } = range;
        let context = &state.context;
        check_user(context, key, self.accessor)?;
        let offset = check_range(context, key, address, length, access)?;
        match &state.translations {
            Translations::Physical => act(Segment::Memory(address, length as usize)),
            Translations::Mtt { pages, .. } => {
                let (first, last, skip) = page_indexes(context, range, offset)?;
                let required = permission(access);
                let places = Places { context, range, skip };
                match pages.slice(first, last) {
                    Some(&[page]) if page & required == required => {
                        let at = (page & !MTT_FLAGS).wrapping_add(skip);
                        act(Segment::Memory(at, length as usize))
                    }
                    Some(pages) => places.segments(pages.iter().copied(), required, act),
                    None if last < pages.len() => {
                        places.segments((first..=last).map(|index| pages.entry(index)), required, act)
                    }
                    None => Err(range.outside().into()),
                }
            }
            Translations::Klm { ranges, ends, .. } => {
                let indirection = indirection.checked_sub(1).ok_or(MkeyError::Indirection(key))?;
                let (mut at, mut rest) = (offset, length);
                // The first range that ends beyond the first byte; it is not empty.
                let mut index = ends.partition_point(|end| *end <= at);
                while rest > 0 {
                    let (inner, end) = ranges.get(index).zip(ends.get(index)).ok_or(range.outside())?;
                    let now = rest.min(end - at);
                    let skip = u64::from(inner.byte_count) - (end - at);
                    self.inner(*inner, skip, now, access, indirection, act)?;
                    (at, rest) = (at + now, rest - now);
                    index += 1;
                    if ends.get(index).is_some_and(|end| *end <= at) {
                        index += ends[index..].partition_point(|end| *end <= at);
                    }
                }
                Ok(())
            }
            Translations::Ksm { blocks, .. } => {
                let indirection = indirection.checked_sub(1).ok_or(MkeyError::Indirection(key))?;
                let shift = context.log_page_size();
                let (mut at, mut rest) = (offset, length);
                while rest > 0 {
                    let inner = index(at, shift)
                        .and_then(|index| blocks.get(index))
                        .ok_or(range.outside())?;
                    let skip = at & mask(shift);
                    let now = rest.min((1 << shift) - skip);
                    self.inner(*inner, skip, now, access, indirection, act)?;
                    (at, rest) = (at + now, rest - now);
                }
                Ok(())
            }
        }
    }

    /// Translates `length` bytes of a range of another key, from its byte `skip` on.
    fn inner<E>(
        &self,
        inner: Klm,
        skip: u64,
        length: u64,
        access: Access,
        indirection: u32,
        act: &mut impl FnMut(Segment) -> Result<(), Stop<E>>,
    ) -> Result<(), Stop<E>> {
        let left = self.steps.get().checked_sub(1).ok_or(MkeyError::Steps(inner.key))?;
        self.steps.set(left);
        let outside = MkeyError::Range(inner.key, length, inner.address);
        let address = inner.address.checked_add(skip).ok_or(outside)?;
        // The outer key decides on remote access (IBTA, memory windows); the inner key needs only the local right.
        let local = match access {
            Access::LocalRead | Access::RemoteRead => Access::LocalRead,
            Access::LocalWrite | Access::RemoteWrite | Access::RemoteAtomic => Access::LocalWrite,
        };
        self.range(
            Range {
                key: inner.key,
                address,
                length,
            },
            local,
            indirection,
            act,
        )
    }
}

/// Returns the indexes of the first and the last page of a range, and the offset of its first byte in the first.
fn page_indexes(context: &Mkc, range: Range, offset: u64) -> Result<(usize, usize, u64), MkeyError> {
    let shift = context.log_page_size();
    if u32::from(shift) < ADAPTER_PAGE_SHIFT {
        return Err(MkeyError::Translation(range.key));
    }
    // The first page of the list holds the key's first byte.
    let start = offset
        .checked_add(context.start_addr() & mask(shift))
        .ok_or(range.outside())?;
    let last = start.checked_add(range.length - 1).ok_or(range.outside())?;
    let first = index(start, shift).ok_or(range.outside())?;
    let last = index(last, shift).ok_or(range.outside())?;
    Ok((first, last, start & mask(shift)))
}

/// Returns the permissions that an access needs of each page.
fn permission(access: Access) -> u64 {
    match access {
        Access::LocalRead | Access::RemoteRead => MTT_READ,
        Access::LocalWrite | Access::RemoteWrite => MTT_WRITE,
        Access::RemoteAtomic => MTT_READ | MTT_WRITE,
    }
}

/// A range in pages, of whose first one it skips bytes.
struct Places<'a> {
    context: &'a Mkc,
    range: Range,
    skip: u64,
}

impl Places<'_> {
    /// Calls `act` with the segments that the pages make, if all pages have the permissions.
    fn segments<E>(
        &self,
        pages: impl Iterator<Item = u64> + Clone,
        required: u64,
        act: &mut impl FnMut(Segment) -> Result<(), Stop<E>>,
    ) -> Result<(), Stop<E>> {
        if pages.clone().fold(required, |common, page| common & page) != required {
            return Err(MkeyError::Access(self.range.key).into());
        }
        let shift = self.context.log_page_size();
        let (mut skip, mut rest) = (self.skip, self.range.length);
        // Adjacent pages make one segment.
        let (mut address, mut length) = (0_u64, 0);
        for page in pages {
            let now = rest.min((1 << shift) - skip);
            let at = (page & !MTT_FLAGS).wrapping_add(skip);
            if length > 0 && address.checked_add(length) != Some(at) {
                act(Segment::Memory(address, length as usize))?;
                length = 0;
            }
            if length == 0 {
                address = at;
            }
            length += now;
            (skip, rest) = (0, rest - now);
        }
        act(Segment::Memory(address, length as usize))
    }
}

fn is_local(access: Access) -> bool {
    matches!(access, Access::LocalRead | Access::LocalWrite)
}

/// Returns the mask of the address bits within a page or block; `log_page_size` has 6 bits.
fn mask(shift: u8) -> u64 {
    (1 << shift) - 1
}

fn index(offset: u64, shift: u8) -> Option<usize> {
    usize::try_from(offset >> shift).ok()
}
