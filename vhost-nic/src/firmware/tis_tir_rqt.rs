//! Commands on TISes, TIRs and RQTs.

use std::sync::Arc;

use mlx5_prm::opcode::Opcode;
use mlx5_prm::tis_tir_rqt::*;
use parking_lot::{Mutex, RwLock};

use super::command::{Commands, Input, Reply, Result, TABLE_FULL, bad_parameter, in_use, no_object, no_such};
use super::rq;
use super::{Firmware, syndrome};
use crate::hca::Hca;
use crate::hca::refcount::RefCount;
use crate::hca::rq::Rq;
use crate::hca::tis_tir_rqt::{Dispatch, Rqt, Tir, TirState, Tis};

pub(super) const COMMANDS: Commands = &[
    (Opcode::CREATE_TIS, create_tis),
    (Opcode::MODIFY_TIS, modify_tis),
    (Opcode::DESTROY_TIS, destroy_tis),
    (Opcode::QUERY_TIS, query_tis),
    (Opcode::CREATE_TIR, create_tir),
    (Opcode::MODIFY_TIR, modify_tir),
    (Opcode::DESTROY_TIR, destroy_tir),
    (Opcode::QUERY_TIR, query_tir),
    (Opcode::CREATE_RQT, create_rqt),
    (Opcode::MODIFY_RQT, modify_rqt),
    (Opcode::DESTROY_RQT, destroy_rqt),
    (Opcode::QUERY_RQT, query_rqt),
];

/// Maximum number of entries in an RQT (`log_max_rqt_size`).
const MAX_RQT_SIZE: u16 = 1 << 11;
/// Bytes of an RQT with all entries, which MODIFY_RQT can add: a queue and a reference to it each.
const RQT_BYTES: usize = size_of::<Rqt>() + MAX_RQT_SIZE as usize * 2 * size_of::<usize>();
/// `disp_type` of a TIR (`MLX5_TIRC_DISP_TYPE_*`, mlx5_ifc.h).
const DISPATCH_DIRECT: u8 = 0;
const DISPATCH_INDIRECT: u8 = 1;

fn create_tis(firmware: &Firmware, input: Input<'_>) -> Result {
    let hca = &firmware.hca;
    let context = input.fields::<CreateTisIn>()?.ctx();
    if context.lag_tx_port_affinity() != 0 {
        return Err(bad_parameter("the TIS is for a port of a LAG, and there is no LAG")
            .with_syndrome(syndrome::TIS_PORT_AFFINITY));
    }
    let domain = hca
        .transport_domains
        .get(context.transport_domain())
        .ok_or(no_such("the TIS's transport domain does not exist"))?
        .references
        .acquire();
    let make = |number| Tis {
        number,
        context: RwLock::new(context.clone()),
        references: RefCount::default(),
        domain: Mutex::new(Some(domain)),
    };
    let tis = hca.tises.insert_with(make).ok_or(TABLE_FULL)?;
    let mut output = CreateTisOut::default();
    output.set_tisn(tis.number);
    Reply::new(output)
}

fn find_tis(hca: &Hca, number: u32) -> Result<Arc<Tis>> {
    hca.tises.get(number).ok_or(no_object("there is no such TIS"))
}

fn modify_tis(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<ModifyTisIn>()?;
    let tis = find_tis(&firmware.hca, input.tisn())?;
    let mut context = tis.context.write();
    if input.bitmask().prio() {
        context.set_prio(input.ctx().prio());
    }
    if input.bitmask().lag_tx_port_affinity() {
        context.set_lag_tx_port_affinity(input.ctx().lag_tx_port_affinity());
    }
    Reply::ok::<ModifyTisOut>()
}

fn destroy_tis(firmware: &Firmware, input: Input<'_>) -> Result {
    let number = input.fields::<DestroyTisIn>()?.tisn();
    let tis = find_tis(&firmware.hca, number)?;
    if tis.references.count() > 0 {
        return Err(in_use("send queues are on the TIS"));
    }
    tis.retire();
    firmware.hca.tises.remove(number);
    Reply::ok::<DestroyTisOut>()
}

fn query_tis(firmware: &Firmware, input: Input<'_>) -> Result {
    let tis = find_tis(&firmware.hca, input.fields::<QueryTisIn>()?.tisn())?;
    let mut output = QueryTisOut::default();
    *output.tis_context_mut() = tis.context.read().clone();
    Reply::new(output)
}

fn dispatch(hca: &Hca, context: &Tirc) -> Result<Dispatch> {
    match context.disp_type() {
        DISPATCH_DIRECT => {
            let rq =
                rq::find(hca, context.inline_rqn()).map_err(|_| no_such("the TIR's receive queue does not exist"))?;
            let reference = rq.references.acquire();
            Ok(Dispatch::Direct(rq, reference))
        }
        DISPATCH_INDIRECT => {
            let rqt = find_rqt(hca, context.indirect_table())
                .map_err(|_| no_such("the TIR's receive queue table does not exist"))?;
            let reference = rqt.references.acquire();
            Ok(Dispatch::Indirect(rqt, reference))
        }
        _ => Err(bad_parameter("there is no such way to dispatch")),
    }
}

fn create_tir(firmware: &Firmware, input: Input<'_>) -> Result {
    let hca = &firmware.hca;
    let context = input.fields::<CreateTirIn>()?.ctx();
    let domain = hca
        .transport_domains
        .get(context.transport_domain())
        .ok_or(no_such("the TIR's transport domain does not exist"))?
        .references
        .acquire();
    let state = TirState::new(context.clone(), dispatch(hca, context)?);
    let make = |number| Tir {
        number,
        references: RefCount::default(),
        state: RwLock::new(state),
        domain: Mutex::new(Some(domain)),
    };
    let tir = hca.tirs.insert_with(make).ok_or(TABLE_FULL)?;
    let mut output = CreateTirOut::default();
    output.set_tirn(tir.number);
    Reply::new(output)
}

