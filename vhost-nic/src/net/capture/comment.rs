//! Comment of a captured frame: its sender, what it is, and the WQEs that it ended.

use std::fmt::Write;
use std::sync::Arc;

use crate::frame::view::FrameView;
use crate::net::work::{CqePlace, Effect, Sender, WqeId};
use crate::roce::packet::Packet;

/// Returns the comment of a frame that the guest or port named `port` sent. Each effect has the name of its port.
pub(super) fn of_frame(port: &str, sender: Option<Sender>, bytes: &[u8], effects: &[(Arc<str>, Effect)]) -> String {
    let mut parts = Vec::new();
    if let Some(Sender { kind, queue, wqe }) = sender {
        parts.push(format!("{kind} {queue:#x}"));
        parts.extend(wqe.map(|wqe| format!("WQE {wqe}")));
    }
    if let Some(packet) = FrameView::new(bytes).and_then(|view| Packet::new_checked(&view).ok()) {
        parts.push(format!("PSN {:#x}", packet.headers.bth.psn().value()));
        parts.push(packet.opcode.to_string());
    }
    let mut text = match parts.is_empty() {
        true => port.to_owned(),
        false => format!("{port}: {}", parts.join(", ")),
    };
    for (port, effect) in effects {
        // Writing to a string does not fail.
        let _ = match effect {
            Effect::Answers(wqe) => write!(text, "; {port}: answers {}", describe(*wqe)),
            Effect::Ends(wqe, cqe) => write!(text, "; {port}: ends {}: {}", describe(*wqe), describe_cqe(*cqe)),
        };
    }
    text
}

fn describe(wqe: WqeId) -> String {
    let receive = if wqe.receive { "receive " } else { "" };
    format!("{receive}WQE {} of {} {:#x}", wqe.index, wqe.kind, wqe.queue)
}

fn describe_cqe(cqe: Option<CqePlace>) -> String {
    match cqe {
        None => "no CQE".to_owned(),
        Some(CqePlace {
            cq,
            index,
            syndrome: None,
        }) => format!("CQE {index} of CQ {cq:#x}"),
        Some(CqePlace {
            cq,
            index,
            syndrome: Some(syndrome),
        }) => format!("error CQE {index} of CQ {cq:#x}, syndrome {syndrome:#x}"),
    }
}
