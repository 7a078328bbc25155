//! Perfetto's trace format, as far as it is used here (Perfetto, `protos/perfetto/trace/trace_packet.proto` and
//! `track_event/*.proto`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};

use prost::Message;

/// `TrackEvent.Type`.
const SLICE_BEGIN: i32 = 1;
const SLICE_END: i32 = 2;
const INSTANT: i32 = 3;
/// Identifier of the only packet sequence of a trace (`trusted_packet_sequence_id`).
const SEQUENCE: u32 = 1;

/// A trace is the concatenation of its packets' encodings as field 1.
#[derive(Message)]
struct TraceFile {
    #[prost(message, repeated, tag = "1")]
    packet: Vec<TracePacket>,
}

#[derive(Message)]
struct TracePacket {
    #[prost(uint64, optional, tag = "8")]
    timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "10")]
    trusted_packet_sequence_id: Option<u32>,
    #[prost(message, optional, tag = "11")]
    track_event: Option<TrackEvent>,
    #[prost(message, optional, tag = "60")]
    track_descriptor: Option<TrackDescriptor>,
}

#[derive(Message)]
struct TrackDescriptor {
    #[prost(uint64, optional, tag = "1")]
    uuid: Option<u64>,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
    #[prost(uint64, optional, tag = "5")]
    parent_uuid: Option<u64>,
}

#[derive(Message)]
struct TrackEvent {
    #[prost(message, repeated, tag = "4")]
    debug_annotations: Vec<DebugAnnotation>,
    #[prost(int32, optional, tag = "9")]
    r#type: Option<i32>,
    #[prost(uint64, optional, tag = "11")]
    track_uuid: Option<u64>,
    #[prost(string, repeated, tag = "22")]
    categories: Vec<String>,
    #[prost(string, optional, tag = "23")]
    name: Option<String>,
    #[prost(fixed64, repeated, packed = "false", tag = "47")]
    flow_ids: Vec<u64>,
    #[prost(fixed64, repeated, packed = "false", tag = "48")]
    terminating_flow_ids: Vec<u64>,
}

#[derive(Message)]
struct DebugAnnotation {
    #[prost(uint64, optional, tag = "3")]
    uint_value: Option<u64>,
    #[prost(string, optional, tag = "10")]
    name: Option<String>,
}

/// An event on a track.
pub struct Slice<'a, C, A> {
    /// Track that [`Writer::track`] returned.
    pub track: u64,
    /// Nanoseconds.
    pub end: u64,
    /// Nanoseconds; 0 for an instant.
    pub duration: u64,
    pub name: Cow<'static, str>,
    pub category: &'a str,
    /// Index of this event.
    pub index: usize,
    /// Whether another event caused it.
    pub is_caused: bool,
    /// Indexes of the events that it caused.
    pub causes: C,
    pub arguments: A,
}

/// Writes packets.
pub struct Writer<'a, W> {
    out: &'a mut W,
    /// Tracks by guest, kind of object and number of the object; the guest's own track has no kind.
    tracks: HashMap<(u16, String, u32), u64>,
}

impl<'a, W: Write> Writer<'a, W> {
    pub fn new(out: &'a mut W) -> Self {
        Self {
            out,
            tracks: HashMap::new(),
        }
    }

    /// Returns the track of an object, which is described before its first event, by kind and number unless `name` has
    /// another name.
    pub fn track(
        &mut self,
        guest: u16,
        guest_name: &str,
        kind: &str,
        object: u32,
        name: impl FnOnce(&str, u32) -> Option<Cow<'static, str>>,
    ) -> io::Result<u64> {
        let parent = self.described((guest, String::new(), 0), guest_name.to_owned(), None)?;
        let name = match (name(kind, object), object) {
            (Some(name), _) => name.into_owned(),
            (None, 0) => kind.to_owned(),
            (None, number) => format!("{kind} {number:#x}"),
        };
        self.described((guest, kind.to_owned(), object), name, Some(parent))
    }

