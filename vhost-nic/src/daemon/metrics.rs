//! Metrics of the daemon.

use serde::Serialize;
use serde_json::Value;
use vhost_daemon::{Labels, Metrics};
use vhost_nic::net::{SwitchStats, TrafficStats};

use super::guest::GuestSnapshot;

/// Adds the metrics of guests and switch.
pub fn collect(metrics: &mut Metrics, guests: &[GuestSnapshot], switch: &SwitchStats) {
    ports(metrics, guests);
    activity(metrics, guests);
    links(metrics, switch);
}

/// Returns a sample of each guest.
fn each(guests: &[GuestSnapshot], value: impl Fn(&GuestSnapshot) -> u64) -> Vec<(Labels, u64)> {
    let sample = |guest: &GuestSnapshot| (vec![("guest", guest.guest.clone())], value(guest));
    guests.iter().map(sample).collect()
}

/// Returns samples of each guest that differ in one label.
fn by(
    guests: &[GuestSnapshot],
    label: &'static str,
    values: impl Fn(&GuestSnapshot) -> Vec<(&'static str, u64)>,
) -> Vec<(Labels, u64)> {
    let mut samples = Vec::new();
    for guest in guests {
        for (value, number) in values(guest) {
            samples.push((vec![("guest", guest.guest.clone()), (label, value.to_owned())], number));
        }
    }
    samples
}

fn ports(metrics: &mut Metrics, guests: &[GuestSnapshot]) {
    let up = each(guests, |guest| guest.nic.link_up.into());
    metrics.gauge("port_link_up", "Whether the link is up", up);
    let speed = each(guests, |guest| u64::from(guest.nic.speed_gbps) * 1_000_000_000);
    metrics.gauge("port_speed_bits_per_second", "Speed of the link, 0 without one", speed);
    let started = each(guests, |guest| guest.nic.started.into());
    metrics.gauge(
        "driver_started",
        "Whether the guest's driver has started the HCA",
        started,
    );
    let frames = by(guests, "direction", |guest| {
        vec![("in", guest.nic.port.received), ("out", guest.nic.port.sent)]
    });
    metrics.counter("port_frames", "Frames on the wire", frames);
    let bytes = by(guests, "direction", |guest| {
        vec![
            ("in", guest.nic.port.received_bytes),
            ("out", guest.nic.port.sent_bytes),
        ]
    });
    metrics.counter("port_bytes", "Bytes on the wire", bytes);
    let drops = by(guests, "reason", |guest| {
        let port = &guest.nic.port;
        vec![
            ("unmatched", port.unmatched),
            ("refused", port.refused),
            ("out_of_buffer", port.out_of_buffer),
            ("not_ready", port.not_ready),
        ]
    });
    metrics.counter("port_drops", "Frames from the wire that were dropped", drops);
    let loopback = each(guests, |guest| guest.nic.port.loopback);
    metrics.counter("port_loopback_frames", "Frames looped back to the function", loopback);
    let errors = each(guests, |guest| guest.nic.port.send_errors);
    metrics.counter("port_send_errors", "Frames that could not be sent", errors);
}

fn activity(metrics: &mut Metrics, guests: &[GuestSnapshot]) {
    let doorbells = each(guests, |guest| guest.nic.doorbells);
    metrics.counter("doorbells", "Writes to doorbell registers", doorbells);
    let commands = each(guests, |guest| guest.nic.commands);
    metrics.counter("commands", "Commands fetched by the firmware", commands);
    let interrupts = each(guests, |guest| guest.nic.interrupts.sent);
    metrics.counter("interrupts", "Interrupts sent to the guest", interrupts);
    let completions = by(guests, "destination", |guest| {
        let completions = &guest.nic.completions;
        vec![
            ("plain", completions.plain),
            ("inline_32", completions.inline_32),
            ("inline_64", completions.inline_64),
        ]
    });
    metrics.counter(
        "completions",
        "Completions by the destination of their data",
        completions,
    );
    let compressed = each(guests, |guest| guest.nic.completions.compressed);
    metrics.counter(
        "compressed_completions",
        "Completions of compressed sessions",
        compressed,
    );
    let sessions = each(guests, |guest| guest.nic.completions.compressed_sessions);
    metrics.counter("compressed_sessions", "Sessions of compressed completions", sessions);
    let resets = each(guests, |guest| guest.function.resets);
    metrics.counter("function_resets", "Resets of the function", resets);
    let errors = by(guests, "kind", |guest| {
        let of_nic = guest.nic.guest_errors.iter().map(|(kind, count)| (*kind, *count));
        of_nic.chain(guest.attachment_errors()).collect()
    });
    metrics.counter("guest_errors", "Errors of the guest", errors);
    let objects = by(guests, "kind", |guest| {
        let objects = guest.nic.objects.iter();
        objects.map(|(kind, count)| (*kind, *count as u64)).collect()
    });
    metrics.gauge("objects", "Live objects", objects);
    let pages = each(guests, |guest| guest.nic.pages as u64);
    metrics.gauge("firmware_pages", "Pages of guest memory that the firmware holds", pages);
}

fn links(metrics: &mut Metrics, switch: &SwitchStats) {
    let ports = &switch.ports;
    let stations = ports.iter();
    let stations = stations.map(|port| (vec![("port", port.name.clone())], port.stations as u64));
    metrics.gauge(
        "switch_stations",
        "Stations learned behind a port of the switch",
        stations,
    );
    let directions = |read: fn(&TrafficStats) -> u64| {
        let mut samples = Vec::new();
        for port in ports {
            for (direction, traffic) in [("in", &port.sent), ("out", &port.received)] {
                let labels = vec![("port", port.name.clone()), ("direction", direction.to_owned())];
                samples.push((labels, read(traffic)));
            }
        }
        samples
    };
    let frames = directions(|traffic| traffic.frames);
    metrics.counter("switch_frames", "Frames into and out of a port of the switch", frames);
    let bytes = directions(|traffic| traffic.bytes);
    metrics.counter("switch_bytes", "Bytes into and out of a port of the switch", bytes);
    let drops = ports.iter().flat_map(|port| {
        let sample = |(reason, count)| (vec![("port", port.name.clone()), ("reason", reason)], count);
        fields(&port.dropped).into_iter().map(sample)
    });
    metrics.counter("switch_drops", "Frames dropped by the switch", drops);
}

/// Returns the fields of a structure of numbers.
fn fields(structure: &impl Serialize) -> Vec<(String, u64)> {
    let Ok(Value::Object(fields)) = serde_json::to_value(structure) else {
        return Vec::new();
    };
    let numbers = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_u64()?)));
    numbers.collect()
}
