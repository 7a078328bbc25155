//! The cause of each event: doorbell, WQE, packet, packet at the peer, CQE, EQE, interrupt.

use std::collections::HashMap;

use mlx5_prm::queue_entry::{CqeOpcode, EventType, Syndrome};
use vhost_daemon::trace::{Event, Events};

use crate::dma::Purpose;
use crate::hca::nic_event::{NicEvent, Timer, is_error_cqe};
use crate::roce::opcode::Opcode;

/// WQEs of a queue whose packets may still be sent.
const RECENT_WQES: usize = 1 << 12;
/// Half of the PSNs: what is further ahead is behind (IBTA 9.7.1).
const PSN_HALF: u32 = 1 << 23;
const PSN_MASK: u32 = 0xff_ffff;

/// A queue, CQ or EQ of a guest.
type Object = (u16, u32);

/// A send WQE of a queue pair.
struct Wqe {
    /// Index of its event.
    event: usize,
    /// Position in the queue.
    wqe_index: u32,
    /// First PSN.
    psn: u32,
    packets: u32,
}

/// The latest packet or frame that a thread received.
#[derive(Clone, Copy)]
enum Receive {
    Packet(usize),
    Frame(usize),
}

/// The latest events that others can be caused by.
#[derive(Default)]
struct Latest {
    doorbells: HashMap<Object, usize>,
    wqes: HashMap<Object, Vec<Wqe>>,
    frame_wqes: HashMap<(Object, u32), usize>,
    /// Packets that left, by what identifies them at the receiver: BTH, destination, route.
    packets: HashMap<(u32, u32, u32), usize>,
    requests_in: HashMap<Object, usize>,
    responses_in: HashMap<Object, usize>,
    /// Timers that have not expired: the time that each is set to, and the index of its event.
    timers: HashMap<Object, Vec<(u64, usize)>>,
    ack_timeouts: HashMap<Object, usize>,
    moderated: HashMap<Object, usize>,
    rnr_naks: HashMap<Object, usize>,
    hot_periods: HashMap<Object, usize>,
    /// Events that are caused by the latest of the same thread.
    work_by_thread: HashMap<u32, usize>,
    /// The queue that a thread turned to, and whether because of a timer.
    services_by_thread: HashMap<u32, (Object, usize, bool)>,
    frames_by_thread: HashMap<u32, usize>,
    receives_by_thread: HashMap<u32, Receive>,
    /// Received frames by thread, guest and index of the WQE.
    frames_in: HashMap<(u32, u16, u32), usize>,
    /// The latest CQE of a CQ.
    cqes: HashMap<Object, usize>,
    /// The latest error CQE of a queue.
    failures: HashMap<Object, usize>,
    eqes: HashMap<Object, usize>,
    command_doorbells: HashMap<u16, usize>,
    commands: HashMap<u16, usize>,
}

/// Returns for each event the index of the one that caused it. `events` are in the order of time.
pub fn find(events: &[Event]) -> Vec<Option<usize>> {
    let mut latest = Latest::default();
    let mut cause = |index, event: &Event| {
        let kind = NicEvent::at(event.event)?;
        let cause = latest.cause(index, kind, event);
        if is_work(kind) {
            latest.work_by_thread.insert(event.thread, index);
        }
        cause
    };
    events
        .iter()
        .enumerate()
        .map(|(index, event)| cause(index, event))
        .collect()
}

/// Whether a thread accesses memory on behalf of such an event.
fn is_work(kind: NicEvent) -> bool {
    match kind {
        NicEvent::CommandDoorbell
        | NicEvent::Command
        | NicEvent::Doorbell
        | NicEvent::BlueFlame
        | NicEvent::ArmCq
        | NicEvent::UpdateEq
        | NicEvent::Service
        | NicEvent::TimerExpired
        | NicEvent::ModerationExpired
        | NicEvent::Wqe
        | NicEvent::FrameWqe
        | NicEvent::PacketOut
        | NicEvent::PacketIn
        | NicEvent::FrameIn
        | NicEvent::Cqe => true,
        NicEvent::HotPeriod
        | NicEvent::TimerSet
        | NicEvent::ModerationSet
        | NicEvent::DmaRead
        | NicEvent::DmaWrite
        | NicEvent::AckOut
        | NicEvent::AckIn
        | NicEvent::AckTimeout
        | NicEvent::RnrNak
        | NicEvent::Retransmission
        | NicEvent::Eqe
        | NicEvent::Interrupt
        | NicEvent::Fault
        | NicEvent::Finding => false,
    }
}

/// Whether a BTH is that of a response.
pub(super) fn is_response(bth: u32) -> bool {
    Opcode::from_byte((bth >> 24) as u8).is_some_and(Opcode::is_response)
}

