//! Memory keys: what a queue may reach of the guest's memory, and how it counts it.

use mlx5_prm::mkey::Mkc;
use thiserror::Error;

use super::buffer::ADAPTER_PAGE_SHIFT;
use super::table::Table;

/// Keys from here on are given out; lower indexes are the device's own (`MLX5_INVALID_LKEY` is index 1).
pub const FIRST_INDEX: u32 = 0x10;
/// A key is its index and 8 bits the driver chooses.
pub const VARIANT_BITS: u32 = 8;

/// How a key counts addresses (`MLX5_MKC_ACCESS_MODE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessMode {
    /// As the guest's memory does.
    Physical,
    /// Through a list of pages.
    Mtt,
    /// Through a list of other keys' ranges.
    Klm,
    /// The same, all ranges equally long.
    Ksm,
}

/// Why a range is not reached with a key.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum MkeyError {
    /// No such key, or another variant of it.
    #[error("Key {0:#x} does not exist.")]
    Unknown(u32),
    /// It is of another protection domain.
    #[error("Key {0:#x} belongs to another protection domain.")]
    Domain(u32),
    /// It does not allow that.
    #[error("Key {0:#x} does not allow this access.")]
    Access(u32),
    /// Not all of the range is the key's.
    #[error("{1} bytes at {2:#x} are not all in key {0:#x}.")]
    Range(u32, u64, u64),
    /// Its translation is of a kind that is not carried out here.
    #[error("Key {0:#x} has a translation that is not supported.")]
    Translation(u32),
}

/// What a queue wants to do with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read it, for the guest's own queue.
    LocalRead,
    /// Write it, for the guest's own queue.
    LocalWrite,
}

/// A memory key.
#[derive(Debug)]
pub struct Mkey {
    /// Index of the key.
    pub index: u32,
    /// What it was made with.
    pub context: Mkc,
    pages: Box<[u64]>,
}

impl Mkey {
    /// A key with its list of translations, as it is in the command.
    pub fn new(index: u32, context: Mkc, translations: &[u8]) -> Self {
        let pages = match access_mode(&context) {
            Some(AccessMode::Mtt) => {
                // The lowest bits are permissions (`MLX5_MTT_PERM_*`).
                translations.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry) & !0x7).collect()
            }
            _ => Box::default(),
        };
        Self { index, context, pages }
    }

    /// The key as a WQE names it.
    pub fn key(&self) -> u32 {
        self.index << VARIANT_BITS | u32::from(self.context.mkey_7_0())
    }

    fn check(&self, key: u32, pd: u32, address: u64, length: u64, access: Access) -> Result<(), MkeyError> {
        let context = &self.context;
        if context.free() || context.mkey_7_0() != key as u8 {
            return Err(MkeyError::Unknown(key));
        }
        if context.pd() != pd {
            return Err(MkeyError::Domain(key));
        }
        let allowed = match access {
            Access::LocalRead => context.lr(),
            Access::LocalWrite => context.lw(),
        };
        if !allowed {
            return Err(MkeyError::Access(key));
        }
        let outside = MkeyError::Range(key, length, address);
        if !context.length64() {
            let start = address.checked_sub(context.start_addr()).ok_or(outside)?;
            if context.len().checked_sub(start).is_none_or(|room| room < length) {
                return Err(outside);
            }
        }
        Ok(())
    }

    /// Calls `act` with the guest address and length of each piece of a range.
    fn pieces<E>(
        &self,
        key: u32,
        address: u64,
        length: u64,
        mut act: impl FnMut(u64, usize) -> Result<(), E>,
    ) -> Result<Result<(), E>, MkeyError> {
        match access_mode(&self.context) {
            Some(AccessMode::Physical) => Ok(act(address, length as usize)),
            Some(AccessMode::Mtt) => {
                let shift = u32::from(self.context.log_page_size());
                if !(ADAPTER_PAGE_SHIFT..=40).contains(&shift) {
                    return Err(MkeyError::Translation(key));
                }
                let in_page = |address: u64| address & ((1 << shift) - 1);
                let start = self.context.start_addr();
                // The first page of the list is that of the first byte.
                let mut at = address.wrapping_sub(start).wrapping_add(in_page(start));
                let mut rest = length;
                while rest > 0 {
                    let page = self.pages.get((at >> shift) as usize).ok_or(MkeyError::Range(key, length, address))?;
                    let now = rest.min((1 << shift) - in_page(at));
                    if let Err(error) = act(page.wrapping_add(in_page(at)), now as usize) {
                        return Ok(Err(error));
                    }
                    at += now;
                    rest -= now;
                }
                Ok(Ok(()))
            }
            _ => Err(MkeyError::Translation(key)),
        }
    }
}

