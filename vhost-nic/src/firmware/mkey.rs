//! Commands on memory keys.

use mlx5_prm::hca::{QuerySpecialContextsOut};
use mlx5_prm::mkey::*;
use mlx5_prm::opcode::Opcode;

use super::Firmware;
use super::command::{Commands, Input, Reply, Result, TABLE_FULL, bad_parameter, no_such};
use crate::hca::mkey::{Mkey, access_mode};

pub(super) const COMMANDS: Commands = &[
    (Opcode::CREATE_MKEY, create),
    (Opcode::DESTROY_MKEY, destroy),
    (Opcode::QUERY_MKEY, query),
    (Opcode::QUERY_SPECIAL_CONTEXTS, query_special_contexts),
];

/// Bytes in the unit that lists of translations are counted in.
const OCTWORD: usize = 16;
/// A key that reads as zeros and takes what is written.
const NULL_MKEY: u32 = 0x200;
/// A key without meaning that data not worth copying has.
const DUMP_FILL_MKEY: u32 = 0x300;

fn create(firmware: &Firmware, input: Input<'_>) -> Result {
    let hca = &firmware.hca;
    let (input, tail) = input.with_tail::<CreateMkeyIn>()?;
    let context = input.memory_key_mkey_entry();
    if access_mode(context).is_none() {
        return Err(bad_parameter("there is no such access mode"));
    }
    // The driver makes its own keys before it has a protection domain that matters; those of a domain must name one.
    if context.pd() != 0 && hca.pds.get(context.pd()).is_none() {
        return Err(no_such("the key's protection domain does not exist"));
    }
    let octwords = input.translations_octword_actual_size() as usize;
    let translations = octwords
        .checked_mul(OCTWORD)
        .and_then(|length| tail.get(..length))
        .ok_or(bad_parameter("the list of translations is shorter than it says"))?;
    let make = |index| Mkey::new(index, context.clone(), translations);
    let mkey = hca.mkeys.insert_with(make).ok_or(TABLE_FULL)?;
    let mut output = CreateMkeyOut::default();
    output.set_mkey_index(mkey.index);
    Reply::new(output)
}

fn destroy(firmware: &Firmware, input: Input<'_>) -> Result {
    let index = input.fields::<DestroyMkeyIn>()?.mkey_index();
    firmware.hca.mkeys.remove(index).ok_or(no_such("there is no such memory key"))?;
    Reply::ok::<DestroyMkeyOut>()
}

fn query(firmware: &Firmware, input: Input<'_>) -> Result {
    let index = input.fields::<QueryMkeyIn>()?.mkey_index();
    let mkey = firmware.hca.mkeys.get(index).ok_or(no_such("there is no such memory key"))?;
    let mut output = QueryMkeyOut::default();
    *output.memory_key_mkey_entry_mut() = mkey.context.clone();
    Reply::new(output)
}

fn query_special_contexts(_: &Firmware, _: Input<'_>) -> Result {
    let mut output = QuerySpecialContextsOut::default();
    output.set_null_mkey(NULL_MKEY);
    output.set_dump_fill_mkey(DUMP_FILL_MKEY);
    output.set_terminate_scatter_list_mkey(mlx5_prm::wqe::INVALID_LKEY);
    Reply::new(output)
}