impl Latest {
    /// Notes an event and returns its cause.
    fn cause(&mut self, index: usize, kind: NicEvent, event: &Event) -> Option<usize> {
        let object = (event.guest, event.object);
        let [first, second, third, fourth] = event.arguments;
        match kind {
            NicEvent::Doorbell | NicEvent::BlueFlame => self.doorbells.insert(object, index).and(None),
            NicEvent::Wqe => {
                let wqes = self.wqes.entry(object).or_default();
                if wqes.len() >= RECENT_WQES {
                    wqes.drain(..RECENT_WQES / 2);
                }
                wqes.push(Wqe {
                    event: index,
                    wqe_index: first,
                    psn: third,
                    packets: fourth,
                });
                self.doorbells.get(&object).copied()
            }
            NicEvent::FrameWqe => {
                self.frame_wqes.insert((object, first), index);
                self.frames_by_thread.insert(event.thread, index);
                self.doorbells.get(&object).copied()
            }
            NicEvent::PacketOut => {
                self.packets.insert((first, second, fourth), index);
                match is_response(first) {
                    true => self.requests_in.get(&object).copied(),
                    false => self.wqe_of(object, first & PSN_MASK),
                }
            }
            NicEvent::PacketIn => {
                let arrived = match is_response(first) {
                    true => &mut self.responses_in,
                    false => &mut self.requests_in,
                };
                arrived.insert(object, index);
                self.receives_by_thread.insert(event.thread, Receive::Packet(index));
                self.packets.get(&(first, event.object, third)).copied()
            }
            NicEvent::FrameIn => {
                self.receives_by_thread.insert(event.thread, Receive::Frame(index));
                self.frames_in.insert((event.thread, event.guest, first), index);
                self.frames_by_thread.get(&event.thread).copied()
            }
            NicEvent::Service => {
                self.services_by_thread.insert(event.thread, (object, index, false));
                let hot_period = self.hot_periods.get(&object).copied();
                let (doorbell, response) = (self.doorbells.get(&object), self.responses_in.get(&object));
                hot_period.filter(|_| first != 0).or(doorbell.max(response).copied())
            }
            NicEvent::HotPeriod => {
                self.hot_periods.insert(object, index);
                self.doorbells.get(&object).copied()
            }
            NicEvent::TimerSet => {
                let end = event.time + 1000 * u64::from(second);
                self.timers.entry(object).or_default().push((end, index));
                match Timer::ALL.get(first as usize) {
                    Some(Timer::Acknowledgement) => self.wqes.get(&object).and_then(|wqes| Some(wqes.last()?.event)),
                    Some(Timer::ReceiverNotReady) => self.rnr_naks.get(&object).copied(),
                    Some(Timer::Flush) | None => self.work_by_thread.get(&event.thread).copied(),
                }
            }
            NicEvent::TimerExpired => {
                self.services_by_thread.insert(event.thread, (object, index, true));
                let timers = self.timers.get_mut(&object)?;
                let first = timers.iter().enumerate().min_by_key(|(_, timer)| **timer)?.0;
                Some(timers.swap_remove(first).1)
            }
            NicEvent::ModerationSet => {
                self.moderated.insert(object, index);
                self.cqes.get(&object).copied()
            }
            NicEvent::ModerationExpired => self.moderated.get(&object).copied(),
            NicEvent::DmaRead | NicEvent::DmaWrite => self.cause_of_access(event),
            NicEvent::AckOut => self.requests_in.get(&object).copied(),
            NicEvent::AckIn => self.responses_in.get(&object).copied(),
            NicEvent::AckTimeout => {
                self.ack_timeouts.insert(object, index);
                let service = self.services_by_thread.get(&event.thread);
                let timer = service.filter(|(of, _, by_timer)| *by_timer && *of == object);
                timer.map(|(_, index, _)| *index).or(self.wqe_of(object, first))
            }
            NicEvent::Retransmission | NicEvent::RnrNak => {
                if kind == NicEvent::RnrNak {
                    self.rnr_naks.insert(object, index);
                }
                self.wqe_of(object, first).or(self.responses_in.get(&object).copied())
            }
            NicEvent::Cqe => {
                self.cqes.insert(object, index);
                let cause = self.cause_of_cqe(event);
                if is_error_cqe(&event.arguments) {
                    self.failures.insert((event.guest, first), index);
                }
                cause
            }
            NicEvent::Eqe => {
                self.eqes.insert(object, index);
                match first {
                    kind if kind == EventType::Completion as u32 => self.cqes.get(&(event.guest, third)).copied(),
                    kind if kind == EventType::Command as u32 => self.commands.get(&event.guest).copied(),
                    _ => None,
                }
            }
            NicEvent::Interrupt => self.eqes.get(&(event.guest, first)).copied(),
            NicEvent::CommandDoorbell => self.command_doorbells.insert(event.guest, index).and(None),
            NicEvent::Command => {
                self.commands.insert(event.guest, index);
                self.command_doorbells.get(&event.guest).copied()
            }
            NicEvent::Fault | NicEvent::Finding => self.work_by_thread.get(&event.thread).copied(),
            NicEvent::ArmCq | NicEvent::UpdateEq => None,
        }
    }

