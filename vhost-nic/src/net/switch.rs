//! A learning switch (IEEE 802.1Q chapter 8, without spanning tree).
//!
//! Frames to a known station go to its port, all others to every port except the sender's. There is no filtering by
//! VLAN: tagged frames pass unchanged, but learning is independent per VLAN. Of the reserved group addresses only MAC
//! control (pause) is dropped; LLDP, LACP and the like pass, as if the guests were connected by a cable.
//!
//! Frames are delivered on the thread of their sender. No lock is held meanwhile: a port can send, attach and detach
//! from within [`Port::receive`].

mod cable;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use foldhash::fast::RandomState;
use parking_lot::RwLock;
use rustix::time::{ClockId, clock_gettime};
use vhost_daemon::isolate;

pub use cable::{Cable, Direction, End, OwnedEnd};

use super::burst::Burst;
use super::mac_table::{Knowledge, PortId, Station, Table};
use super::port::Port;
use super::stats::{Counter, Drops, PortStats, StationInfo, SwitchStats, Traffic};
use super::tap::{Destination, PortTap, Tap, Taps};
use super::wire_frame::{EthernetAddresses, Frame};
use crate::frame::mac::{CastType, Mac};

/// Length of the shortest frame, in bytes: an Ethernet header. Ports pad frames if their link requires it.
pub const MIN_FRAME: usize = 14;
/// Length of the longest frame, in bytes: the largest MTU of a ConnectX, the Ethernet header and two VLAN tags.
pub const MAX_FRAME: usize = 9978 + 14 + 8;

/// Maximum nesting of deliveries; answering from within [`Port::receive`] adds one level.
const MAX_NESTING: u32 = 16;
/// MAC control, IEEE 802.3 annex 31B.
const PAUSE_ADDRESS: Mac = Mac([0x01, 0x80, 0xc2, 0x00, 0x00, 0x01]);

thread_local! {
    static NESTING: Cell<u32> = const { Cell::new(0) };
}

/// Limits of a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of stations learned behind one port.
    pub stations_per_port: usize,
    /// Seconds without a frame after which a station is forgotten.
    pub station_age: u32,
}

impl Default for Limits {
    fn default() -> Self {
        // The age is the value recommended by IEEE 802.1Q table 8-6.
        Self {
            stations_per_port: 4096,
            station_age: 300,
        }
    }
}

/// A switch.
#[derive(Default)]
pub struct Switch {
    state: RwLock<State>,
    taps: Arc<Taps>,
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switch")
            .field("ports", &self.state.read().ports)
            .finish_non_exhaustive()
    }
}

struct State {
    ports: Arc<[Arc<Member>]>,
    table: Table,
    /// Addresses that belong to one port each (static entries, IEEE 802.1Q section 8.8.1).
    bound: HashMap<Mac, PortId, RandomState>,
    next_id: PortId,
}

impl Default for State {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl State {
    fn new(limits: Limits) -> Self {
        Self {
            ports: Arc::new([]),
            table: Table::new(limits.stations_per_port, limits.station_age),
            bound: HashMap::default(),
            next_id: 0,
        }
    }

    /// Whether a port may send from an address: its own, or one that is bound to no other port if it has none.
    fn may_send(&self, sender: &Member, source: Mac) -> bool {
        match self.bound.get(&source) {
            Some(id) => *id == sender.id,
            None => sender.address.get().is_none(),
        }
    }

    /// Returns the port of a station.
    fn find(&self, station: Station, now: u32) -> Option<PortId> {
        if !self.bound.is_empty()
            && let Some(id) = self.bound.get(&station.address())
        {
            return Some(*id);
        }
        self.table.find(station, now)
    }

    fn port(&self, id: PortId) -> Option<&Arc<Member>> {
        // Ids grow, and ports are appended: they are in order.
        let index = self.ports.binary_search_by_key(&id, |member| member.id).ok()?;
        self.ports.get(index)
    }
}

/// State of an attached port.
struct Member {
    id: PortId,
    tap: PortTap,
    port: Weak<dyn Port>,
    cable: Option<Arc<dyn Cable>>,
    /// The only address that it may send from, if it is restricted.
    address: OnceLock<Mac>,
    enabled: AtomicBool,
    plugged: AtomicBool,
    sent: Traffic,
    received: Traffic,
    dropped: Drops,
    not_learned: Counter,
    flooded: Counter,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.tap.name())
    }
}

