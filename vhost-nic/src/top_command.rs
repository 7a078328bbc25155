//! The tables of the `top` command.

use serde_json::Value;
use vhost_daemon::{Interval, table};

/// Maximum number of queues that are shown: the busiest.
const QUEUES: usize = 20;

const GUESTS: [&str; 12] = [
    "guest",
    "Gb/s",
    "rx frames/s",
    "rx bytes/s",
    "tx frames/s",
    "tx bytes/s",
    "doorbells/s",
    "interrupts/s",
    "commands/s",
    "commands",
    "drops",
    "errors",
];

/// Returns the tables of guests and of their busiest queues.
pub fn tables(interval: &Interval) -> String {
    let guests = interval.value("/guests").as_array().map_or(0, Vec::len);
    let rows = (0..guests).map(|index| guest(interval, index)).collect();
    let mut queues: Vec<(u64, Vec<String>)> = (0..guests).flat_map(|index| queues(interval, index)).collect();
    queues.sort_by_key(|(rate, _)| std::cmp::Reverse(*rate));
    queues.truncate(QUEUES);
    let mut text = format!("{}\n", table(&GUESTS, rows));
    if !queues.is_empty() {
        let rows = queues.into_iter().map(|(_, row)| row).collect();
        let header = ["guest", "queue", "state", "per second", "unit"];
        text.push_str(&format!("\n{}\n", table(&header, rows)));
    }
    text
}

fn guest(interval: &Interval, index: usize) -> Vec<String> {
    let path = |field: &str| format!("/guests/{index}/{field}");
    let rate = |field: &str| interval.rate(&path(field)).to_string();
    let number = |field: &str| interval.number(&path(field));
    let drops = ["unmatched", "refused", "out_of_buffer", "not_ready"].map(|reason| number(&format!("port/{reason}")));
    let speed = match interval.value(&path("link_up")) {
        Value::Bool(true) => number("speed_gbps").to_string(),
        _ => "down".to_owned(),
    };
    vec![
        name(interval, index),
        speed,
        rate("port/received"),
        rate("port/received_bytes"),
        rate("port/sent"),
        rate("port/sent_bytes"),
        rate("doorbells"),
        rate("interrupts/sent"),
        rate("commands"),
        number("commands").to_string(),
        (drops.iter().sum::<u64>() + interval.sum(&path("wire/dropped"))).to_string(),
        (interval.sum(&path("guest_errors")) + interval.sum(&path("attachment/vhost_user/guest_errors"))).to_string(),
    ]
}

fn name(interval: &Interval, index: usize) -> String {
    let name = interval.value(&format!("/guests/{index}/guest")).as_str();
    name.unwrap_or_default().to_owned()
}

/// A progress of a queue that shows its rate: name, field, bits of the field, unit, and the field of the state.
type Progress = (&'static str, &'static str, u32, &'static str, &'static str);

const PAIR: [Progress; 2] = [
    (
        "QP",
        "pair/requester/next_psn",
        24,
        "packets out",
        "pair/parameters/state",
    ),
    (
        "QP",
        "pair/responder/expected",
        24,
        "packets in",
        "pair/parameters/state",
    ),
];
const SEND: [Progress; 1] = [("SQ", "send/state/consumer", 16, "basic blocks", "send/state/state")];
const RECEIVE: [Progress; 1] = [("RQ", "receive/state/consumer", 16, "WQEs", "receive/state/state")];

/// Returns the queues of a guest with their rates.
fn queues(interval: &Interval, index: usize) -> Vec<(u64, Vec<String>)> {
    let mut rows = Vec::new();
    let queues = interval.value(&format!("/guests/{index}/hca/queues")).as_object();
    for (number, queue) in queues.into_iter().flatten() {
        let kinds: &[Progress] = match () {
            () if queue.get("pair").is_some() => &PAIR,
            () if queue.get("send").is_some() => &SEND,
            () => &RECEIVE,
        };
        for (kind, field, bits, unit, state) in kinds {
            let path = |field: &str| format!("/guests/{index}/hca/queues/{number}/{field}");
            let rate = interval.rate_of_bits(&path(field), *bits);
            let state = interval.value(&path(state)).as_str().unwrap_or_default().to_owned();
            let row = vec![
                name(interval, index),
                format!("{kind} {number}"),
                state,
                rate.to_string(),
                (*unit).to_owned(),
            ];
            rows.push((rate, row));
        }
    }
    rows
}