    /// The WQE that a PSN of a queue pair belongs to.
    fn wqe_of(&self, queue: Object, psn: u32) -> Option<usize> {
        let wqes = self.wqes.get(&queue)?;
        let ahead = |first: u32| psn.wrapping_sub(first) & PSN_MASK;
        let wqe = wqes.iter().rfind(|wqe| ahead(wqe.psn) < wqe.packets);
        // Datagrams and WQEs of unknown length: the latest that begins before.
        let begun = || wqes.iter().rfind(|wqe| ahead(wqe.psn) < PSN_HALF);
        wqe.or_else(begun).map(|wqe| wqe.event)
    }

    fn cause_of_access(&self, event: &Event) -> Option<usize> {
        let latest = self.work_by_thread.get(&event.thread).copied();
        let [fetch, reply] = [Purpose::CommandFetch, Purpose::CommandReply].map(|purpose| purpose as u32);
        let [record, wqe] = [Purpose::DoorbellRecord, Purpose::SendWqe].map(|purpose| purpose as u32);
        match event.object {
            purpose if purpose == fetch || purpose == reply => self.command_doorbells.get(&event.guest).copied(),
            // Between two WQEs are the packets of the first.
            purpose if purpose == record || purpose == wqe => {
                let service = self.services_by_thread.get(&event.thread);
                let own = service.filter(|((guest, _), ..)| *guest == event.guest);
                own.map(|(_, index, _)| *index).or(latest)
            }
            _ => latest,
        }
    }

    fn cause_of_cqe(&self, event: &Event) -> Option<usize> {
        let [queue, wqe_index, opcode, syndrome] = event.arguments;
        let queue = (event.guest, queue);
        let failure = self.failures.get(&queue).copied();
        let requester = opcode == CqeOpcode::Request as u32 || opcode == CqeOpcode::RequestError as u32;
        if !requester {
            // No packet is received into a flushed WQE: what ended the queue is the cause.
            let flushed = is_error_cqe(&event.arguments) && syndrome == Syndrome::WrFlush as u32;
            return match flushed {
                true => failure.max(self.requests_in.get(&queue).copied()),
                false => match self.receives_by_thread.get(&event.thread)? {
                    Receive::Packet(index) => Some(*index),
                    // Completions of a burst may be written at its end.
                    Receive::Frame(latest) => {
                        let own = self.frames_in.get(&(event.thread, event.guest, wqe_index));
                        Some(*own.unwrap_or(latest))
                    }
                },
            };
        }
        let frame = self.frame_wqes.get(&(queue, wqe_index)).copied();
        let own = |wqes: &Vec<Wqe>| Some(wqes.iter().rfind(|wqe| wqe.wqe_index == wqe_index)?.event);
        let wqe = frame.or_else(|| self.wqes.get(&queue).and_then(own));
        // A WQE that is flushed need not have been read.
        let posted = wqe.or_else(|| self.doorbells.get(&queue).copied());
        // A response or timeout before the WQE is of an earlier message. Unreliable services have neither.
        let response = self.responses_in.get(&queue).copied();
        let timeout = self.ack_timeouts.get(&queue).copied();
        posted.max(response).max(timeout).max(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_of_a_burst_is_caused_by_its_frame() {
        let at = |kind: NicEvent, arguments| Event {
            time: 0,
            event: kind.index(),
            guest: 1,
            object: 7,
            arguments,
            thread: 0,
        };
        let frame = |index| at(NicEvent::FrameIn, [index, 60, 0, 0]);
        let cqe = |index| at(NicEvent::Cqe, [0, index, CqeOpcode::ResponderSend as u32, 0]);
        let packet = at(NicEvent::PacketIn, [0, 0, 0, 0]);
        let events = [
            frame(4),
            frame(5),
            cqe(4),
            cqe(5),
            // A queue pair has a WQE of the same index.
            packet,
            cqe(4),
            frame(6),
            cqe(9),
        ];
        let causes = find(&events);
        assert_eq!(causes[2..4], [Some(0), Some(1)]);
        assert_eq!(causes[5], Some(4));
        assert_eq!(causes[7], Some(6), "of a frame that another thread received");
    }
}