impl Member {
    fn link_up(&self) -> bool {
        self.enabled.load(Ordering::Acquire) && self.plugged.load(Ordering::Acquire)
    }

    /// Delivers a burst over the cable.
    fn deliver(self: &Arc<Self>, burst: &Burst<'_>) {
        match &self.cable {
            None => self.arrive(burst),
            Some(cable) => cable.carry(Direction::In, burst, End::port(self)),
        }
    }

    /// Delivers a burst at the end of the cable.
    fn arrive(&self, burst: &Burst<'_>) {
        match self.port.upgrade() {
            Some(port) if self.link_up() => {
                self.received.count(burst);
                // A fault of the receiver is not the sender's, whose thread this is.
                let received = isolate(format_args!("{}: the receiver", self.tap.name()), || {
                    port.receive_burst(burst)
                });
                if received.is_none() {
                    self.dropped.panicked.add(burst.count());
                }
            }
            _ => self.dropped.undeliverable.add(burst.count()),
        }
    }

    fn stats(&self, stations: usize) -> PortStats {
        PortStats {
            name: self.tap.name().to_string(),
            link_up: self.link_up(),
            stations,
            sent: self.sent.snapshot(),
            received: self.received.snapshot(),
            dropped: self.dropped.snapshot(),
            not_learned: self.not_learned.get(),
            flooded: self.flooded.get(),
        }
    }
}

/// Destination of a frame.
enum Route {
    One(Arc<Member>),
    All(Arc<[Arc<Member>]>),
    SamePort,
    /// From an address that the sender may not use.
    Spoofed,
}

impl Switch {
    /// Creates a switch without ports, with the default limits.
    pub fn new() -> Arc<Self> {
        Self::with_limits(Limits::default())
    }

