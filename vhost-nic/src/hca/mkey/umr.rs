//! UMR (user-mode memory registration) and invalidation: changes of memory keys by work requests.

use mlx5_prm::mkey::Mkc;
use mlx5_prm::rdma_wqe::{UmrControlSegment, mkey_mask as mask};
use thiserror::Error;

use super::context::check_user;
use super::error::ListError;
use super::{Accessor, Mkey, MkeyError, OCTWORD, State, VARIANT_BITS};
use crate::hca::object_table::Table;

/// Fields of a key that a UMR can change; signature fields are not supported.
const CHANGEABLE: u64 = mask::LEN
    | mask::PAGE_SIZE
    | mask::START_ADDR
    | mask::PD
    | mask::EN_RINVAL
    | mask::KEY
    | mask::QPN
    | mask::LR
    | mask::LW
    | mask::RR
    | mask::RW
    | mask::A
    | mask::SMALL_FENCE
    | mask::RELAXED_ORDERING_WRITE
    | mask::FREE
    | mask::PAGE_SIZE_5
    | mask::RELAXED_ORDERING_READ;

/// UMR control segment of a WQE (`struct mlx5_wqe_umr_ctrl_seg`, qp.h), in host byte order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UmrControl {
    /// Checks to make, and location of the translation list.
    pub flags: u8,
    /// Fields of the key's context that change.
    pub mkey_mask: u64,
    /// Length of the translation list in octwords.
    pub xlt_octowords: u16,
    /// Offset in the key's list in octwords, 48 bits. Ignored without [`Self::TRANSLATION_OFFSET_EN`].
    pub xlt_offset: u64,
}

impl UmrControl {
    /// Fails unless the key is bound to the queue (`MLX5_WQE_UMR_CTRL_FLAG_CHECK_QPN`, libmlx5's wqe.h).
    pub const CHECK_QPN: u8 = 1 << 3;
    /// Changes a part of the key's list instead of all of it (`MLX5_UMR_TRANSLATION_OFFSET_EN`, device.h).
    pub const TRANSLATION_OFFSET_EN: u8 = 1 << 4;
    /// Fails unless the key is free (`MLX5_UMR_CHECK_NOT_FREE`; for its use see infiniband/hw/mlx5/umr.c).
    pub const CHECK_NOT_FREE: u8 = 1 << 5;
    /// Fails if the key is free (`MLX5_UMR_CHECK_FREE`).
    pub const CHECK_FREE: u8 = 1 << 6;

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl From<&UmrControlSegment> for UmrControl {
    fn from(segment: &UmrControlSegment) -> Self {
        Self {
            flags: segment.flags,
            mkey_mask: segment.mkey_mask.get(),
            xlt_octowords: segment.xlt_octowords.get(),
            xlt_offset: u64::from(segment.xlt_offset_47_16.get()) << 16 | u64::from(segment.xlt_offset.get()),
        }
    }
}

/// Queue that a UMR is posted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UmrPoster {
    /// Protection domain and number of the queue.
    pub accessor: Accessor,
    /// Whether the queue is for registration (service type REG_UMR of a QPC, `reg_umr` of an SQC): it may change keys
    /// of any protection domain, and move them to another.
    pub reg_umr: bool,
    /// Whether the queue may register guest memory (`fre` of a QPC); others may only list ranges of keys.
    pub fast_register: bool,
}

/// Reason why a UMR failed. The key is unchanged, but for a list without memory for its entries, which is shorter.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum UmrError {
    /// No such key.
    #[error("key {0:#x} does not exist")]
    Unknown(u32),
    /// The key does not allow UMR (`umr_en`).
    #[error("key {0:#x} does not allow UMR")]
    Disabled(u32),
    /// The key belongs to another protection domain.
    #[error("key {0:#x} belongs to another protection domain")]
    Domain(u32),
    /// The key is bound to another queue.
    #[error("key {0:#x} is not bound to this queue")]
    Queue(u32),
    /// The key is free, and the UMR requires that it is not.
    #[error("key {0:#x} is free")]
    Free(u32),
    /// The key is not free, and the UMR requires that it is.
    #[error("key {0:#x} is not free")]
    NotFree(u32),
    /// The queue lacks the right to this change.
    #[error("the queue may not make this change of key {0:#x}")]
    NotAllowed(u32),
    /// Fields that cannot change.
    #[error("a UMR cannot change the fields {0:#x}")]
    Mask(u64),
    /// The translation list is shorter than its length field, or exceeds the key's capacity.
    #[error("the translation list does not fit key {0:#x}")]
    Translations(u32),
    /// No host memory is left for the translation list.
    #[error("no host memory is left for the translation list of key {0:#x}")]
    OverBudget(u32),
}

