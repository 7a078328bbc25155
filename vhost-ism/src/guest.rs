//! A guest of the daemon, and the session of its driver.

mod pause;
mod rings;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use log::{debug, info, warn};
use parking_lot::Mutex;
use serde::Serialize;
use vhost_daemon::finding::Object;
use vhost_daemon::trace::Tracer;

use crate::abi::{CHUNK_SIZE, Config, F_AWAKE, F_BELLS, F_MOVE, F_NOTIFY, F_PEER, Gid, MAGIC, NOTIFY_SIZE, VERSION};
use crate::doorbell::DoorbellArea;
use crate::event::{EventRing, EventSink};
use crate::fabric::{Fabric, Layout, Mapping, Mode};
use crate::ism_finding::Finding;
use crate::stats::GuestStats;
use crate::tape::{Entry, GuestTape};
use crate::window::{RegionMapper, RegionRange, Traced, Window};

use rings::Doorbells;

/// Bytes of shared memory that belong to the doorbell area, at the end of the region or in one of its own. As large as
/// a memory subsection of Linux, so that the window before it can be device memory with struct pages.
pub const DOORBELL_TAIL: u64 = 2 << 20;

/// A guest of the daemon: it outlives the sessions of the guest's driver and the VMM's connections.
#[derive(Debug, Serialize)]
pub struct Guest {
    #[serde(skip)]
    fabric: Arc<Fabric>,
    #[serde(flatten)]
    stats: Arc<GuestStats>,
    /// Lock order: before every lock of the session but its window, which is held while the VMM maps, and before the
    /// event sinks of peers.
    #[serde(flatten)]
    state: Mutex<State>,
}

#[derive(Debug, Serialize)]
struct State {
    /// Identity of this session, or of the next one, as in the configuration space.
    gid: Gid,
    #[serde(serialize_with = "crate::inspect::hex")]
    devid: u64,
    session: Option<Arc<Session>>,
    /// Sessions that the device has ended since the queues were last stopped.
    #[serde(skip)]
    ended: Vec<Weak<Session>>,
}

/// A session of a guest's driver: from its first request to its reset, across pauses of the machine.
#[derive(Serialize)]
pub struct Session {
    gid: Gid,
    #[serde(skip)]
    devid: u64,
    #[serde(skip)]
    fabric: Arc<Fabric>,
    #[serde(skip)]
    stats: Arc<GuestStats>,
    #[serde(rename = "pending_events")]
    sink: Arc<EventSink>,
    #[serde(skip)]
    area: DoorbellArea,
    #[serde(rename = "connected_doorbells", serialize_with = "rings::connected")]
    doorbells: Mutex<Doorbells>,
    /// Locked while the VMM maps: not to be waited for with the guest's state locked.
    #[serde(serialize_with = "crate::inspect::unless_locked")]
    window: Mutex<Window>,
    #[serde(skip)]
    mapper: Traced,
    #[serde(skip)]
    alive: AtomicBool,
    /// The queues are those of the session still.
    #[serde(skip)]
    has_queues: AtomicBool,
    /// The device is stopped; changed under the guest's lock.
    paused: AtomicBool,
    /// A thread watches for the reset of the stopped device; changed under the guest's lock.
    #[serde(skip)]
    watched: AtomicBool,
    /// The driver has made a request, so peers may know its GID.
    used: AtomicBool,
    /// The driver is unaware that its earlier session has ended, and may use what it had in it.
    inherited: bool,
}

/// State of the rings at the start of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At their beginning, as after a reset.
    Initial,
    /// At their position when the device was stopped.
    Resumed,
}

/// Cause of the end of a session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// The driver, the machine or the VMM.
    Guest,
    /// The device, with the driver unaware.
    Device,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("gid", &self.gid)
            .finish_non_exhaustive()
    }
}

