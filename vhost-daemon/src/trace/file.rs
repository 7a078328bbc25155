//! Traces in files: Perfetto's format, and JSON lines.

use std::borrow::Cow;
use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::perfetto::Writer;
use super::stream::{Event, Trace};

/// Labels, durations and causes of a trace's events.
pub trait Timeline {
    /// Text to show for an event.
    fn label(&self, event: &Event) -> Cow<'static, str>;

    /// Name of an object's track; `None` for kind and number.
    fn track(&self, kind: &str, object: u32) -> Option<Cow<'static, str>>;

    /// Duration of an event in nanoseconds; its time is the end. 0 for an instant.
    fn duration(&self, event: &Event) -> u64;

    /// Index of the event that caused the event at `index`, always an earlier one.
    fn parent(&self, index: usize) -> Option<usize>;
}

/// Writes one JSON object per event and line: `id`, `parent` (an `id`), `time_ns`, `duration_ns` if it has one,
/// `thread`, `guest`, `event`, `label`, the object's number under the name of its kind, and the arguments by name.
pub fn write_json(out: &mut impl Write, trace: &Trace, timeline: &impl Timeline) -> io::Result<()> {
    for (id, event) in trace.events.iter().enumerate() {
        let Some(declaration) = trace.header.events.get(usize::from(event.event)) else {
            continue;
        };
        let mut line = Map::new();
        line.insert("id".into(), json!(id));
        if let Some(parent) = timeline.parent(id) {
            line.insert("parent".into(), json!(parent));
        }
        line.insert("time_ns".into(), json!(event.time));
        let duration = timeline.duration(event);
        if duration > 0 {
            line.insert("duration_ns".into(), json!(duration));
        }
        line.insert("thread".into(), json!(trace.threads.get(event.thread as usize)));
        line.insert("guest".into(), json!(guest_name(trace, event.guest)));
        line.insert("event".into(), json!(declaration.name));
        line.insert("label".into(), json!(timeline.label(event)));
        line.insert(declaration.object.clone(), json!(event.object));
        for (name, value) in declaration.arguments.iter().zip(event.arguments) {
            line.insert(name.clone(), json!(value));
        }
        serde_json::to_writer(&mut *out, &Value::Object(line))?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Writes a trace for Perfetto (<https://ui.perfetto.dev>): a track per guest, below it one per object, and a flow
/// arrow from each event to those it caused.
pub fn write_perfetto(out: &mut impl Write, trace: &Trace, timeline: &impl Timeline) -> io::Result<()> {
    // By parent, to be met in the order of the events.
    let caused = |child| timeline.parent(child).map(|parent| (parent, child));
    let mut flows: Vec<(usize, usize)> = (0..trace.events.len()).filter_map(caused).collect();
    flows.sort_unstable();
    let mut flows = flows.into_iter().peekable();
    let mut writer = Writer::new(out);
    for (index, event) in trace.events.iter().enumerate() {
        let Some(declaration) = trace.header.events.get(usize::from(event.event)) else {
            continue;
        };
        let children = std::iter::from_fn(|| flows.next_if(|(parent, _)| *parent == index)).map(|(_, child)| child);
        let guest = guest_name(trace, event.guest);
        let track = writer.track(
            event.guest,
            &guest,
            &declaration.object,
            event.object,
            |kind, object| timeline.track(kind, object),
        )?;
        writer.event(super::perfetto::Slice {
            track,
            end: event.time,
            duration: timeline.duration(event),
            name: timeline.label(event),
            category: &declaration.name,
            index,
            is_caused: timeline.parent(index).is_some(),
            causes: children,
            arguments: declaration.arguments.iter().map(String::as_str).zip(event.arguments),
        })?;
    }
    out.flush()
}

fn guest_name(trace: &Trace, guest: u16) -> String {
    let name = trace.header.guests.get(usize::from(guest));
    name.cloned().unwrap_or_else(|| format!("guest {guest}"))
}
