//! The tables of the `top` command.

use serde_json::Value;
use vhost_daemon::{Interval, table};

const FABRIC: [&str; 5] = ["sessions", "slabs", "slab_bytes", "used_bytes", "dmbs"];

const GUESTS: [&str; 10] = [
    "guest",
    "session",
    "DMBs",
    "bytes mapped",
    "requests/s",
    "bells/s",
    "rings/s",
    "events/s",
    "interrupts/s",
    "errors",
];

/// Returns the tables of fabric and guests.
pub fn tables(interval: &Interval) -> String {
    let fabric = FABRIC.map(|field| interval.number(&format!("/fabric/{field}")).to_string());
    let fabric = table(&FABRIC, vec![fabric.into()]);
    let guests = interval.value("/guests").as_array().map_or(0, Vec::len);
    let rows = (0..guests).map(|index| guest(interval, index)).collect();
    format!("{fabric}\n\n{}\n", table(&GUESTS, rows))
}

fn guest(interval: &Interval, index: usize) -> Vec<String> {
    let path = |field: &str| format!("/guests/{index}/{field}");
    let text = |field: &str| interval.value(&path(field)).as_str().unwrap_or_default().to_owned();
    let rate = |field: &str| interval.rate(&path(field)).to_string();
    let session = interval.value(&path("session"));
    let state = match (session, session.get("paused")) {
        (Value::Null, _) => "none",
        (_, Some(Value::Bool(true))) => "paused",
        _ => "up",
    };
    vec![
        text("guest"),
        state.to_owned(),
        dmbs(interval, &text("gid")).to_string(),
        mapped(interval, session).to_string(),
        rate("requests"),
        rate("doorbells"),
        rate("rings"),
        rate("events"),
        rate("interrupts"),
        interval.sum(&path("guest_errors")).to_string(),
    ]
}

/// Returns the number of DMBs that a session owns or has attached.
fn dmbs(interval: &Interval, gid: &str) -> u64 {
    let sessions = interval.value("/objects/sessions").as_array().into_iter().flatten();
    let mut sessions = sessions.filter(|session| session["id"] == gid);
    sessions
        .next()
        .and_then(|session| session["dmbs"].as_u64())
        .unwrap_or(0)
}

/// Returns the bytes of the slabs that are mapped into a guest; its doorbell area is not one of them.
fn mapped(interval: &Interval, session: &Value) -> u64 {
    let slabs = interval.value("/objects/slabs").as_array().into_iter().flatten();
    let ids = session["window"]["slabs"].as_array();
    let is_mapped = |slab: &&Value| ids.is_some_and(|ids| ids.contains(&slab["id"]));
    slabs.filter(is_mapped).filter_map(|slab| slab["len"].as_u64()).sum()
}
