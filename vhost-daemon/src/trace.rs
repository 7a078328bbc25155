//! Execution trace: what a device did, event by event, with the time of each.
//!
//! A daemon declares its events with [`trace_events!`](crate::trace_events) and records them through a [`Tracer`], one
//! per guest. Each thread writes to a ring of its own; a [`Session`] reads the rings of all threads while they are
//! written. Nothing waits: a session that is too slow loses events, which are counted. While no session is open and
//! the flight recorder is off, an event costs a load and a branch.

mod dump;
mod dump_directory;
mod event;
mod file;
mod perfetto;
mod recorder;
mod ring;
mod stream;
mod times;
mod trigger;

pub use dump::{DumpOptions, DumpSignal, Dumper};
pub use event::{EventInfo, Events};
pub use file::{Timeline, write_json, write_perfetto};
#[cfg(any(test, feature = "testing"))]
pub use perfetto::{ReadEvent, read_perfetto};
pub use recorder::{
    COMPILED_IN, DEFAULT_RING_BYTES, Session, Tracer, flight_recorder_is_on, set_flight_recorder, set_ring_bytes,
    start_flight_recorder,
};
pub use stream::{Event, Header, StreamError, Trace, write as write_stream};
pub use times::Times;
pub use trigger::Wants;