/// Changes a key: the fields of `context` selected by the control segment, and the translation list.
///
/// The change is in effect when this returns; no translation of the old key is in progress then. Returns whether the
/// key was in use before: payloads may refer to its memory.
pub fn umr(
    table: &Table<Mkey>,
    poster: UmrPoster,
    key: u32,
    control: &UmrControl,
    context: &Mkc,
    translations: &[u8],
) -> Result<bool, UmrError> {
    let unknown = control.mkey_mask & !CHANGEABLE;
    if unknown != 0 {
        return Err(UmrError::Mask(unknown));
    }
    let list = translations
        .get(..usize::from(control.xlt_octowords) * OCTWORD)
        .ok_or(UmrError::Translations(key))?;
    let mkey = table.get(key >> VARIANT_BITS).ok_or(UmrError::Unknown(key))?;
    let mut state = mkey.state.write();
    check(&state, poster, key, control, !list.is_empty())?;
    if !list.is_empty() {
        let result = if control.has(UmrControl::TRANSLATION_OFFSET_EN) {
            state.translations.update(control.xlt_offset, list)
        } else {
            state.translations.replace(list)
        };
        result.map_err(|error| match error {
            ListError::TooLong => UmrError::Translations(key),
            ListError::OverBudget(_) => UmrError::OverBudget(key),
        })?;
    }
    let was_in_use = !state.context.free();
    change(&mut state.context, control.mkey_mask, context);
    Ok(was_in_use)
}

fn check(state: &State, poster: UmrPoster, key: u32, control: &UmrControl, has_list: bool) -> Result<(), UmrError> {
    let context = &state.context;
    // A UMR that changes the variant may name the key with any: the next one (kernel), or the first (libmlx5). But a
    // UMR that invalidates a memory window names the variant it was bound with.
    let any_variant = control.mkey_mask & mask::KEY != 0 && !control.has(UmrControl::CHECK_QPN);
    if !any_variant && context.mkey_7_0() != key as u8 {
        return Err(UmrError::Unknown(key));
    }
    if !context.umr_en() {
        return Err(UmrError::Disabled(key));
    }
    let accessor = poster.accessor;
    if !poster.reg_umr && context.pd() != accessor.pd {
        return Err(UmrError::Domain(key));
    }
    if control.has(UmrControl::CHECK_QPN) && context.qpn() != accessor.qpn {
        return Err(UmrError::Queue(key));
    }
    if control.has(UmrControl::CHECK_NOT_FREE) && !context.free() {
        return Err(UmrError::NotFree(key));
    }
    if control.has(UmrControl::CHECK_FREE) && context.free() {
        return Err(UmrError::Free(key));
    }
    let names_memory = has_list && state.translations.is_direct();
    let moves = control.mkey_mask & mask::PD != 0;
    if (names_memory && !poster.reg_umr && !poster.fast_register) || (moves && !poster.reg_umr) {
        return Err(UmrError::NotAllowed(key));
    }
    Ok(())
}

fn change(context: &mut Mkc, selected: u64, new: &Mkc) {
    let is = |bit| selected & bit != 0;
    if is(mask::LEN) {
        context.set_len(new.len());
        context.set_length64(new.length64());
    }
    // Bit 5 of the page size has its own mask bit.
    let size_mask = if is(mask::PAGE_SIZE) { 0x1f } else { 0 } | if is(mask::PAGE_SIZE_5) { 0x20 } else { 0 };
    context.set_log_page_size(context.log_page_size() & !size_mask | new.log_page_size() & size_mask);
    if is(mask::START_ADDR) {
        context.set_start_addr(new.start_addr());
    }
    if is(mask::PD) {
        context.set_pd(new.pd());
    }
    if is(mask::EN_RINVAL) {
        context.set_en_rinval(new.en_rinval());
    }
    if is(mask::KEY) {
        context.set_mkey_7_0(new.mkey_7_0());
    }
    if is(mask::QPN) {
        context.set_qpn(new.qpn());
    }
    if is(mask::LR) {
        context.set_lr(new.lr());
    }
    if is(mask::LW) {
        context.set_lw(new.lw());
    }
    if is(mask::RR) {
        context.set_rr(new.rr());
    }
    if is(mask::RW) {
        context.set_rw(new.rw());
    }
    if is(mask::A) {
        context.set_a(new.a());
    }
    if is(mask::SMALL_FENCE) {
        context.set_small_fence_on_rdma_read_response(new.small_fence_on_rdma_read_response());
    }
    if is(mask::RELAXED_ORDERING_WRITE) {
        context.set_relaxed_ordering_write(new.relaxed_ordering_write());
    }
    if is(mask::RELAXED_ORDERING_READ) {
        context.set_relaxed_ordering_read(new.relaxed_ordering_read());
    }
    if is(mask::FREE) {
        context.set_free(new.free());
    }
}

/// Frees a key for a queue. With `remote`, the peer requests it, and the key must allow that. The key is free when this
/// returns; no translation is in progress then.
pub fn invalidate(table: &Table<Mkey>, key: u32, accessor: Accessor, remote: bool) -> Result<(), MkeyError> {
    let mkey = table.get(key >> VARIANT_BITS).ok_or(MkeyError::Unknown(key))?;
    let mut state = mkey.state.write();
    check_user(&state.context, key, accessor)?;
    let allowed = if remote {
        state.context.en_rinval()
    } else {
        state.context.umr_en()
    };
    if !allowed {
        return Err(MkeyError::Access(key));
    }
    state.context.set_free(true);
    Ok(())
}
