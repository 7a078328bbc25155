//! What goes back to who asked: acknowledgements, refusals, and the data of reads and atomics.

use mlx5_prm::queue_entry::EventType;
use smallvec::SmallVec;

use super::{BURST, Engine, fail, memory, send, transport_of};
use crate::hca::qp::{Parameters, Qp};
use crate::net::{Payload, RocePacket};
use crate::roce::headers::{Aeth, AtomicAckEth, Bth, Headers};
use crate::roce::opcode::{Notice, Opcode, Operation, Position};
use crate::roce::packet::Packet;
use crate::roce::psn::Psn;
use crate::roce::syndrome::{Nak, Syndrome};

/// What goes back to the requester, once nobody holds the queue pair.
#[derive(Debug, Clone, Copy)]
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

/// The answers to a burst, in the order of the requests.
#[derive(Debug, Default)]
pub(super) struct Answers(SmallVec<[Answer; 4]>);

impl Answers {
    /// Adds an answer. An acknowledgement stands for those right before it.
    pub(super) fn push(&mut self, answer: Answer) {
        let acknowledges = |answer: &Answer| {
            matches!(
                answer,
                Answer::Acknowledge {
                    syndrome: Syndrome::Ack { .. },
                    ..
                }
            )
        };
        match (self.0.last_mut(), answer) {
            (_, Answer::None) => {}
            (Some(last), answer) if acknowledges(last) && acknowledges(&answer) => *last = answer,
            (_, answer) => self.0.push(answer),
        }
    }

    /// Sends them.
    pub(super) fn send(self, engine: &Engine, qp: &Qp, parameters: &Parameters) {
        let mut packets = Packets {
            engine,
            parameters,
            waiting: Vec::new(),
        };
        for answer in self.0 {
            packets.answer(qp, answer);
        }
        packets.flush();
    }
}

/// Packets of answers on their way out.
struct Packets<'a> {
    engine: &'a Engine,
    parameters: &'a Parameters,
    waiting: Vec<RocePacket<'a>>,
}

impl<'a> Packets<'a> {
    fn answer(&mut self, qp: &Qp, answer: Answer) {
        match answer {
            Answer::None => {}
            Answer::Acknowledge { syndrome, psn, msn } => self.acknowledge(psn, syndrome, msn),
            Answer::Atomic { psn, msn, original } => {
                let aeth = Aeth::new(Syndrome::ACK.byte(), msn);
                self.push(Operation::AtomicAcknowledge, Position::Only, psn, Payload::new(), |headers| {
                    headers.aeth = Some(aeth);
                    headers.atomic_ack = Some(AtomicAckEth {
                        original: original.into(),
                    });
                });
            }
            Answer::Read {
                psn,
                msn,
                address,
                rkey,
                length,
            } => {
                let mtu = self.parameters.mtu;
                let count = (length as usize).div_ceil(mtu).max(1) as u32;
                for index in 0..count {
                    let offset = index as usize * mtu;
                    let now = (length as usize - offset).min(mtu);
                    let at = address.wrapping_add(offset as u64);
                    let Ok(payload) = memory::remote_read(self.engine, qp, self.parameters, rkey, at, now) else {
                        // The key was taken away meanwhile.
                        self.acknowledge(psn + index, Syndrome::Nak(Nak::RemoteAccess), msn);
                        return fail(self.engine, qp, Some(EventType::WqAccessError));
                    };
                    let position = Position::of(index, count);
                    self.push(Operation::ReadResponse, position, psn + index, payload, |headers| {
                        headers.aeth =
                            (position != Position::Middle).then(|| Aeth::new(Syndrome::ACK.byte(), msn));
                    });
                }
            }
        }
    }

    fn acknowledge(&mut self, psn: Psn, syndrome: Syndrome, msn: u32) {
        self.push(Operation::Acknowledge, Position::Only, psn, Payload::new(), |headers| {
            headers.aeth = Some(Aeth::new(syndrome.byte(), msn));
        });
    }

    fn push(
        &mut self,
        operation: Operation,
        position: Position,
        psn: Psn,
        payload: Payload<'a>,
        extend: impl FnOnce(&mut Headers),
    ) {
        let opcode = Opcode::new(transport_of(self.parameters), operation, position, Notice::None);
        let (Some(opcode), Some(path)) = (opcode, self.parameters.path) else {
            return;
        };
        let mut headers = Headers::new(Bth::new(opcode, self.parameters.remote_qpn, psn));
        extend(&mut headers);
        self.waiting.push(RocePacket {
            head: Packet::new(path, opcode, headers, payload.len()),
            payload,
        });
        if self.waiting.len() == BURST {
            self.flush();
        }
    }

    fn flush(&mut self) {
        send(self.engine, &self.waiting);
        self.waiting.clear();
    }
}
