//! One guest of the daemon, and the session its driver runs.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use rand::RngCore;

use crate::abi::{CHUNK_SIZE, Config, F_AWAKE, F_BELLS, F_PEER, Gid, MAGIC, NOTIFY_SIZE, VERSION};
use crate::doorbell::DoorbellArea;
use crate::event::{EventRing, EventSink};
use crate::fabric::{Attachment, Fabric, LetGo, Mapping};
use crate::stats::{Finding, GuestStats};
use crate::window::{RegionMapper, Window};

/// Bytes at the end of the shared memory region that belong to the doorbell area. As large as Linux' memory subsection,
/// so that what lies before it can be device memory with struct pages.
pub const DOORBELL_TAIL: u64 = 2 << 20;

/// How long a VMM may well take to reset a device that it has stopped.
const RESET_TAKES: Duration = Duration::from_secs(2);
/// Between looks whether a stopped device has been reset: in that time, and later.
const LOOK_OFTEN: Duration = Duration::from_millis(10);
const LOOK_SELDOM: Duration = Duration::from_millis(250);

/// A guest's place in the daemon: it outlives the sessions of the guest's driver and the VMM's connections.
#[derive(Debug)]
pub struct Guest {
    fabric: Arc<Fabric>,
    stats: Arc<GuestStats>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the configuration space shows: the identity of this session, or of the next one.
    gid: Gid,
    devid: u64,
    session: Option<Arc<Session>>,
}

/// One life of a guest's driver, from its first request to its reset; pauses of the machine are part of it.
pub struct Session {
    gid: Gid,
    fabric: Arc<Fabric>,
    stats: Arc<GuestStats>,
    sink: Arc<EventSink>,
    area: DoorbellArea,
    bells: Mutex<Bells>,
    window: Mutex<Window>,
    mapper: Arc<dyn RegionMapper>,
    alive: AtomicBool,
    /// The device is stopped; changed under the guest's lock.
    paused: AtomicBool,
    /// The driver has asked for something, so it may have told others its GID.
    asked: AtomicBool,
}

/// How the device was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With rings from their beginning, as after a reset.
    Anew,
    /// With rings where they were when it was stopped.
    Onward,
}

/// Which DMB a doorbell byte belongs to.
#[derive(Debug, Default)]
struct Bells {
    /// By chunk of this guest's window.
    connected: Vec<Option<Bell>>,
    /// What one look at the area found; kept for its memory.
    rung: Vec<u32>,
}

