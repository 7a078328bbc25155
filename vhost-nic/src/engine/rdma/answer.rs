//! What goes back to who asked: acknowledgements, refusals, and the data of reads and atomics.

use mlx5_prm::queue_entry::EventType;

use super::{Engine, Outgoing, fail, memory, send};
use crate::hca::qp::{Parameters, Qp, service};
use crate::hca::queue_counter::QueueCounter;
use crate::net::Payload;
use crate::roce::headers::{Aeth, AtomicAckEth, Bth, Headers};
use crate::roce::opcode::{Notice, Opcode, Operation, Position, Transport};
use crate::roce::psn::Psn;
use crate::roce::syndrome::{Nak, Syndrome};

/// What goes back to the requester, once nobody holds the queue pair.
pub(super) enum Answer {
    /// Nothing.
    None,
    /// An acknowledgement, or a refusal.
    Acknowledge { syndrome: Syndrome, psn: Psn, msn: u32 },
    /// What an atomic operation found.
    Atomic { psn: Psn, msn: u32, original: u64 },
    /// The data of a read.
    Read {
        psn: Psn,
        msn: u32,
        address: u64,
        rkey: u32,
        length: u32,
    },
}

/// Sends an answer.
pub(super) fn send_answer(engine: &Engine, qp: &Qp, parameters: &Parameters, answer: Answer) {
    let Some(path) = parameters.path else { return };
    let transport = if parameters.service == service::XRC {
        Transport::Xrc
    } else {
        Transport::Rc
    };
    let respond = |operation, position, psn, aeth: Option<Aeth>, original: Option<u64>, payload: Payload| {
        if let Some(opcode) = Opcode::new(transport, operation, position, Notice::None) {
            let mut headers = Headers::new(Bth::new(opcode, parameters.remote_qpn, psn));
            headers.aeth = aeth;
            headers.atomic_ack = original.map(|original| AtomicAckEth {
                original: original.into(),
            });
            send(engine, &Outgoing { path, headers, payload });
        }
    };
    let nothing = Payload::default;
    match answer {
        Answer::None => {}
        Answer::Acknowledge { syndrome, psn, msn } => {
            let aeth = Aeth::new(syndrome.byte(), msn);
            respond(Operation::Acknowledge, Position::Only, psn, Some(aeth), None, nothing());
        }
        Answer::Atomic { psn, msn, original } => {
            let aeth = Aeth::new(Syndrome::ACK.byte(), msn);
            respond(
                Operation::AtomicAcknowledge,
                Position::Only,
                psn,
                Some(aeth),
                Some(original),
                nothing(),
            );
        }
        Answer::Read {
            psn,
            msn,
            address,
            rkey,
            length,
        } => {
            let count = (length as usize).div_ceil(parameters.mtu).max(1) as u32;
            for index in 0..count {
                let offset = index as usize * parameters.mtu;
                let now = (length as usize - offset).min(parameters.mtu);
                let at = address.wrapping_add(offset as u64);
                let Ok(payload) = memory::remote_read(engine, qp, parameters, rkey, at, now) else {
                    // The key was taken away meanwhile.
                    let aeth = Aeth::new(Syndrome::Nak(Nak::RemoteAccess).byte(), msn);
                    respond(
                        Operation::Acknowledge,
                        Position::Only,
                        psn + index,
                        Some(aeth),
                        None,
                        nothing(),
                    );
                    parameters.count(QueueCounter::RespRemoteAccessErrors);
                    return fail(engine, qp, Some(EventType::WqAccessError));
                };
                let position = Position::of(index, count);
                let aeth = (position != Position::Middle).then(|| Aeth::new(Syndrome::ACK.byte(), msn));
                respond(Operation::ReadResponse, position, psn + index, aeth, None, payload);
            }
        }
    }
}
