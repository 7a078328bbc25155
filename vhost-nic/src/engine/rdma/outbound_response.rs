//! Responder: acknowledgements, NAKs, and the data of reads and atomics.

use std::convert::Infallible;

use mlx5_prm::queue_entry::EventType;
use smallvec::SmallVec;

use super::super::denial;
use super::super::memory::KeyRange;
use super::batch::{self, Batch};
use super::endpoint::Endpoint;
use crate::hca::mkey::{self, Access};
use crate::hca::nic_event::NicEvent;
use crate::hca::queue_counter::QueueCounter;
use crate::roce::headers::{Aeth, AtomicAckEth, Bth, Headers};
use crate::roce::opcode::{Opcode, Operation, Position, Suffix};
use crate::roce::packet::Packet;
use crate::roce::psn::Psn;
use crate::roce::syndrome::{Nak, Syndrome};

/// A response, to be sent once the queue pair is unlocked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Response {
    /// No response.
    None,
    /// An acknowledgement or a NAK.
    Acknowledge { syndrome: Syndrome, psn: Psn, msn: u32 },
    /// The original value of an atomic.
    Atomic { psn: Psn, msn: u32, original: u64 },
    /// The data of a read.
    Read(Read),
}

/// A read to be answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    pub psn: Psn,
    pub msn: u32,
    pub address: u64,
    pub rkey: u32,
    pub length: usize,
}

/// The responses to a burst, in the order of its requests.
#[derive(Debug, Default)]
pub(super) struct Responses(SmallVec<[Response; 4]>);

impl Responses {
    /// Adds a response. An acknowledgement replaces one right before it.
    pub fn push(&mut self, response: Response) {
        let acknowledges = |response: &Response| {
            matches!(
                response,
                Response::Acknowledge {
                    syndrome: Syndrome::Ack { .. },
                    ..
                }
            )
        };
        match (self.0.last_mut(), response) {
            (_, Response::None) => {}
            (Some(last), response) if acknowledges(last) && acknowledges(&response) => *last = response,
            (_, response) => self.0.push(response),
        }
    }

    /// Sends the responses.
    pub fn send(self, endpoint: &Endpoint<'_>) {
        let mut packets = Packets {
            endpoint,
            batch: Batch::new(endpoint.context, endpoint.qp.number),
            keys: mkey::Recent::new(&endpoint.hca().mkeys),
        };
        for response in self.0 {
            packets.respond(response);
        }
        packets.send();
    }
}

/// Packets of responses on their way out.
struct Packets<'a> {
    endpoint: &'a Endpoint<'a>,
    batch: Batch<'a>,
    /// The key of the last read, unlocked before packets are sent.
    keys: mkey::Recent<'a>,
}

impl Packets<'_> {
    fn respond(&mut self, response: Response) {
        match response {
            Response::None => {}
            Response::Acknowledge { syndrome, psn, msn } => self.acknowledge(psn, syndrome, msn),
            Response::Atomic { psn, msn, original } => {
                self.push(Operation::AtomicAcknowledge, psn, |headers| {
                    headers.aeth = Some(Aeth::new(Syndrome::ACK.byte(), msn));
                    headers.atomic_ack = Some(AtomicAckEth {
                        original: original.into(),
                    });
                });
            }
            Response::Read(read) => self.read(read),
        }
    }

    fn read(&mut self, read: Read) {
        let endpoint = self.endpoint;
        let (mtu, count) = (endpoint.parameters.mtu, endpoint.parameters.packets(read.length));
        // If the data cannot be accessed as a whole, the packets before the first that cannot are sent.
        let (mut index, mut limit) = (0, (batch::LENGTH / mtu) as u32);
        while index < count {
            let packets = limit.min(count - index);
            let offset = index as usize * mtu;
            let range = KeyRange {
                key: read.rkey,
                address: read.address.wrapping_add(offset as u64),
                length: (read.length - offset).min(packets as usize * mtu),
            };
            let psn = read.psn + index;
            let position = Position::new(index == 0, index + packets == count);
            let Some((opcode, mut headers)) = self.head(Operation::ReadResponse, position, psn) else {
                return;
            };
            headers.aeth = (position != Position::Middle).then(|| Aeth::new(Syndrome::ACK.byte(), read.msn));
            let Some(path) = endpoint.parameters.path else { return };
            let head = Packet::new(path, opcode, headers, range.length);
            let pushed = self.batch.push(head, mtu, None, |payload| {
                let memory = endpoint.memory();
                memory.gather_recent(&mut self.keys, range, Access::RemoteRead, payload)
            });
            match pushed {
                Ok(()) => {
                    index += packets;
                    self.send_if_full();
                }
                Err(_) if packets > 1 => limit = 1,
                Err(error) => {
                    self.keys.unlock();
                    denial::report(endpoint.hca(), endpoint.qp.number, &error);
                    // The key was revoked after the request had been accepted.
                    self.acknowledge(psn, Syndrome::Nak(Nak::RemoteAccess), read.msn);
                    endpoint.count(QueueCounter::RespRemoteAccessErrors);
                    return endpoint.fail(Some(EventType::WqAccessError));
                }
            }
        }
    }

    fn acknowledge(&mut self, psn: Psn, syndrome: Syndrome, msn: u32) {
        let arguments = || [psn.value(), syndrome.byte().into(), msn & 0xff_ffff, 0];
        self.endpoint.trace(NicEvent::AckOut, arguments);
        self.push(Operation::Acknowledge, psn, |headers| {
            headers.aeth = Some(Aeth::new(syndrome.byte(), msn));
        });
    }

    /// Adds a packet without payload.
    fn push(&mut self, operation: Operation, psn: Psn, extend: impl FnOnce(&mut Headers)) {
        let parameters = self.endpoint.parameters;
        let (Some((opcode, mut headers)), Some(path)) = (self.head(operation, Position::Only, psn), parameters.path)
        else {
            return;
        };
        extend(&mut headers);
        let head = Packet::new(path, opcode, headers, 0);
        let Ok(()) = self.batch.push(head, parameters.mtu, None, |_| Ok::<_, Infallible>(()));
        self.send_if_full();
    }

    fn head(&self, operation: Operation, position: Position, psn: Psn) -> Option<(Opcode, Headers)> {
        let parameters = self.endpoint.parameters;
        let opcode = Opcode::new(parameters.transport(), operation, position, Suffix::None)?;
        let bth = Bth::new(opcode, parameters.remote_qpn, psn);
        Some((opcode, Headers::new(bth)))
    }

    fn send_if_full(&mut self) {
        if self.batch.is_full() {
            self.send();
        }
    }

    fn send(&mut self) {
        self.keys.unlock();
        self.batch.send();
    }
}
