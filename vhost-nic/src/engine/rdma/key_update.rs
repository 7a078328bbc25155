//! UMR WQEs: changes of memory keys.

use mlx5_prm::mkey::Mkc;
use mlx5_prm::rdma_wqe::UmrControlSegment;
use mlx5_prm::wqe::DataSegment;
use zerocopy::FromBytes;

use super::endpoint::Endpoint;
use crate::hca::mkey::{self, Access, UmrControl, UmrPoster};
use crate::hca::qp::service;

/// Changes a memory key as the segments of a WQE request. Returns the bytes of the list that was read from memory.
pub(super) fn execute(endpoint: &Endpoint<'_>, key: u32, segments: &[u8]) -> Option<usize> {
    let (control, context, list) = parse(segments)?;
    let parameters = endpoint.parameters;
    let poster = UmrPoster {
        accessor: endpoint.accessor(),
        reg_umr: parameters.service == service::REG_UMR,
        fast_register: parameters.fast_register,
    };
    let (mut translations, mut read) = (Vec::new(), 0);
    if control.flags & UmrControlSegment::INLINE != 0 {
        translations.extend_from_slice(list);
    } else if control.translation_length() > 0 {
        let (mut segment, _) = DataSegment::read_from_prefix(list).ok()?;
        let length = control.translation_length().min(segment.byte_count.get() as usize);
        segment.byte_count.set(length as u32);
        let memory = endpoint.memory();
        memory
            .gather(segment.into(), Access::LocalRead, &mut translations)
            .ok()?;
        read = length;
    }
    let hca = endpoint.hca();
    let control = UmrControl::from(&control);
    let was_in_use = mkey::umr(&hca.mkeys, poster, key, &control, &context, &translations);
    // A list for which no memory is left may have lost entries.
    if was_in_use.unwrap_or(true) {
        hca.revoke();
    }
    was_in_use.ok()?;
    let index = key >> mkey::VARIANT_BITS;
    if hca.mkeys.get(index).is_some_and(|mkey| mkey.is_invalid(key)) {
        hca.retired_keys.add(key);
    }
    Some(read)
}

/// Splits the segments of a WQE: control, context, and the translation list or the data segment of its address.
fn parse(segments: &[u8]) -> Option<(UmrControlSegment, Mkc, &[u8])> {
    let (control, rest) = UmrControlSegment::read_from_prefix(segments).ok()?;
    let (context, list) = Mkc::read_from_prefix(rest).ok()?;
    Some((control, context, list))
}
