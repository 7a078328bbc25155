//! Labels of events.

use std::borrow::Cow;

use mlx5_prm::opcode::Opcode as CommandOpcode;
use mlx5_prm::queue_entry::{EventType, Syndrome};
use mlx5_prm::wqe::WqeOpcode;
use pci_function::dma::Purpose as _;
use vhost_daemon::trace::{Event, Events};
use zerocopy::TryFromBytes;

use crate::dma::Purpose;
use crate::hca::nic_event::{NicEvent, Timer, is_error_cqe};
use crate::hca::nic_finding::CATALOGUES;
use crate::roce::opcode::Opcode;
use crate::roce::syndrome::Syndrome as RoceSyndrome;

/// Returns a text for an event.
pub fn of(event: &Event) -> Cow<'static, str> {
    let Some(kind) = NicEvent::at(event.event) else {
        return "unknown".into();
    };
    let [first, second, third, fourth] = event.arguments;
    match kind {
        NicEvent::Doorbell => "doorbell".into(),
        NicEvent::BlueFlame => format!("BlueFlame, {second} bytes").into(),
        NicEvent::ArmCq => "arm".into(),
        NicEvent::UpdateEq => if second != 0 { "arm" } else { "update" }.into(),
        NicEvent::Wqe | NicEvent::FrameWqe => match u8::try_from(second).ok().and_then(WqeOpcode::new) {
            Some(opcode) => format!("WQE {first:#x} {}", opcode.name()),
            None => format!("WQE {first:#x} of opcode {second:#x}"),
        }
        .into(),
        NicEvent::PacketOut => format!("out {}", packet(first)).into(),
        NicEvent::PacketIn => format!("in {}", packet(first)).into(),
        NicEvent::CommandDoorbell => format!("doorbell of slots {first:#x}").into(),
        NicEvent::Service => if first == 0 { "service" } else { "service by polling" }.into(),
        NicEvent::HotPeriod => if first == 0 {
            "hot period ends"
        } else {
            "hot period begins"
        }
        .into(),
        NicEvent::TimerSet => match Timer::ALL.get(first as usize) {
            Some(timer) => format!("{} timer of {second} us", timer_name(*timer)),
            None => format!("timer {first} of {second} us"),
        }
        .into(),
        NicEvent::TimerExpired => "timer expires".into(),
        NicEvent::ModerationSet => format!("event in {first} us").into(),
        NicEvent::ModerationExpired => "delay of the event ends".into(),
        NicEvent::DmaRead | NicEvent::DmaWrite => {
            let access = if kind == NicEvent::DmaRead { "read" } else { "write" };
            let address = u64::from(first) << 32 | u64::from(second);
            format!("{}: {access} {third} bytes at {address:#x}", purpose(event.object)).into()
        }
        NicEvent::AckOut => format!("out {}", acknowledgement(first, second)).into(),
        NicEvent::AckIn => format!("in {}", acknowledgement(first, second)).into(),
        NicEvent::AckTimeout => "acknowledgement timeout".into(),
        NicEvent::RnrNak => format!("RNR NAK, delay of {second} us").into(),
        NicEvent::Retransmission => format!("retransmission from PSN {first:#x}").into(),
        NicEvent::FrameIn => format!("frame of {second} bytes").into(),
        NicEvent::Cqe => match Syndrome::try_read_from_bytes(&[fourth as u8]) {
            Ok(syndrome) if is_error_cqe(&event.arguments) => format!("CQE {second:#x} {syndrome:?}"),
            _ if is_error_cqe(&event.arguments) => format!("CQE {second:#x} with syndrome {fourth:#x}"),
            _ => format!("CQE {second:#x}"),
        }
        .into(),
        NicEvent::Eqe => match EventType::try_read_from_bytes(&[first as u8]) {
            Ok(event_type) => format!("EQE {event_type:?}"),
            Err(_) => format!("EQE of type {first:#x}"),
        }
        .into(),
        NicEvent::Finding => match finding(event.object) {
            Some(name) => format!("{name} {first:#x}"),
            None => format!("finding {}", event.object),
        }
        .into(),
        NicEvent::Interrupt => "interrupt".into(),
        NicEvent::Fault => "fault".into(),
        NicEvent::Command if second == 0 => CommandOpcode(first as u16).to_string().into(),
        NicEvent::Command => format!(
            "{} fails: status {second:#x}, syndrome {third:#x}",
            CommandOpcode(first as u16)
        )
        .into(),
    }
}

/// Returns the name of a kind of findings by its row.
pub fn finding(row: u32) -> Option<&'static str> {
    let kinds = CATALOGUES.iter().copied().flatten();
    kinds.map(|kind| kind.name).nth(row as usize)
}

/// Returns the name of a purpose by its number.
pub fn purpose(number: u32) -> &'static str {
    Purpose::NAMES.get(number as usize).copied().unwrap_or("unknown")
}

fn timer_name(timer: Timer) -> &'static str {
    match timer {
        Timer::Acknowledgement => "acknowledgement",
        Timer::ReceiverNotReady => "RNR",
        Timer::Flush => "flush",
    }
}

/// PSN and syndrome of an AETH.
fn acknowledgement(psn: u32, syndrome: u32) -> String {
    match RoceSyndrome::from_byte(syndrome as u8) {
        Some(RoceSyndrome::Ack { .. }) => format!("ACK PSN {psn:#x}"),
        Some(RoceSyndrome::Rnr(timer)) => format!("RNR NAK PSN {psn:#x}, {} us", timer.delay().as_micros()),
        Some(RoceSyndrome::Nak(code)) => format!("NAK {code:?} PSN {psn:#x}"),
        None => format!("syndrome {syndrome:#x} PSN {psn:#x}"),
    }
}

/// Opcode and PSN of a BTH.
fn packet(bth: u32) -> String {
    let psn = bth & 0xff_ffff;
    match Opcode::from_byte((bth >> 24) as u8) {
        Some(opcode) => format!("{:?} {:?} PSN {psn:#x}", opcode.operation(), opcode.position()),
        None => format!("opcode {:#x} PSN {psn:#x}", bth >> 24),
    }
}