impl Guest {
    /// Creates a guest without a session.
    pub fn new(name: String, tracer: Tracer, fabric: Arc<Fabric>) -> Self {
        let state = State {
            gid: fabric.new_gid(),
            devid: fabric.new_devid(),
            session: None,
            ended: Vec::new(),
        };
        let tape = fabric.next_tape();
        Self {
            fabric,
            stats: Arc::new(GuestStats::with_tape(name, tracer, tape)),
            state: Mutex::new(state),
        }
    }

    /// Returns the guest's fabric.
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// Returns the guest's statistics.
    pub fn stats(&self) -> &Arc<GuestStats> {
        &self.stats
    }

    /// Returns the way of the data between this guest and its peers.
    pub fn mode(&self) -> Mode {
        self.fabric.limits().mode
    }

    /// Returns the lengths of the shared memory regions in bytes, by their ids; 0 for one that there is not. Their sum
    /// is a power of two, as they share a PCI BAR.
    pub fn region_sizes(&self) -> Vec<u64> {
        let limits = self.fabric.limits();
        match limits.layout {
            Layout::OneRegion => vec![0, limits.window_size + DOORBELL_TAIL],
            Layout::TwoRegions => vec![0, limits.window_size, DOORBELL_TAIL],
        }
    }

    /// Returns the configuration space.
    pub fn config(&self) -> Config {
        let state = self.state.lock();
        let limits = self.fabric.limits();
        let features = match limits.mode {
            Mode::Mapped => F_PEER | F_AWAKE | F_BELLS,
            Mode::Copy => F_PEER | F_BELLS | F_MOVE,
        };
        let features = match limits.layout {
            Layout::OneRegion => features,
            Layout::TwoRegions => features | F_NOTIFY,
        };
        Config {
            gid: self.fabric.id().into(),
            devid: state.devid.into(),
            chunk_size: CHUNK_SIZE.into(),
            notify_size: NOTIFY_SIZE.into(),
            magic: MAGIC.into(),
            version: VERSION.into(),
            chid: self.fabric.chid().into(),
            features: features.into(),
            max_dmbs: limits.max_dmbs.into(),
            dmb_gid: state.gid,
            window_size: limits.window_size.into(),
            doorbell_offset: limits.layout.doorbell_place(limits.window_size).1.into(),
            doorbell_size: DoorbellArea::len_for(limits.window_size).into(),
            max_dmb_size: limits.max_dmb_size.into(),
        }
    }

    /// Returns the random numbers that the identity of the next session was made of, in the order of their drawing.
    pub fn identity(&self) -> [u64; 3] {
        let state = self.state.lock();
        let gid = u128::from_be_bytes(state.gid.0);
        [(gid >> 64) as u64, gid as u64, state.devid]
    }

    /// Returns the session, while the device runs.
    pub fn session(&self) -> Option<Arc<Session>> {
        self.state.lock().session.clone().filter(|session| !session.is_paused())
    }

    /// Handles the start of the device: begins a session unless one runs, or resumes the one that was paused.
    /// `still_up` is evaluated under the lock that [`Guest::pause`] and [`Guest::stop`] take, so that a late start
    /// cannot outlive the stop it raced with; if it returns false there is no session. Fails if the doorbell area
    /// cannot be created.
    pub fn start(
        &self,
        still_up: impl FnOnce() -> bool,
        how: Start,
        ring: Box<dyn EventRing>,
        mapper: Arc<dyn RegionMapper>,
    ) -> io::Result<Option<Arc<Session>>> {
        let mut state = self.state.lock();
        if let Some(session) = state.session.as_ref().filter(|session| !session.is_paused()) {
            return Ok(Some(session.clone()));
        }
        if !still_up() {
            return Ok(None);
        }
        if let Some(session) = state.session.clone() {
            // The rings of a driver that has made no request yet are at their beginning as well.
            let resumed = how == Start::Resumed || !session.used.load(Ordering::Relaxed);
            if resumed && session.resume() {
                session.sink.open(ring);
                return Ok(Some(session));
            }
            self.end(&mut state);
        }
        let limits = self.fabric.limits();
        let own_region = limits.layout == Layout::TwoRegions;
        let area = DoorbellArea::new(limits.window_size, own_region, self.stats.tape().cloned())?;
        let sink = Arc::new(EventSink::new(self.stats.clone()));
        self.fabric.join(state.gid, state.devid, sink.clone());
        sink.open(ring);
        let session = Arc::new(Session {
            gid: state.gid,
            devid: state.devid,
            fabric: self.fabric.clone(),
            stats: self.stats.clone(),
            sink,
            area,
            doorbells: Mutex::default(),
            window: Mutex::default(),
            mapper: Traced::new(mapper, self.stats.tracer, self.stats.door().cloned()),
            alive: AtomicBool::new(true),
            has_queues: AtomicBool::new(true),
            paused: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            used: AtomicBool::new(false),
            inherited: how == Start::Resumed,
        });
        state.session = Some(session.clone());
        self.stats.counters.sessions.increment();
        info!("{}: driver is up, GID {}", self.stats.guest(), session.gid);
        Ok(Some(session))
    }