fn find_tir(hca: &Hca, number: u32) -> Result<Arc<Tir>> {
    hca.tirs.get(number).ok_or(no_object("there is no such TIR"))
}

fn modify_tir(firmware: &Firmware, input: Input<'_>) -> Result {
    let input = input.fields::<ModifyTirIn>()?;
    let tir = find_tir(&firmware.hca, input.tirn())?;
    let (bitmask, new) = (input.bitmask(), input.ctx());
    tir.state.write().modify(|context| {
        if bitmask.self_lb_en() {
            context.set_self_lb_block(new.self_lb_block());
        }
        if bitmask.packet_merge() {
            context.set_packet_merge_mask(new.packet_merge_mask());
            context.set_lro_max_ip_payload_size(new.lro_max_ip_payload_size());
            context.set_lro_timeout_period_usecs(new.lro_timeout_period_usecs());
        }
        if bitmask.hash() {
            context.set_rx_hash_fn(new.rx_hash_fn());
            context.set_rx_hash_symmetric(new.rx_hash_symmetric());
            *context.rx_hash_toeplitz_key_mut() = *new.rx_hash_toeplitz_key();
            *context.rx_hash_field_selector_outer_mut() = new.rx_hash_field_selector_outer().clone();
            *context.rx_hash_field_selector_inner_mut() = new.rx_hash_field_selector_inner().clone();
        }
    });
    Reply::ok::<ModifyTirOut>()
}

fn destroy_tir(firmware: &Firmware, input: Input<'_>) -> Result {
    let number = input.fields::<DestroyTirIn>()?.tirn();
    let tir = find_tir(&firmware.hca, number)?;
    if tir.references.count() > 0 {
        return Err(in_use("flow table entries send to the TIR"));
    }
    tir.retire();
    firmware.hca.tirs.remove(number);
    Reply::ok::<DestroyTirOut>()
}

fn query_tir(firmware: &Firmware, input: Input<'_>) -> Result {
    let tir = find_tir(&firmware.hca, input.fields::<QueryTirIn>()?.tirn())?;
    let mut output = QueryTirOut::default();
    *output.tir_context_mut() = tir.state.read().context().clone();
    Reply::new(output)
}

fn find_rqt(hca: &Hca, number: u32) -> Result<Arc<Rqt>> {
    hca.rqts
        .get(number)
        .ok_or(no_object("there is no such receive queue table"))
}

fn listed_queues(hca: &Hca, context: &Rqtc, list: &[u8]) -> Result<Vec<Arc<Rq>>> {
    let count = context.rqt_actual_size();
    if count > MAX_RQT_SIZE {
        return Err(bad_parameter("the RQT has too many entries").with_syndrome(syndrome::RQT_SIZE));
    }
    let entries = list
        .as_chunks::<4>()
        .0
        .get(..count.into())
        .ok_or(bad_parameter("the list of queues is shorter than it says"))?;
    entries
        .iter()
        .map(|entry| {
            rq::find(hca, u32::from_be_bytes(*entry) & 0xff_ffff)
                .map_err(|_| no_such("a receive queue of the table does not exist"))
        })
        .collect()
}

fn create_rqt(firmware: &Firmware, input: Input<'_>) -> Result {
    let hca = &firmware.hca;
    let (input, list) = input.with_tail::<CreateRqtIn>()?;
    let context = input.rqt_context();
    if context.rqt_max_size() > MAX_RQT_SIZE {
        return Err(bad_parameter("the RQT has too many entries").with_syndrome(syndrome::RQT_SIZE));
    }
    let queues = listed_queues(hca, context, list)?;
    let rqt = hca
        .rqts
        .insert_sized(RQT_BYTES, |number| Rqt::new(number, context.clone(), queues))
        .ok_or(TABLE_FULL)?;
    let mut output = CreateRqtOut::default();
    output.set_rqtn(rqt.number);
    Reply::new(output)
}

fn modify_rqt(firmware: &Firmware, input: Input<'_>) -> Result {
    let (input, list) = input.with_tail::<ModifyRqtIn>()?;
    let rqt = find_rqt(&firmware.hca, input.rqtn())?;
    if input.bitmask().rqn_list() {
        rqt.set_queues(listed_queues(&firmware.hca, input.ctx(), list)?);
    }
    Reply::ok::<ModifyRqtOut>()
}

fn destroy_rqt(firmware: &Firmware, input: Input<'_>) -> Result {
    let number = input.fields::<DestroyRqtIn>()?.rqtn();
    let rqt = find_rqt(&firmware.hca, number)?;
    if rqt.references.count() > 0 {
        return Err(in_use("TIRs are on the table"));
    }
    rqt.set_queues(Vec::new());
    firmware.hca.rqts.remove(number);
    Reply::ok::<DestroyRqtOut>()
}

fn query_rqt(firmware: &Firmware, input: Input<'_>) -> Result {
    let (context, queues) = find_rqt(&firmware.hca, input.fields::<QueryRqtIn>()?.rqtn())?.query();
    let mut output = QueryRqtOut::default();
    *output.rqt_context_mut() = context;
    let list: Vec<u8> = queues.into_iter().flat_map(u32::to_be_bytes).collect();
    Reply::with_tail(output, &list)
}
