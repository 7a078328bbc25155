//! Requester: packets of requests on connections.

use std::convert::Infallible;

use mlx5_prm::queue_entry::Syndrome;

use super::batch::Batch;
use super::endpoint::Endpoint;
use super::failure::Failure;
use crate::hca::mkey;
use crate::hca::qp::{Message, Work};
use crate::roce::headers::{AtomicEth, Bth, Headers, Ieth, ImmDt, Reth, XrcEth};
use crate::roce::opcode::{Opcode, Operation, Position, Suffix};
use crate::roce::packet::Packet;
use crate::roce::psn::Psn;

/// Adds packets of a message from `psn` on to the batch, with `limit` bytes of payload at most. Returns the number of
/// PSNs they take, or the failure if the payload cannot be accessed. The last key of the payload stays locked in
/// `keys`.
pub(super) fn push(
    endpoint: &Endpoint<'_>,
    message: &Message,
    psn: Psn,
    limit: usize,
    keys: &mut mkey::Recent<'_>,
    batch: &mut Batch<'_>,
) -> Result<u32, Failure> {
    let parameters = endpoint.parameters;
    let unsendable = || Failure::from(Syndrome::LocalProtection);
    let path = parameters.path.ok_or_else(unsendable)?;
    let index = psn.distance(message.first()).max(0) as u32;
    let packets = match message.packets().saturating_sub(index) {
        1 => 1,
        rest => rest.min((limit / parameters.mtu) as u32),
    };
    let position = Position::new(index == 0, index + packets >= message.packets());
    let offset = index as usize * parameters.mtu;
    let length = (message.length() as usize)
        .saturating_sub(offset)
        .min(packets as usize * parameters.mtu);
    let (operation, position, suffix) = match *message.work() {
        Work::Send { immediate, invalidate } => (Operation::Send, position, suffix(position, immediate, invalidate)),
        Work::Write { immediate, .. } => (Operation::Write, position, suffix(position, immediate, None)),
        Work::Read { .. } => (Operation::ReadRequest, Position::Only, Suffix::None),
        Work::CompareSwap { .. } => (Operation::CompareSwap, Position::Only, Suffix::None),
        Work::FetchAdd { .. } => (Operation::FetchAdd, Position::Only, Suffix::None),
        Work::Nop | Work::Datagram { .. } | Work::Umr { .. } | Work::Bad(_) => return Err(unsendable()),
    };
    let opcode = Opcode::new(parameters.transport(), operation, position, suffix).ok_or_else(unsendable)?;
    let solicited = position.ends() && message.is_solicited() && !message.work().is_request();
    let mut headers = Headers::new(Bth::new(opcode, parameters.remote_qpn, psn).with_solicited(solicited));
    headers.xrc = message.xrc_srqn().map(XrcEth::new);
    extend(&mut headers, message, position, offset);
    if message.work().is_request() {
        let head = Packet::new(path, opcode, headers, 0);
        let Ok(()) = batch.push(head, 0, Some(message.index()), |_| Ok::<_, Infallible>(()));
        // The response takes the PSNs that follow.
        return Ok(message.packets() - message.responses());
    }
    let head = Packet::new(path, opcode, headers, length);
    batch
        .push(head, parameters.mtu, Some(message.index()), |payload| {
            let memory = endpoint.memory();
            memory.gather_list(keys, message.data(), offset..offset + length, payload)
        })
        .map_err(Failure::access)?;
    Ok(packets)
}

/// Adds the extended transport headers of a packet at this position of the message, `offset` bytes behind its
/// beginning.
fn extend(headers: &mut Headers, message: &Message, position: Position, offset: usize) {
    match *message.work() {
        Work::Send { immediate, invalidate } => {
            if position.ends() {
                headers.immediate = immediate.map(immediate_header);
                headers.invalidate = invalidate.map(|rkey| Ieth { rkey: rkey.into() });
            }
        }
        Work::Write {
            address,
            rkey,
            immediate,
        } => {
            if position.begins() {
                headers.reth = Some(Reth::new(address, rkey, message.length()));
            }
            if position.ends() {
                headers.immediate = immediate.map(immediate_header);
            }
        }
        Work::Read { address, rkey } => {
            // Only the part without a response is requested again.
            let done = offset.min(message.length() as usize);
            headers.reth = Some(Reth::new(
                address.wrapping_add(done as u64),
                rkey,
                message.length() - done as u32,
            ));
        }
        Work::CompareSwap {
            address,
            rkey,
            swap,
            compare,
        } => {
            headers.atomic = Some(AtomicEth {
                virtual_address: address.into(),
                rkey: rkey.into(),
                swap_or_add: swap.into(),
                compare: compare.into(),
            });
        }
        Work::FetchAdd { address, rkey, add } => {
            headers.atomic = Some(AtomicEth {
                virtual_address: address.into(),
                rkey: rkey.into(),
                swap_or_add: add.into(),
                compare: 0.into(),
            });
        }
        Work::Nop | Work::Datagram { .. } | Work::Umr { .. } | Work::Bad(_) => {}
    }
}

fn immediate_header(immediate: u32) -> ImmDt {
    ImmDt {
        immediate: immediate.to_be_bytes(),
    }
}

fn suffix(position: Position, immediate: Option<u32>, invalidate: Option<u32>) -> Suffix {
    match (position.ends(), immediate, invalidate) {
        (true, Some(_), _) => Suffix::Immediate,
        (true, None, Some(_)) => Suffix::Invalidate,
        _ => Suffix::None,
    }
}
