//! What goes back to who asked: acknowledgements, refusals, and the data of reads and atomics.

use std::convert::Infallible;

use mlx5_prm::queue_entry::EventType;
use smallvec::SmallVec;

use super::batch::{self, Batch};
use super::{Engine, fail, memory, transport_of};
use crate::hca::qp::{Parameters, Qp};
use crate::hca::queue_counter::QueueCounter;
use crate::roce::headers::{Aeth, AtomicAckEth, Bth, Headers};
use crate::roce::opcode::{Opcode, Operation, Position, Suffix};
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
    Read(Read),
}

/// A read that is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    pub psn: Psn,
    pub msn: u32,
    pub address: u64,
    pub rkey: u32,
    pub length: usize,
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
            batch: Batch::new(engine),
        };
        for answer in self.0 {
            packets.answer(qp, answer);
        }
        packets.batch.send();
    }
}

/// Packets of answers on their way out.
struct Packets<'a> {
    engine: &'a Engine,
    parameters: &'a Parameters,
    batch: Batch<'a>,
}

impl<'a> Packets<'a> {
    fn answer(&mut self, qp: &Qp, answer: Answer) {
        match answer {
            Answer::None => {}
            Answer::Acknowledge { syndrome, psn, msn } => self.acknowledge(psn, syndrome, msn),
            Answer::Atomic { psn, msn, original } => {
                self.push(Operation::AtomicAcknowledge, psn, |headers| {
                    headers.aeth = Some(Aeth::new(Syndrome::ACK.byte(), msn));
                    headers.atomic_ack = Some(AtomicAckEth {
                        original: original.into(),
                    });
                });
            }
            Answer::Read(read) => self.read(qp, read),
        }
    }

    fn read(&mut self, qp: &Qp, read: Read) {
        let mtu = self.parameters.mtu;
        let count = self.parameters.packets(read.length);
        // Of what cannot be reached as a whole, the packets before the first that cannot are sent.
        let (mut index, mut at_once) = (0, (batch::LENGTH / mtu) as u32);
        while index < count {
            let packets = at_once.min(count - index);
            let offset = index as usize * mtu;
            let now = (read.length - offset).min(packets as usize * mtu);
            let at = read.address.wrapping_add(offset as u64);
            let position = Position::new(index == 0, index + packets == count);
            let Some(head) = self.head(Operation::ReadResponse, position, read.psn + index, now, |headers| {
                headers.aeth = (position != Position::Middle).then(|| Aeth::new(Syndrome::ACK.byte(), read.msn));
            }) else {
                return;
            };
            let pushed = self.batch.push(head, mtu, |payload| {
                memory::remote_read(self.engine, qp, self.parameters, read.rkey, at, now, payload)
            });
            match pushed {
                Ok(()) => {
                    index += packets;
                    self.send_if_full();
                }
                Err(_) if packets > 1 => at_once = 1,
                Err(_) => {
                    // The key was taken away meanwhile.
                    self.acknowledge(read.psn + index, Syndrome::Nak(Nak::RemoteAccess), read.msn);
                    self.parameters.count(QueueCounter::RespRemoteAccessErrors);
                    return fail(self.engine, qp, Some(EventType::WqAccessError));
                }
            }
        }
    }

    fn acknowledge(&mut self, psn: Psn, syndrome: Syndrome, msn: u32) {
        self.push(Operation::Acknowledge, psn, |headers| {
            headers.aeth = Some(Aeth::new(syndrome.byte(), msn));
        });
    }

    /// Adds a packet without payload.
    fn push(&mut self, operation: Operation, psn: Psn, extend: impl FnOnce(&mut Headers)) {
        if let Some(head) = self.head(operation, Position::Only, psn, 0, extend) {
            let Ok(()) = self.batch.push(head, self.parameters.mtu, |_| Ok::<_, Infallible>(()));
            self.send_if_full();
        }
    }

    fn head(
        &self,
        operation: Operation,
        position: Position,
        psn: Psn,
        length: usize,
        extend: impl FnOnce(&mut Headers),
    ) -> Option<Packet> {
        let opcode = Opcode::new(transport_of(self.parameters), operation, position, Suffix::None)?;
        let mut headers = Headers::new(Bth::new(opcode, self.parameters.remote_qpn, psn));
        extend(&mut headers);
        Some(Packet::new(self.parameters.path?, opcode, headers, length))
    }

    fn send_if_full(&mut self) {
        if self.batch.is_full() {
            self.batch.send();
        }
    }
}
