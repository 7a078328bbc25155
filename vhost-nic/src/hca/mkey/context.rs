//! Checks of a memory key's context.

use mlx5_prm::mkey::Mkc;

use super::{ANY_QUEUE, Access, Accessor, MkeyError};

/// Address translation of a key (`MLX5_MKC_ACCESS_MODE_*`, mlx5_ifc.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessMode {
    /// None: addresses are those of guest memory.
    Physical,
    /// By a list of pages.
    Mtt,
    /// By a list of ranges of other keys.
    Klm,
    /// By a list of ranges of other keys, all of the same length.
    Ksm,
}

/// Returns the access mode of a context; `None` if it is not supported.
pub fn access_mode(context: &Mkc) -> Option<AccessMode> {
    match context.access_mode_4_2() << 2 | context.access_mode_1_0() {
        0 => Some(AccessMode::Physical),
        1 => Some(AccessMode::Mtt),
        2 => Some(AccessMode::Klm),
        3 => Some(AccessMode::Ksm),
        _ => None,
    }
}

/// Checks that the key is the one named, not free, and for this queue.
pub(super) fn check_user(context: &Mkc, key: u32, accessor: Accessor) -> Result<(), MkeyError> {
    if context.free() || context.mkey_7_0() != key as u8 {
        return Err(MkeyError::Unknown(key));
    }
    if context.pd() != accessor.pd {
        return Err(MkeyError::Domain(key));
    }
    if context.qpn() != ANY_QUEUE && context.qpn() != accessor.qpn {
        return Err(MkeyError::Queue(key));
    }
    Ok(())
}

/// Checks that the key allows the access; returns the offset of the first byte in the key.
pub(super) fn check_range(
    context: &Mkc,
    key: u32,
    address: u64,
    length: u64,
    access: Access,
) -> Result<u64, MkeyError> {
    let allowed = match access {
        Access::LocalRead => context.lr(),
        Access::LocalWrite => context.lw(),
        Access::RemoteRead => context.rr(),
        Access::RemoteWrite => context.rw(),
        Access::RemoteAtomic => context.a(),
    };
    if !allowed {
        return Err(MkeyError::Access(key));
    }
    let outside = MkeyError::Range(key, length, address);
    let offset = address.checked_sub(context.start_addr()).ok_or(outside)?;
    // A key with `length64` covers the whole address space, without wrapping around.
    let room = if context.length64() {
        u64::MAX - offset
    } else {
        context.len().checked_sub(offset).ok_or(outside)?
    };
    // No access wraps around the address space, wherever the key ends: a packet behind the wrap would be outside.
    let wraps = address.checked_add(length.saturating_sub(1)).is_none();
    if length > room || wraps {
        Err(outside)
    } else {
        Ok(offset)
    }
}
