//! Commands on memory keys.

use mlx5_prm::init_hca::QuerySpecialContextsOut;
use mlx5_prm::mkey::*;
use mlx5_prm::opcode::Opcode;

use super::command::{Commands, Input, OVER_BUDGET, Reply, Result, TABLE_FULL, bad_parameter, no_object, no_such};
use super::{Firmware, syndrome};
use crate::hca::mkey::{DUMP_FILL_MKEY, InvalidMkey, Mkey, NULL_MKEY, OCTWORD, RESERVED_LKEY};

pub(super) const COMMANDS: Commands = &[
    (Opcode::CREATE_MKEY, create),
    (Opcode::DESTROY_MKEY, destroy),
    (Opcode::QUERY_MKEY, query),
    (Opcode::QUERY_SPECIAL_CONTEXTS, query_special_contexts),
];

/// Maximum bytes of a translation list that QUERY_MKEY returns.
const QUERY_LIMIT: usize = 1 << 20;

fn create(firmware: &Firmware, input: Input<'_>) -> Result {
    let hca = &firmware.hca;
    let (input, tail) = input.with_tail::<CreateMkeyIn>()?;
    let context = input.memory_key_mkey_entry();
    if input.pg_access() || input.mkey_umem_valid() || input.data_direct() {
        return Err(bad_parameter("the key's pages are to come by a way that there is not"));
    }
    // The driver creates its own keys with PD 0, before it has a protection domain.
    if context.pd() != 0 && hca.pds.get(context.pd()).is_none() {
        return Err(no_such("the key's protection domain does not exist"));
    }
    let octwords = input.translations_octword_actual_size() as usize;
    let translations = octwords
        .checked_mul(OCTWORD)
        .and_then(|length| tail.get(..length))
        .ok_or(bad_parameter("the list of translations is shorter than it says"))?;
    let make = Mkey::prepare(context.clone(), translations, &hca.budget).map_err(|error| match error {
        InvalidMkey::Mode => bad_parameter("there is no such access mode"),
        InvalidMkey::Length => {
            bad_parameter("the translation list is too long").with_syndrome(syndrome::TRANSLATION_SIZE)
        }
        InvalidMkey::OverBudget(_) => OVER_BUDGET,
    })?;
    let mkey = hca.mkeys.insert_with(make).ok_or(TABLE_FULL)?;
    let mut output = CreateMkeyOut::default();
    output.set_mkey_index(mkey.index);
    Reply::new(output)
}

fn destroy(firmware: &Firmware, input: Input<'_>) -> Result {
    let index = input.fields::<DestroyMkeyIn>()?.mkey_index();
    let mkey = firmware
        .hca
        .mkeys
        .remove(index)
        .ok_or(no_object("there is no such memory key"))?;
    mkey.revoke();
    firmware.hca.revoke();
    firmware.hca.retired_keys.add(mkey.key());
    Reply::ok::<DestroyMkeyOut>()
}

fn query(firmware: &Firmware, input: Input<'_>) -> Result {
    let index = input.fields::<QueryMkeyIn>()?.mkey_index();
    let mkey = firmware
        .hca
        .mkeys
        .get(index)
        .ok_or(no_object("there is no such memory key"))?;
    let mut output = QueryMkeyOut::default();
    *output.memory_key_mkey_entry_mut() = mkey.context();
    let mut translations = mkey.translations(QUERY_LIMIT);
    // The first two octwords are in the fixed part of the output.
    translations.resize(translations.len().max(2 * OCTWORD), 0);
    output
        .bsf0_klm0_pas_mtt0_1_mut()
        .copy_from_slice(&translations[..OCTWORD]);
    output
        .bsf1_klm1_pas_mtt2_3_mut()
        .copy_from_slice(&translations[OCTWORD..2 * OCTWORD]);
    Reply::with_tail(output, &translations[2 * OCTWORD..])
}

fn query_special_contexts(_: &Firmware, _: Input<'_>) -> Result {
    let mut output = QuerySpecialContextsOut::default();
    output.set_resd_lkey(RESERVED_LKEY);
    output.set_null_mkey(NULL_MKEY);
    output.set_dump_fill_mkey(DUMP_FILL_MKEY);
    output.set_terminate_scatter_list_mkey(mlx5_prm::wqe::INVALID_LKEY);
    Reply::new(output)
}
