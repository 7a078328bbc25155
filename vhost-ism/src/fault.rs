//! Faults on purpose, at the door of a guest ([`Door`]).

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use log::info;
use serde::{Deserialize, Serialize};
use vhost_daemon::fault::{Delay, GuestFaults, Kind};
use vhost_daemon::trace::Tracer;

use crate::abi::*;
use crate::door::{BellFate, Door, EventKind, RequestFate};
use crate::guest::Guest;
use crate::ism_event::{BELL_DOOR, IsmEvent};

/// A fault of the ISM device, as in a plan: `kind` is the variant in snake_case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum IsmFault {
    /// A request is not executed, and answered with a status.
    RequestRefused {
        /// Request; `None` for all.
        #[serde(default)]
        request: Option<Request>,
        /// Status.
        status: RefusalStatus,
    },
    /// A request is executed and answered late; the guest's later requests wait.
    RequestLate {
        /// Request; `None` for all.
        #[serde(default)]
        request: Option<Request>,
        /// Delay.
        delay: Delay,
    },
    /// The VMM does not map a slab or the doorbell area.
    MapRefused,
    /// A bell is lost. The object is the first chunk of the DMB in the window of its owner, the guest of the rule.
    BellLost,
    /// A bell is delivered late.
    BellLate {
        /// Delay.
        delay: Delay,
    },
    /// A bell is delivered, and again without a peer that rings.
    BellSpurious {
        /// Delay of the second.
        #[serde(default)]
        delay: Delay,
    },
    /// An event is lost.
    EventLost {
        /// Event; `None` for all.
        #[serde(default)]
        event: Option<EventKind>,
    },
    /// The guest vanishes: its session ends, and its peers are told so.
    Vanish {
        /// Occasion.
        on: Occasion,
    },
}

/// Requests of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as in the device's specification")]
pub enum Request {
    Alloc,
    Attach,
    Detach,
    GrantDefault,
    GrantDevice,
    EventVector,
    AllocForPeer,
    QueryGid,
    SendMessage,
    QuerySlab,
    Move,
    Subscribe,
}

impl Request {
    const ALL: [Self; 12] = [
        Self::Alloc,
        Self::Attach,
        Self::Detach,
        Self::GrantDefault,
        Self::GrantDevice,
        Self::EventVector,
        Self::AllocForPeer,
        Self::QueryGid,
        Self::SendMessage,
        Self::QuerySlab,
        Self::Move,
        Self::Subscribe,
    ];

    /// Number as the object of a fault.
    fn object(self) -> u32 {
        let (class, command) = self.command();
        u16::from_be_bytes([class, command]).into()
    }

    fn command(self) -> (u8, u8) {
        match self {
            Self::Alloc => CMD_ALLOC,
            Self::Attach => CMD_ATTACH,
            Self::Detach => CMD_DETACH,
            Self::GrantDefault => CMD_GRANT_DEFAULT,
            Self::GrantDevice => CMD_GRANT_DEVICE,
            Self::EventVector => CMD_EVENT_VECTOR,
            Self::AllocForPeer => CMD_ALLOC_FOR_PEER,
            Self::QueryGid => CMD_QUERY_GID,
            Self::SendMessage => CMD_SEND_MESSAGE,
            Self::QuerySlab => CMD_QUERY_SLAB,
            Self::Move => CMD_MOVE,
            Self::Subscribe => CMD_SUBSCRIBE,
        }
    }
}

/// Statuses of a refusal, as [`Status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as in the device's specification")]
pub enum RefusalStatus {
    NoEnt,
    TooBig,
    NoMem,
    NoSpc,
    PermAttach,
    PermRead,
    PermWrite,
    Err,
}

impl From<RefusalStatus> for Status {
    fn from(status: RefusalStatus) -> Self {
        match status {
            RefusalStatus::NoEnt => Self::NoEnt,
            RefusalStatus::TooBig => Self::TooBig,
            RefusalStatus::NoMem => Self::NoMem,
            RefusalStatus::NoSpc => Self::NoSpc,
            RefusalStatus::PermAttach => Self::PermAttach,
            RefusalStatus::PermRead => Self::PermRead,
            RefusalStatus::PermWrite => Self::PermWrite,
            RefusalStatus::Err => Self::Err,
        }
    }
}

/// Occasion of an action, which follows it on another thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// Application of the plan.
    Now,
    /// Every request.
    Request,
    /// Every bell of a DMB that the guest owns.
    Bell,
    /// Every mapping.
    Map,
    /// Every other event for the guest.
    Event,
}

/// Place at which a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Place {
    Request,
    Map,
    Bell = BELL_DOOR,
    Event,
    Now,
}

impl Occasion {
    fn place(self) -> Place {
        match self {
            Self::Now => Place::Now,
            Self::Request => Place::Request,
            Self::Bell => Place::Bell,
            Self::Map => Place::Map,
            Self::Event => Place::Event,
        }
    }
}

impl Kind for IsmFault {
    fn door(&self) -> u32 {
        let place = match self {
            Self::RequestRefused { .. } | Self::RequestLate { .. } => Place::Request,
            Self::MapRefused => Place::Map,
            Self::BellLost | Self::BellLate { .. } | Self::BellSpurious { .. } => Place::Bell,
            Self::EventLost { .. } => Place::Event,
            Self::Vanish { on } => on.place(),
        };
        place as u32
    }

