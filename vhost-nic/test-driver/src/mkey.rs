//! The memory key of a network driver: all of memory, by guest address (`core/en_common.c`). See
//! [`region`](crate::region) for others.

use mlx5_prm::mkey::*;
use mlx5_prm::opcode::Opcode;

use crate::command::Result;
use crate::hca::Hca;

/// The low byte of the keys.
const VARIANT: u8 = 0x5a;
/// In place of a QP number: any queue may use the key.
pub(crate) const ANY_QP: u32 = 0xff_ffff;

/// Creates a key for all of memory, by guest address. Returns the key as WQEs name it.
pub fn create_mkey(hca: &Hca, pd: u32) -> Result<u32> {
    let mut input = CreateMkeyIn::default();
    let context = input.memory_key_mkey_entry_mut();
    context.set_lr(true);
    context.set_lw(true);
    context.set_length64(true);
    context.set_pd(pd);
    context.set_qpn(ANY_QP);
    context.set_mkey_7_0(VARIANT);
    let output: CreateMkeyOut = hca.commands.call(Opcode::CREATE_MKEY, &input)?;
    Ok(output.mkey_index() << 8 | u32::from(VARIANT))
}

/// Destroys a key.
pub fn destroy_mkey(hca: &Hca, key: u32) -> Result<()> {
    let mut input = DestroyMkeyIn::default();
    input.set_mkey_index(key >> 8);
    hca.commands
        .call::<_, DestroyMkeyOut>(Opcode::DESTROY_MKEY, &input)
        .map(drop)
}