    /// Handles the stop of the device: either the driver or the machine resets it, or the machine is paused; the VMM
    /// does not say which. Until that is known the session keeps its objects, and its events wait.
    pub fn pause(&self) {
        let mut state = self.state.lock();
        for session in state.ended.drain(..).filter_map(|session| session.upgrade()) {
            session.has_queues.store(false, Ordering::Release);
        }
        if let Some(session) = &state.session {
            session.paused.store(true, Ordering::Release);
            session.sink.park();
            session.area.pause();
        }
    }

    /// Ends a paused session: the driver probes the device, so the stop was a reset.
    pub fn stop_if_paused(&self) {
        let mut state = self.state.lock();
        if state.session.as_ref().is_some_and(|session| session.is_paused()) {
            self.end(&mut state);
        }
    }

    /// Ends the session in any state: the VMM is gone.
    pub fn stop(&self) {
        GuestTape::enter(self.stats.tape(), |guest| Entry::End { guest }, || self.end_session());
    }

    /// Does the same within an entry.
    pub fn end_session(&self) {
        self.end(&mut self.state.lock());
    }

    /// Ends the session with the driver unaware. Its next request begins another. Returns false if there was none.
    pub fn reset(&self) -> bool {
        let mut had_session = false;
        let reset = || had_session = self.reset_session();
        GuestTape::enter(self.stats.tape(), |guest| Entry::Reset { guest }, reset);
        had_session
    }

    /// Does the same within an entry.
    pub fn reset_session(&self) -> bool {
        self.end_by(&mut self.state.lock(), By::Device)
    }

    fn end(&self, state: &mut State) {
        self.end_by(state, By::Guest);
    }

    /// Ends the session, notifies its peers, and creates a new identity. Returns false if there was none.
    fn end_by(&self, state: &mut State, by: By) -> bool {
        let Some(session) = state.session.take() else {
            return false;
        };
        state.gid = self.fabric.new_gid();
        state.devid = self.fabric.new_devid();
        session.alive.store(false, Ordering::Release);
        session.sink.close();
        match by {
            By::Guest => {
                session.has_queues.store(false, Ordering::Release);
                self.report_left(session.gid);
            }
            // The rings that follow a pause may be those of the next driver.
            By::Device if session.is_paused() => session.has_queues.store(false, Ordering::Release),
            By::Device => {
                state.ended.retain(|ended| ended.strong_count() > 0);
                state.ended.push(Arc::downgrade(&session));
            }
        }
        let peers = self.fabric.leave(session.gid);
        for peer in &peers {
            peer.peer_gone(session.gid);
        }
        for sink in self.fabric.sinks() {
            sink.sender_gone(session.gid);
        }
        session.deliver_attachments();
        info!(
            "{}: driver is down, GID {}, {} peer(s) notified",
            self.stats.guest(),
            session.gid,
            peers.len()
        );
        true
    }
}

