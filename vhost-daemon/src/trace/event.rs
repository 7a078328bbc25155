//! Events: their declaration, and their form in memory and on a socket.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Number of arguments of an event.
pub const ARGUMENTS: usize = 4;

/// Declaration of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct EventInfo {
    /// Name of the event.
    pub name: &'static str,
    /// Kind of object that it belongs to.
    pub object: &'static str,
    /// Names of its arguments, at most four.
    pub arguments: &'static [&'static str],
}

/// Events of a daemon; [`trace_events!`](crate::trace_events) declares an enum that implements it.
pub trait Events: Copy + Send + Sync + 'static {
    /// Declarations, by index.
    const EVENTS: &'static [EventInfo];

    /// Position in [`EVENTS`](Self::EVENTS).
    fn index(self) -> u16;

    /// The event at a position.
    fn at(index: u16) -> Option<Self>;
}

/// A recorded event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Record {
    /// Nanoseconds since a few seconds before the daemon's first event.
    pub time: U64,
    /// Index of the event's declaration.
    pub event: U16,
    /// Number of the guest.
    pub guest: U16,
    /// Number of the object.
    pub object: U32,
    /// Arguments; those that the event does not have are 0.
    pub arguments: [U32; ARGUMENTS],
}

const _: () = assert!(size_of::<Record>() == 32);
const _: () = assert!(std::mem::offset_of!(Record, arguments) == 16);

/// Declares the events of a daemon: an enum with, for each variant, a name, the kind of object it belongs to, and the
/// names of up to four arguments.
///
/// ```
/// use vhost_daemon::trace::Events;
///
/// vhost_daemon::trace_events! {
///     /// What a port does.
///     pub enum PortEvent {
///         /// A frame left.
///         FrameOut = "frame_out" of "port" [length],
///     }
/// }
///
/// assert_eq!(PortEvent::EVENTS[PortEvent::FrameOut.index() as usize].arguments, ["length"]);
/// ```
#[macro_export]
macro_rules! trace_events {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $events:ident {
            $($(#[$doc:meta])* $variant:ident = $name:literal of $object:literal [$($argument:ident),*],)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $events { $($(#[$doc])* $variant,)* }

        impl $crate::trace::Events for $events {
            const EVENTS: &'static [$crate::trace::EventInfo] = &[$($crate::trace::EventInfo {
                name: $name,
                object: $object,
                arguments: &[$(stringify!($argument)),*],
            },)*];

            #[inline]
            fn index(self) -> u16 {
                self as u16
            }

            fn at(index: u16) -> Option<Self> {
                [$(Self::$variant,)*].get(usize::from(index)).copied()
            }
        }
    };
}
