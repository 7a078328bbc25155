//! What the context of a key says about it.

use mlx5_prm::mkey::Mkc;

use super::{ANY_QUEUE, Access, Accessor, MkeyError};

/// How a key counts addresses (`MLX5_MKC_ACCESS_MODE_*`, mlx5_ifc.h).
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

/// Whether this is the key named, in use and for this queue.
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

/// Whether the key allows an access, and how far from its start the first byte is.
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
    // The whole address space, but not around its end.
    let room = if context.length64() {
        u64::MAX - offset
    } else {
        context.len().checked_sub(offset).ok_or(outside)?
    };
    if length > room { Err(outside) } else { Ok(offset) }
}