/// How a key of this context counts addresses, if there is such a mode.
pub fn access_mode(context: &Mkc) -> Option<AccessMode> {
    match context.access_mode_4_2() << 2 | context.access_mode_1_0() {
        0 => Some(AccessMode::Physical),
        1 => Some(AccessMode::Mtt),
        2 => Some(AccessMode::Klm),
        3 => Some(AccessMode::Ksm),
        _ => None,
    }
}

/// Calls `act` with the guest address and length of each piece of `length` bytes at `address` of a key; of none unless all may be reached.
pub fn translate<E>(
    table: &Table<Mkey>,
    key: u32,
    pd: u32,
    address: u64,
    length: u64,
    access: Access,
    act: impl FnMut(u64, usize) -> Result<(), E>,
) -> Result<Result<(), E>, MkeyError> {
    let mkey = table.get(key >> VARIANT_BITS).ok_or(MkeyError::Unknown(key))?;
    mkey.check(key, pd, address, length, access)?;
    mkey.pieces(key, address, length, act)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(context: Mkc, translations: &[u8]) -> Table<Mkey> {
        let table = Table::new(FIRST_INDEX..FIRST_INDEX + 1);
        table.insert_with(|index| Mkey::new(index, context, translations)).unwrap();
        table
    }

    fn context(mode: u8) -> Mkc {
        let mut context = Mkc::default();
        context.set_access_mode_1_0(mode);
        context.set_mkey_7_0(0x42);
        context.set_pd(5);
        context.set_lr(true);
        context
    }

    const KEY: u32 = FIRST_INDEX << 8 | 0x42;

    fn reach(table: &Table<Mkey>, key: u32, pd: u32, address: u64, length: u64) -> Result<Vec<(u64, usize)>, MkeyError> {
        let mut found = Vec::new();
        translate(table, key, pd, address, length, Access::LocalRead, |address, length| {
            found.push((address, length));
            Ok::<(), ()>(())
        })?
        .unwrap();
        Ok(found)
    }

    #[test]
    fn pages_are_counted_from_the_first_byte() {
        let mut context = context(1);
        context.set_start_addr(0x1234_5800);
        context.set_len(0x1800);
        context.set_log_page_size(12);
        let pages: Vec<u8> = [0x8000_u64 | 3, 0x3000 | 3].iter().flat_map(|page| page.to_be_bytes()).collect();
        let table = table(context, &pages);
        assert_eq!(reach(&table, KEY, 5, 0x1234_5800, 0x1800).unwrap(), [(0x8800, 0x800), (0x3000, 0x1000)]);
        assert_eq!(reach(&table, KEY, 5, 0x1234_6ffc, 4).unwrap(), [(0x3ffc, 4)]);
        assert!(matches!(reach(&table, KEY, 5, 0x1234_57ff, 1), Err(MkeyError::Range(..))));
        assert!(matches!(reach(&table, KEY, 5, 0x1234_6fff, 2), Err(MkeyError::Range(..))));
    }

    #[test]
    fn a_key_is_for_its_domain_and_its_accesses() {
        let mut context = context(0);
        context.set_length64(true);
        let table = table(context, &[]);
        assert_eq!(reach(&table, KEY, 5, 0x7000, 9).unwrap(), [(0x7000, 9)]);
        assert_eq!(reach(&table, KEY, 6, 0x7000, 9).unwrap_err(), MkeyError::Domain(KEY));
        assert_eq!(reach(&table, KEY + 1, 5, 0x7000, 9).unwrap_err(), MkeyError::Unknown(KEY + 1));
        let write = translate(&table, KEY, 5, 0, 1, Access::LocalWrite, |_, _| Ok::<(), ()>(()));
        assert_eq!(write.unwrap_err(), MkeyError::Access(KEY));
    }
}