impl Guest {
    /// Reports the DMBs that a session holds at its end.
    fn report_left(&self, gid: Gid) {
        let held = self.fabric.held(gid);
        for (kind, chunks) in [(Finding::DmbLeft, held.owned), (Finding::AttachmentLeft, held.attached)] {
            if let Some(first) = chunks.first() {
                let evidence: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.to_le_bytes()).collect();
                let text = format_args!("{}: {}", kind.text(), chunks.len());
                self.stats
                    .report_with(kind, Object::new("dmb", (*first).into()), &evidence, text);
            }
        }
    }
}

impl Session {
    /// Returns the session's GID.
    pub fn gid(&self) -> Gid {
        self.gid
    }

    /// Returns the session's device id.
    pub fn devid(&self) -> u64 {
        self.devid
    }

    /// Returns the session's fabric.
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// Returns the guest's statistics.
    pub fn stats(&self) -> &GuestStats {
        &self.stats
    }

    /// Returns the session's event sink.
    pub fn events(&self) -> &EventSink {
        &self.sink
    }

    /// Reports the use of a DMB that there is not, unless it may be one of an earlier session of an unaware driver.
    pub fn report_unknown(&self, kind: Finding, object: Object, evidence: &[u8], text: std::fmt::Arguments<'_>) {
        if !self.inherited {
            self.stats.report_with(kind, object, evidence, text);
        }
    }

    /// Returns whether the device is stopped.
    fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Resumes the session after a stop. Returns false if that failed.
    fn resume(&self) -> bool {
        if let Err(error) = self.area.resume() {
            warn!("{}: {error}", self.stats.guest());
            return false;
        }
        self.paused.store(false, Ordering::Release);
        info!("{}: session resumed, GID {}", self.stats.guest(), self.gid);
        true
    }

    /// Maps the doorbell area on the first call, and unmaps unused slabs. Must be called while a control request is
    /// being answered, before any other operation.
    pub fn settle_window(&self) -> io::Result<()> {
        self.used.store(true, Ordering::Relaxed);
        let mut window = self.window.lock();
        self.check_alive()?;
        let limits = self.fabric.limits();
        let (shmid, offset) = limits.layout.doorbell_place(limits.window_size);
        let to = RegionRange {
            shmid,
            offset,
            len: self.area.len(),
        };
        if window.ensure_doorbell(&self.mapper, self.area.memfd(), to)? {
            self.stats.counters.maps.increment();
        }
        for id in self.fabric.stale_slabs(self.gid) {
            self.check_alive()?;
            match window.remove_slab(&self.mapper, id) {
                Ok(unmapped) => {
                    self.stats.counters.unmaps.add(unmapped);
                    self.fabric.vacate(self.gid, id);
                }
                // It keeps its place, and the next request tries again.
                Err(error) => debug!("{}: the VMM did not unmap a slab: {error}", self.stats.guest()),
            }
        }
        Ok(())
    }

    /// Maps a slab into the guest. Must be called while a control request is being answered.
    pub fn map(&self, mapping: &Mapping) -> io::Result<()> {
        let mut window = self.window.lock();
        self.check_alive()?;
        self.stats.counters.maps.add(window.ensure_slab(&self.mapper, mapping)?);
        Ok(())
    }

    /// Returns whether the session goes on: the driver has neither reset the device nor gone.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Returns whether a request that the session has taken can be answered. A session that the device has ended keeps
    /// its queues.
    pub fn has_queues(&self) -> bool {
        self.has_queues.load(Ordering::Acquire)
    }

    fn check_alive(&self) -> io::Result<()> {
        if self.is_alive() {
            Ok(())
        } else {
            Err(io::Error::other("the session has ended"))
        }
    }

    /// Delivers the attachments and detachments that have been noted for peers.
    pub fn deliver_attachments(&self) {
        for sink in self.fabric.take_noted() {
            sink.flush();
        }
    }
}