    fn object_name(&self, object: u32) -> Option<String> {
        if self.door() != Place::Request as u32 {
            return None;
        }
        let request = Request::ALL.iter().find(|request| request.object() == object)?;
        Some(serde_json::to_value(request).ok()?.as_str()?.to_owned())
    }
}

/// The faults of one guest at its door.
#[derive(Debug)]
pub struct FaultDoor {
    faults: GuestFaults<IsmFault>,
    tracer: Tracer,
    guest: OnceLock<Weak<Guest>>,
}

impl FaultDoor {
    /// Creates the door of a guest.
    pub fn new(faults: GuestFaults<IsmFault>, tracer: Tracer) -> Self {
        Self {
            faults,
            tracer,
            guest: OnceLock::new(),
        }
    }

    /// Puts the door before a guest, before anything happens to it.
    pub fn install(self, guest: &Arc<Guest>) -> Arc<Self> {
        let _ = self.guest.set(Arc::downgrade(guest));
        let door = Arc::new(self);
        guest.stats().set_door(door.clone());
        door
    }

    /// Takes the actions whose occasion is [`Occasion::Now`]: after a plan has been applied.
    pub fn now(&self) {
        self.act(Occasion::Now, 0);
    }

    fn armed(&self, place: Place) -> bool {
        self.faults.armed(place as u32)
    }

    fn strike<T>(&self, place: Place, object: u32, select: impl FnMut(&IsmFault) -> Option<T>) -> Option<T> {
        let struck = self.faults.strike_inside(place as u32, object, select);
        if struck.is_some() {
            self.record(place, object);
        }
        struck.map(|(selected, _)| selected)
    }

    fn record(&self, place: Place, object: u32) {
        self.tracer.record(IsmEvent::Fault, object, || [place as u32, 0, 0, 0]);
    }

    fn act(&self, occasion: Occasion, object: u32) {
        let select = |fault: &IsmFault| matches!(fault, IsmFault::Vanish { on } if *on == occasion).then_some(());
        self.faults.strike_each(object, select, |_, (), _| {
            self.record(occasion.place(), object);
            let guest = self.guest.get().cloned();
            self.faults.after(Duration::ZERO, move || {
                if let Some(guest) = guest.and_then(|guest| guest.upgrade()) {
                    info!("{}: fault: the guest vanishes", guest.stats().guest());
                    guest.reset();
                }
            });
        });
    }
}

impl Door for FaultDoor {
    fn request(&self, command: (u8, u8)) -> RequestFate {
        if !self.armed(Place::Request) {
            return RequestFate::Answered;
        }
        let object = u16::from_be_bytes([command.0, command.1]).into();
        self.act(Occasion::Request, object);
        let concerns = |request: &Option<Request>| request.is_none_or(|request| request.command() == command);
        let select = |fault: &IsmFault| match fault {
            IsmFault::RequestRefused { request, status } if concerns(request) => {
                Some(RequestFate::Refused((*status).into()))
            }
            IsmFault::RequestLate { request, delay } if concerns(request) => Some(RequestFate::Late(delay.0)),
            _ => None,
        };
        self.strike(Place::Request, object, select)
            .unwrap_or(RequestFate::Answered)
    }

    fn map(&self) -> bool {
        if !self.armed(Place::Map) {
            return true;
        }
        self.act(Occasion::Map, 0);
        let select = |fault: &IsmFault| (*fault == IsmFault::MapRefused).then_some(());
        self.strike(Place::Map, 0, select).is_none()
    }

    fn bell(&self, chunk: u32) -> BellFate {
        if !self.armed(Place::Bell) {
            return BellFate::Delivered;
        }
        self.act(Occasion::Bell, chunk);
        let select = |fault: &IsmFault| match fault {
            IsmFault::BellLost => Some(BellFate::Lost),
            IsmFault::BellLate { delay } => Some(BellFate::Late(delay.0)),
            IsmFault::BellSpurious { delay } => Some(BellFate::Repeated(delay.0)),
            _ => None,
        };
        self.strike(Place::Bell, chunk, select).unwrap_or(BellFate::Delivered)
    }

    fn event(&self, kind: EventKind) -> bool {
        if !self.armed(Place::Event) {
            return true;
        }
        self.act(Occasion::Event, 0);
        let select = |fault: &IsmFault| match fault {
            IsmFault::EventLost { event } if event.is_none_or(|event| event == kind) => Some(()),
            _ => None,
        };
        self.strike(Place::Event, 0, select).is_none()
    }

    fn later(&self, delay: Duration, work: Box<dyn FnOnce() + Send>) {
        self.faults.after_inside(delay, work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_documented() {
        let page = include_str!("../../docs/faults.md");
        let refusal = serde_json::from_str::<IsmFault>(r#"{"kind": ""}"#)
            .unwrap_err()
            .to_string();
        let expected = refusal.split("expected one of").nth(1).expect(&refusal);
        let kinds: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        assert_eq!(kinds.len(), 8, "{kinds:?}");
        for kind in kinds {
            assert!(
                page.contains(&format!("\n| `{kind}` |")),
                "{kind} is not in docs/faults.md"
            );
            let table = page
                .split("| fault | SMC |")
                .nth(1)
                .and_then(|table| table.split("\n\n").next());
            let mut faults = table
                .expect("a table")
                .lines()
                .filter_map(|row| row.split(" | ").next());
            let quoted = format!("`{kind}`");
            assert!(
                faults.any(|fault| fault.contains(&quoted)),
                "no row has what SMC does under {kind}"
            );
        }
    }
}