    /// Creates a switch without ports.
    pub fn with_limits(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            state: RwLock::new(State::new(limits)),
            ..Self::default()
        })
    }

    /// Attaches a port, with its link up, until the returned handle is dropped. The port sends through the handle.
    ///
    /// The switch does not keep `port` alive, so the port can own its handle (`Arc::new_cyclic`).
    pub fn attach(self: &Arc<Self>, name: &str, port: Weak<dyn Port>) -> SwitchPort {
        self.attach_by(None, name, port)
    }

    /// Attaches a port as [`attach`](Self::attach) does, by a cable that is more than a wire.
    pub fn attach_by(self: &Arc<Self>, cable: Option<Arc<dyn Cable>>, name: &str, port: Weak<dyn Port>) -> SwitchPort {
        let mut state = self.state.write();
        let id = state.next_id;
        state.next_id += 1;
        let member = Arc::new(Member {
            id,
            tap: PortTap::new(id, name, &self.taps),
            port,
            cable,
            address: OnceLock::new(),
            enabled: AtomicBool::new(true),
            plugged: AtomicBool::new(true),
            sent: Traffic::default(),
            received: Traffic::default(),
            dropped: Drops::default(),
            not_learned: Counter::default(),
            flooded: Counter::default(),
        });
        state.ports = state.ports.iter().cloned().chain([Arc::clone(&member)]).collect();
        SwitchPort {
            switch: Arc::clone(self),
            member,
        }
    }

    /// Adds a tap.
    pub fn add_tap(&self, tap: Arc<dyn Tap>) {
        self.taps.add(tap);
    }

    /// Removes a tap. Threads that have begun to call it may still do so.
    pub fn remove_tap(&self, tap: &Arc<dyn Tap>) {
        self.taps.remove(tap);
    }

    /// Plugs in or pulls the cable of the ports named `name`, and notifies them. Returns false if there are none.
    pub fn set_cable(&self, name: &str, plugged: bool) -> bool {
        let ports = Arc::clone(&self.state.read().ports);
        let mut found = false;
        for member in ports.iter().filter(|member| **member.tap.name() == *name) {
            found = true;
            if member.plugged.swap(plugged, Ordering::AcqRel) != plugged {
                if !plugged {
                    self.state.write().table.forget_port(member.id);
                }
                if let Some(port) = member.port.upgrade() {
                    port.cable_changed(plugged);
                }
            }
        }
        found
    }

    /// Returns the learned stations in the order of ports, VLANs and addresses.
    pub fn mac_table(&self) -> Vec<StationInfo> {
        let now = seconds();
        let (mut stations, ports) = {
            let state = self.state.read();
            (state.table.list(now), Arc::clone(&state.ports))
        };
        stations.sort_unstable_by_key(|&(station, port, _)| (port, station));
        let info = |(station, id, age_seconds): (Station, PortId, u32)| {
            let member = ports.iter().find(|member| member.id == id)?;
            Some(StationInfo {
                port: member.tap.name().to_string(),
                vlan: station.vlan(),
                mac: station.address().to_string(),
                age_seconds,
            })
        };
        stations.into_iter().filter_map(info).collect()
    }

    /// Takes a snapshot of the counters.
    pub fn stats(&self) -> SwitchStats {
        let state = self.state.read();
        SwitchStats {
            ports: state
                .ports
                .iter()
                .map(|member| member.stats(state.table.stations(member.id)))
                .collect(),
        }
    }

    /// Forwards a burst that has entered the switch.
    fn enter(&self, sender: &Member, burst: &Burst<'_>) {
        let depth = NESTING.get();
        if depth >= MAX_NESTING {
            return sender.dropped.nested.add(burst.count());
        }
        NESTING.set(depth + 1);
        self.forward(sender, burst);
        // Also after the panic of a receiver, which `Member::arrive` stops.
        NESTING.set(depth);
    }

    fn forward(&self, sender: &Member, burst: &Burst<'_>) {
        let count = burst.count();
        if !sender.link_up() {
            return sender.dropped.link_down.add(count);
        }
        let Some(addresses) = burst.addresses() else {
            return sender.dropped.too_short.add(count);
        };
        if let Some(long) = burst.without_long(MAX_FRAME, |single| self.forward(sender, single)) {
            return sender.dropped.too_long.add(long);
        }
        let EthernetAddresses {
            destination,
            source,
            vlan,
        } = addresses;
        if !source.is_station() {
            return sender.dropped.bad_source.add(count);
        }
        let observe = |to: Destination<'_>| {
            if sender.tap.is_on() {
                sender.tap.frames(to, burst);
            }
        };
        if destination == PAUSE_ADDRESS {
            observe(Destination::Nowhere);
            return sender.dropped.mac_control.add(count);
        }
        let from = Station::new(vlan, source);
        let to = (burst.cast() == CastType::Unicast).then(|| Station::new(vlan, destination));
        match self.route(sender, from, to) {
            Route::SamePort => {
                observe(Destination::Nowhere);
                sender.dropped.same_port.add(count);
            }
            Route::Spoofed => {
                observe(Destination::Nowhere);
                sender.dropped.spoofed.add(count);
            }
            Route::One(member) => {
                observe(Destination::Port(member.tap.name()));
                sender.sent.count(burst);
                member.deliver(burst);
            }
            Route::All(members) => {
                observe(Destination::All);
                flood(sender, &members, burst);
            }
        }
    }

    /// Learns the station that sent a frame, and looks up the destination.
    fn route(&self, sender: &Member, from: Station, to: Option<Station>) -> Route {
        let now = seconds();
        let state = self.state.read();
        if !state.bound.is_empty() && !state.may_send(sender, from.address()) {
            return Route::Spoofed;
        }
        let knowledge = state.table.refresh(from, sender.id, now);
        let route = match to.and_then(|station| state.find(station, now)) {
            Some(id) if id == sender.id => Route::SamePort,
            Some(id) => match state.port(id) {
                Some(member) => Route::One(Arc::clone(member)),
                None => Route::All(Arc::clone(&state.ports)),
            },
            None => Route::All(Arc::clone(&state.ports)),
        };
        drop(state);
        if knowledge == Knowledge::Missing {
            let mut state = self.state.write();
            // Not for a port that was detached meanwhile.
            if state.port(sender.id).is_some() && !state.table.learn(from, sender.id, now) {
                sender.not_learned.add(1);
            }
        }
        route
    }
}