    fn described(&mut self, key: (u16, String, u32), name: String, parent_uuid: Option<u64>) -> io::Result<u64> {
        if let Some(uuid) = self.tracks.get(&key) {
            return Ok(*uuid);
        }
        let uuid = self.tracks.len() as u64 + 1;
        self.tracks.insert(key, uuid);
        let descriptor = TrackDescriptor {
            uuid: Some(uuid),
            name: Some(name),
            parent_uuid,
        };
        self.packet(TracePacket {
            timestamp: None,
            trusted_packet_sequence_id: Some(SEQUENCE),
            track_event: None,
            track_descriptor: Some(descriptor),
        })?;
        Ok(uuid)
    }

    /// Writes an event.
    pub fn event<'n, C, A>(&mut self, slice: Slice<'_, C, A>) -> io::Result<()>
    where
        C: Iterator<Item = usize>,
        A: Iterator<Item = (&'n str, u32)>,
    {
        // A flow is an arrow to one event, and has its index; 0 is not an id.
        let flow = |index: usize| index as u64 + 1;
        let annotation = |(name, value): (&str, u32)| DebugAnnotation {
            uint_value: Some(value.into()),
            name: Some(name.to_owned()),
        };
        let begin = TrackEvent {
            debug_annotations: slice.arguments.map(annotation).collect(),
            r#type: Some(if slice.duration > 0 { SLICE_BEGIN } else { INSTANT }),
            track_uuid: Some(slice.track),
            categories: vec![slice.category.to_owned()],
            name: Some(slice.name.into_owned()),
            flow_ids: slice.causes.map(flow).collect(),
            terminating_flow_ids: slice.is_caused.then(|| flow(slice.index)).into_iter().collect(),
        };
        self.track_event(slice.end.saturating_sub(slice.duration), begin)?;
        if slice.duration > 0 {
            let end = TrackEvent {
                r#type: Some(SLICE_END),
                track_uuid: Some(slice.track),
                ..TrackEvent::default()
            };
            self.track_event(slice.end, end)?;
        }
        Ok(())
    }

    fn track_event(&mut self, time: u64, event: TrackEvent) -> io::Result<()> {
        self.packet(TracePacket {
            timestamp: Some(time),
            trusted_packet_sequence_id: Some(SEQUENCE),
            track_event: Some(event),
            track_descriptor: None,
        })
    }

    fn packet(&mut self, packet: TracePacket) -> io::Result<()> {
        let file = TraceFile { packet: vec![packet] };
        self.out.write_all(&file.encode_to_vec())
    }
}

/// An event of a file, for tests.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadEvent {
    /// Names of the guest's track and of the object's.
    pub track: [String; 2],
    /// Name of the event.
    pub event: String,
    /// Text of the event.
    pub label: String,
}

/// Reads the events of a file in their order, without the ends of slices. Panics if it is not one of this writer.
#[cfg(any(test, feature = "testing"))]
pub fn read_perfetto(file: &[u8]) -> Vec<ReadEvent> {
    let mut tracks = HashMap::<u64, (String, Option<u64>)>::new();
    let mut events = Vec::new();
    for packet in TraceFile::decode(file).expect("the file is a trace").packet {
        if let Some(track) = packet.track_descriptor {
            let name = track.name.unwrap_or_default();
            tracks.insert(track.uuid.unwrap_or_default(), (name, track.parent_uuid));
        }
        let Some(event) = packet.track_event.filter(|event| event.r#type != Some(SLICE_END)) else {
            continue;
        };
        let (name, parent) = &tracks[&event.track_uuid.expect("an event has a track")];
        let guest = parent.map_or_else(String::new, |parent| tracks[&parent].0.clone());
        events.push(ReadEvent {
            track: [guest, name.clone()],
            event: event.categories.concat(),
            label: event.name.unwrap_or_default(),
        });
    }
    events
}