#[derive(Debug, Clone)]
struct Bell {
    owner: Arc<EventSink>,
    owner_chunk: u32,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("gid", &self.gid)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guest {
    /// A guest without a session.
    pub fn new(name: String, fabric: Arc<Fabric>) -> Self {
        let state = State {
            gid: fabric.new_gid(),
            devid: rand::rng().next_u64(),
            session: None,
        };
        Self {
            fabric,
            stats: Arc::new(GuestStats::new(name)),
            state: Mutex::new(state),
        }
    }

    /// Its counters.
    pub fn stats(&self) -> &Arc<GuestStats> {
        &self.stats
    }

    /// Length of its shared memory region.
    pub fn region_size(&self) -> u64 {
        self.fabric.limits().window_size + DOORBELL_TAIL
    }

    /// What its configuration space shows.
    pub fn config(&self) -> Config {
        let state = lock(&self.state);
        let limits = self.fabric.limits();
        Config {
            gid: self.fabric.id().into(),
            devid: state.devid.into(),
            chunk_size: CHUNK_SIZE.into(),
            notify_size: NOTIFY_SIZE.into(),
            magic: MAGIC.into(),
            version: VERSION.into(),
            chid: self.fabric.chid().into(),
            features: (F_PEER | F_AWAKE | F_BELLS).into(),
            max_dmbs: limits.max_dmbs.into(),
            dmb_gid: state.gid,
            window_size: limits.window_size.into(),
            doorbell_offset: limits.window_size.into(),
            doorbell_size: DoorbellArea::len_for(limits.window_size).into(),
            max_dmb_size: limits.max_dmb_size.into(),
        }
    }

    /// The session, while the device runs.
    pub fn session(&self) -> Option<Arc<Session>> {
        lock(&self.state).session.clone().filter(|session| !session.is_paused())
    }

    /// The device has been started: begins a session unless one runs, or goes on with the one that was paused. `still_up`
    /// is asked under the lock that [`Guest::pause`] and [`Guest::stop`] take, so that a late start cannot outlive the stop
    /// it raced with; there is no session when the answer is no. Fails for want of a doorbell area.
    pub fn start(
        &self,
        still_up: impl FnOnce() -> bool,
        how: Start,
        ring: Box<dyn EventRing>,
        mapper: Arc<dyn RegionMapper>,
    ) -> io::Result<Option<Arc<Session>>> {
        let mut state = lock(&self.state);
        if let Some(session) = state.session.as_ref().filter(|session| !session.is_paused()) {
            return Ok(Some(session.clone()));
        }
        if !still_up() {
            return Ok(None);
        }
        if let Some(session) = state.session.clone() {
            // The rings of a driver that has asked for nothing yet are at their beginning, too.
            let goes_on = how == Start::Onward || !session.asked.load(Ordering::Relaxed);
            if goes_on && session.resume() {
                session.sink.open(ring);
                return Ok(Some(session));
            }
            self.end(&mut state);
        }
        let area = DoorbellArea::new(self.fabric.limits().window_size)?;
        let sink = Arc::new(EventSink::new(self.stats.clone()));
        self.fabric.join(state.gid, state.devid, sink.clone());
        sink.open(ring);
        let session = Arc::new(Session {
            gid: state.gid,
            fabric: self.fabric.clone(),
            stats: self.stats.clone(),
            sink,
            area,
            bells: Mutex::default(),
            window: Mutex::default(),
            mapper,
            alive: AtomicBool::new(true),
            paused: AtomicBool::new(false),
            asked: AtomicBool::new(false),
        });
        state.session = Some(session.clone());
        self.stats.sessions.add(1);
        info!("{}: driver is up, GID {}", self.stats.guest(), session.gid);
        Ok(Some(session))
    }

    /// The device has been stopped. That is a reset by the driver or the machine, or the machine is paused: the VMM does not
    /// say. Until it is known the session keeps all it has, and what comes for it waits.
    pub fn pause(&self) {
        let state = lock(&self.state);
        if let Some(session) = &state.session {
            session.paused.store(true, Ordering::Release);
            session.sink.park();
            session.area.pause();
        }
    }

    /// Looks for the signs of a reset as long as the device is stopped. To be called when this process holds none of the
    /// guest's memory any more.
    ///
    /// A VMM unmaps the shared memory region of a device that is reset, and of no other. So the session is over when
    /// nobody has mapped its doorbell area.
    pub fn watch_pause(self: &Arc<Self>) {
        let session = lock(&self.state).session.clone();
        let Some(session) = session.filter(|session| session.asked.load(Ordering::Relaxed)) else {
            return;
        };
        let guest = self.clone();
        let watch = move || {
            let start = Instant::now();
            while session.is_alive() && session.is_paused() {
                if session.area.is_abandoned() {
                    let mut state = lock(&guest.state);
                    if state
                        .session
                        .as_ref()
                        .is_some_and(|current| Arc::ptr_eq(current, &session))
                    {
                        guest.end(&mut state);
                    }
                } else if start.elapsed() < RESET_TAKES {
                    thread::sleep(LOOK_OFTEN);
                } else {
                    thread::sleep(LOOK_SELDOM);
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("pause".to_owned()).spawn(watch) {
            // No worse than what a VMM that pauses its machine would otherwise get.
            warn!("{}: a stop counts as a reset: {error}", self.stats.guest());
            self.stop();
        }
    }

    /// The driver probes the device: what was paused has been reset.
    pub fn stop_if_paused(&self) {
        let mut state = lock(&self.state);
        if state.session.as_ref().is_some_and(|session| session.is_paused()) {
            self.end(&mut state);
        }
    }

    /// The VMM is gone: ends the session, whatever its state.
    pub fn stop(&self) {
        self.end(&mut lock(&self.state));
    }

    /// Ends the session, tells its peers, and takes a new identity.
    fn end(&self, state: &mut State) {
        let Some(session) = state.session.take() else { return };
        state.gid = self.fabric.new_gid();
        state.devid = rand::rng().next_u64();
        session.alive.store(false, Ordering::Release);
        session.sink.close();
        let peers = self.fabric.leave(session.gid);
        for peer in &peers {
            peer.peer_gone(session.gid);
        }
        info!(
            "{}: driver is down, GID {}, {} peer(s) told",
            self.stats.guest(),
            session.gid,
            peers.len()
        );
    }
}

impl Session {
    /// Its GID.
    pub fn gid(&self) -> Gid {
        self.gid
    }

    /// The fabric it is in.
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// Its guest's counters.
    pub fn stats(&self) -> &GuestStats {
        &self.stats
    }

    /// Where its events go.
    pub fn events(&self) -> &EventSink {
        &self.sink
    }

    /// Whether the device is stopped.
    fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// The device goes on after a stop. Returns whether it can.
    fn resume(&self) -> bool {
        if let Err(error) = self.area.resume() {
            warn!("{}: {error}", self.stats.guest());
            return false;
        }
        self.paused.store(false, Ordering::Release);
        info!("{}: the device goes on, GID {}", self.stats.guest(), self.gid);
        true
    }

    /// To be called while a control request is being answered, before anything else: maps the doorbell area if this is
    /// the first one, and takes slabs that serve nobody any more out of the window.
    pub fn settle_window(&self) -> io::Result<()> {
        self.asked.store(true, Ordering::Relaxed);
        let mut window = lock(&self.window);
        self.check_alive()?;
        let offset = self.fabric.limits().window_size;
        if window.ensure_doorbell(&*self.mapper, self.area.memfd(), offset, self.area.len())? {
            self.stats.maps.add(1);
        }
        for id in self.fabric.stale_slabs(self.gid) {
            self.check_alive()?;
            match window.remove_slab(&*self.mapper, id) {
                Ok(was_mapped) => {
                    self.stats.unmaps.add(was_mapped.into());
                    self.fabric.vacate(self.gid, id);
                }
                // It keeps its place, and the next request asks again.
                Err(error) => debug!("{}: the VMM did not unmap: {error}", self.stats.guest()),
            }
        }
        Ok(())
    }

    /// To be called while a control request is being answered: makes a slab visible to the guest.
    pub fn map(&self, mapping: &Mapping) -> io::Result<()> {
        let mut window = lock(&self.window);
        self.check_alive()?;
        if window.ensure_slab(&*self.mapper, mapping)? {
            self.stats.maps.add(1);
        }
        Ok(())
    }

    /// Whether the driver has neither reset the device nor gone.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    fn check_alive(&self) -> io::Result<()> {
        if self.is_alive() {
            Ok(())
        } else {
            Err(io::Error::other("the driver's session is over"))
        }
    }

    /// The doorbell byte of an attached DMB now wakes its owner.
    pub fn connect_bell(&self, attachment: &Attachment) {
        let chunk = (attachment.placement.offset / CHUNK_SIZE) as usize;
        let mut bells = lock(&self.bells);
        if bells.connected.len() <= chunk {
            bells.connected.resize(chunk + 1, None);
        }
        bells.connected[chunk] = Some(Bell {
            owner: attachment.owner.clone(),
            owner_chunk: attachment.owner_chunk,
        });
    }

    /// The doorbell of a DMB that was let go of wakes nobody any more. A ring from before still counts: SMC rings and
    /// detaches at once when it aborts a connection, and the owner must hear of that.
    pub fn disconnect_bell(&self, let_go: LetGo) {
        let LetGo::Attached { chunk } = let_go else { return };
        let last_ring = {
            let mut bells = lock(&self.bells);
            let bell = bells.connected.get_mut(chunk as usize).and_then(Option::take);
            bell.filter(|_| self.area.take(chunk))
        };
        if let Some(bell) = last_ring {
            self.stats.doorbells.add(1);
            bell.owner.ring(&[bell.owner_chunk]);
        }
    }

    /// The guest kicked: passes on what it rang, until nothing is left to pass on.
    pub fn serve_doorbells(&self) {
        self.stats.kicks.add(1);
        self.area.set_awake(true);
        // Bells can only be connected in the part of the window that is in use; what rings elsewhere is a mistake, and
        // looked for when nothing else rang.
        let mut rung = self.collect(None);
        if rung.is_empty() {
            rung = self.collect(Some(u32::MAX));
        }
        loop {
            while !rung.is_empty() && self.alive.load(Ordering::Relaxed) {
                for (owner, chunks) in rung {
                    owner.ring(&chunks);
                }
                rung = self.collect(None);
            }
            self.area.set_awake(false);
            rung = self.collect(None);
            if rung.is_empty() || !self.alive.load(Ordering::Relaxed) {
                return;
            }
            self.area.set_awake(true);
        }
    }

    /// Takes what was rung, by owner; nearly always one of each. Taken and looked up under one lock, so that a ring never
    /// falls between a bell and its disconnection.
    fn collect(&self, limit: Option<u32>) -> Vec<(Arc<EventSink>, Vec<u32>)> {
        let mut owners: Vec<(Arc<EventSink>, Vec<u32>)> = Vec::new();
        let Bells { connected, rung } = &mut *lock(&self.bells);
        self.area.collect(limit.unwrap_or(connected.len() as u32), rung);
        for &chunk in rung.iter() {
            let Some(bell) = connected.get(chunk as usize).and_then(Option::as_ref) else {
                self.stats.find(Finding::StrayDoorbell);
                continue;
            };
            self.stats.doorbells.add(1);
            match owners.iter_mut().find(|(owner, _)| Arc::ptr_eq(owner, &bell.owner)) {
                Some((_, chunks)) => chunks.push(bell.owner_chunk),
                None => owners.push((bell.owner.clone(), vec![bell.owner_chunk])),
            }
        }
        owners
    }
}