fn flood(sender: &Member, members: &[Arc<Member>], burst: &Burst<'_>) {
    let count = burst.count();
    let mut others = members
        .iter()
        .filter(|member| member.id != sender.id && member.link_up())
        .peekable();
    if others.peek().is_none() {
        return sender.dropped.no_destination.add(count);
    }
    sender.sent.count(burst);
    if burst.cast() == CastType::Unicast {
        sender.flooded.add(count);
    }
    for member in others {
        member.deliver(burst);
    }
}

/// Seconds since boot of the host: cheap, and precise enough for ageing.
fn seconds() -> u32 {
    clock_gettime(ClockId::MonotonicCoarse).tv_sec as u32
}

/// Handle of an attached port, through which it sends. Dropping it detaches the port; a frame in delivery on another
/// thread may still arrive.
#[derive(Debug)]
pub struct SwitchPort {
    switch: Arc<Switch>,
    member: Arc<Member>,
}

impl SwitchPort {
    /// Sends a frame. It is delivered when this returns.
    pub fn send(&self, frame: Frame<'_>) {
        self.send_burst(&Burst::new(&[frame]));
    }

    /// Sends a burst. It is delivered when this returns, unless the cable delays it.
    pub fn send_burst(&self, burst: &Burst<'_>) {
        match &self.member.cable {
            None => self.switch.enter(&self.member, burst),
            Some(cable) => cable.carry(Direction::Out, burst, End::switch(&self.switch, &self.member)),
        }
    }

    /// Counts a burst from an address that the port may not use, in place of sending it.
    pub fn refuse_spoofed(&self, burst: &Burst<'_>) {
        if self.member.tap.is_on() {
            self.member.tap.frames(Destination::Nowhere, burst);
        }
        self.member.dropped.spoofed.add(burst.count());
    }

    /// The port as the taps of the switch see it.
    pub fn tap(&self) -> &PortTap {
        &self.member.tap
    }

    /// Binds an address to the port: it sends from no other, no other port sends from it, and frames to it come here.
    /// Returns false, and changes nothing, if the address is bound to another port, or another to this port.
    #[must_use]
    pub fn bind(&self, address: Mac) -> bool {
        let mut state = self.switch.state.write();
        if state.bound.contains_key(&address) || self.member.address.set(address).is_err() {
            return false;
        }
        state.bound.insert(address, self.member.id);
        true
    }

    /// Enables or disables the port's side of the link.
    pub fn set_enabled(&self, enabled: bool) {
        if self.member.enabled.swap(enabled, Ordering::AcqRel) && !enabled {
            self.switch.state.write().table.forget_port(self.member.id);
        }
    }

    /// Whether the cable is plugged in.
    pub fn is_plugged(&self) -> bool {
        self.member.plugged.load(Ordering::Acquire)
    }

    /// Whether the link is up: the cable is plugged in and the port's side is enabled.
    pub fn link_up(&self) -> bool {
        self.member.link_up()
    }

    /// Takes a snapshot of the port's counters.
    pub fn stats(&self) -> PortStats {
        let stations = self.switch.state.read().table.stations(self.member.id);
        self.member.stats(stations)
    }
}

impl Drop for SwitchPort {
    fn drop(&mut self) {
        let mut state = self.switch.state.write();
        state.ports = state
            .ports
            .iter()
            .filter(|member| member.id != self.member.id)
            .cloned()
            .collect();
        state.table.forget_port(self.member.id);
        state.bound.retain(|_, id| *id != self.member.id);
    }
}

#[cfg(test)]
mod tests;
