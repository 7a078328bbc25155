//! Random programs, against a model that predicts each step.

use std::collections::HashMap;

use proptest::prelude::*;
use rustix::io::{pread, pwrite};

use crate::slab::SlabMemory;

use super::*;
use crate::abi::{PERM_CLEAN_DEFAULT, PERM_MANAGE};

/// A step of a random program. Guests and DMBs are named by a number that is taken modulo their number.
#[derive(Clone, Debug)]
enum Step {
    Join(usize),
    Leave(usize),
    AllocForPeer(usize, usize, u64),
    Alloc(usize, u64),
    Attach(usize, usize, u32),
    Detach(usize, usize),
    GrantDefault(usize, usize, u32),
    GrantDevice(usize, usize, usize, u32),
    Settle(usize),
}

const GUESTS: usize = 4;

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 1..=(64u64 << 10),
        4 => (64u64 << 10)..=(1 << 20),
        1 => Just(1 << 20),
        1 => prop_oneof![Just(0), Just((1 << 20) + 1), Just(u64::MAX)],
    ]
}

fn permissions() -> impl Strategy<Value = u32> {
    prop_oneof![2 => Just(ALL as u32), 1 => 0..32u32]
}

fn step() -> impl Strategy<Value = Step> {
    let guest = || 0..GUESTS;
    let dmb = || 0..64usize;
    prop_oneof![
        3 => guest().prop_map(Step::Join),
        1 => guest().prop_map(Step::Leave),
        8 => (guest(), guest(), size()).prop_map(|(a, b, size)| Step::AllocForPeer(a, b, size)),
        4 => (guest(), size()).prop_map(|(a, size)| Step::Alloc(a, size)),
        8 => (guest(), dmb(), prop_oneof![4 => Just(RW), 1 => 0..8u32]).prop_map(|(a, d, p)| Step::Attach(a, d, p)),
        6 => (guest(), dmb()).prop_map(|(a, d)| Step::Detach(a, d)),
        3 => (guest(), dmb(), permissions()).prop_map(|(a, d, p)| Step::GrantDefault(a, d, p)),
        3 => (guest(), dmb(), guest(), permissions()).prop_map(|(a, d, b, p)| Step::GrantDevice(a, d, b, p)),
        3 => guest().prop_map(Step::Settle),
    ]
}

/// A guest of the model.
#[derive(Clone)]
struct ModelGuest {
    gid: Gid,
    devid: u64,
    sink: Arc<EventSink>,
    up: bool,
}

/// A DMB of the model, dead or alive.
struct ModelDmb {
    token: Token,
    owner: Gid,
    owner_holds: bool,
    attached: HashSet<Gid>,
    /// The only guest that may attach, if there is one.
    peer: Option<Gid>,
    default: u32,
    by_device: HashMap<u64, u32>,
    memory: SlabMemory,
    /// Offset in the slab.
    offset: u64,
    size: u64,
}

impl ModelDmb {
    fn is_held(&self) -> bool {
        self.owner_holds || !self.attached.is_empty()
    }

    fn block(&self) -> u64 {
        self.size.next_power_of_two().max(CHUNK_SIZE)
    }

    fn granted(&self, guest: &ModelGuest) -> u32 {
        match self.peer {
            Some(peer) if peer == guest.gid => ALL as u32,
            Some(_) => 0,
            None => match self.by_device.get(&guest.devid) {
                Some(own) if own & PERM_CLEAN_DEFAULT != 0 => *own,
                Some(own) => own | self.default,
                None => self.default,
            },
        }
    }

    /// Returns the answer to ATTACH, if there is room.
    fn attach(&self, guest: &ModelGuest, rw_perm: u32) -> Result<(), Refusal> {
        if !self.owner_holds {
            return Err(Refusal::NoSuchDmb);
        }
        let granted = self.granted(guest);
        if self.owner == guest.gid || self.attached.contains(&guest.gid) || granted & PERM_ATTACH == 0 {
            Err(Refusal::Attach)
        } else if granted & rw_perm & PERM_READ == 0 {
            Err(Refusal::Read)
        } else if granted & rw_perm & PERM_WRITE == 0 {
            Err(Refusal::Write)
        } else {
            Ok(())
        }
    }
}

/// The fabric and its expected state.
struct Model {
    fabric: Fabric,
    guests: Vec<ModelGuest>,
    dmbs: Vec<ModelDmb>,
    /// Guests that have been given a mapping of each slab.
    may_see: HashMap<SlabId, HashSet<Gid>>,
    /// Pairs of sessions that share memory, or have.
    acquainted: HashSet<(Gid, Gid)>,
}

impl Model {
    fn new() -> Self {
        let fabric = fabric();
        let guest = |_| ModelGuest {
            gid: fabric.new_gid(),
            devid: 0,
            sink: new_sink(),
            up: false,
        };
        Self {
            guests: (0..GUESTS).map(guest).collect(),
            fabric,
            dmbs: Vec::new(),
            may_see: HashMap::new(),
            acquainted: HashSet::new(),
        }
    }

    /// Returns the number of DMBs a guest holds.
    fn held(&self, gid: Gid) -> u32 {
        let owned = self.dmbs.iter().filter(|dmb| dmb.owner_holds && dmb.owner == gid);
        let attached = self.dmbs.iter().filter(|dmb| dmb.attached.contains(&gid));
        (owned.count() + attached.count()) as u32
    }

    /// Checks a refusal for lack of room: always possible, required when the table is full.
    fn check_full(&self, gid: Gid, refusal: Option<Refusal>) {
        if self.held(gid) >= limits().max_dmbs {
            assert_eq!(refusal, Some(Refusal::Full));
        }
    }

    /// Adds a new DMB: zero, and marked so that a second user of its memory would be seen.
    fn add(&mut self, owner: Gid, peer: Option<Gid>, placement: &Placement) {
        let memory = placement.mapping.memory.clone();
        let offset = placement.offset - placement.mapping.base();
        let mut bytes = vec![1; placement.size as usize];
        pread(&*memory.memfd, &mut bytes, offset).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "a new DMB is not zero");
        let mut dmb = ModelDmb {
            token: placement.token,
            owner,
            owner_holds: true,
            attached: HashSet::new(),
            peer,
            default: 0,
            by_device: HashMap::new(),
            memory,
            offset,
            size: placement.size,
        };
        assert!(
            self.dmbs.iter().all(|other| other.token != dmb.token),
            "a token comes twice"
        );
        Self::mark(&mut dmb);
        let seers = self.may_see.entry(dmb.memory.id).or_default();
        seers.insert(owner);
        seers.extend(peer);
        self.acquainted.extend(peer.map(|peer| (owner, peer)));
        self.dmbs.push(dmb);
    }

    fn mark(dmb: &mut ModelDmb) {
        let mark = dmb.token.0.get().to_le_bytes();
        let len = mark.len().min(dmb.size as usize);
        pwrite(&*dmb.memory.memfd, &mark[..len], dmb.offset).unwrap();
        pwrite(&*dmb.memory.memfd, &mark[..len], dmb.offset + dmb.size - len as u64).unwrap();
    }

    fn check_mark(dmb: &ModelDmb) {
        let mark = dmb.token.0.get().to_le_bytes();
        let len = mark.len().min(dmb.size as usize);
        if dmb.size < 16 {
            // The two marks overlap.
            return;
        }
        for at in [dmb.offset, dmb.offset + dmb.size - len as u64] {
            let mut bytes = [0; 8];
            pread(&*dmb.memory.memfd, &mut bytes, at).unwrap();
            assert_eq!(bytes, mark, "{}: another one wrote here", dmb.token);
        }
    }

    /// Ends a hold as the fabric should.
    fn detach(&mut self, gid: Gid, index: usize) -> bool {
        let dmb = &mut self.dmbs[index];
        if dmb.owner == gid && dmb.owner_holds {
            dmb.owner_holds = false;
            true
        } else {
            dmb.attached.remove(&gid)
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Join(guest) => {
                let guest = &mut self.guests[guest];
                if !guest.up {
                    *guest = ModelGuest {
                        gid: self.fabric.new_gid(),
                        devid: self.fabric.new_devid(),
                        sink: new_sink(),
                        up: true,
                    };
                    self.fabric.join(guest.gid, guest.devid, guest.sink.clone());
                }
            }
            Step::Leave(guest) => self.leave(guest),
            Step::AllocForPeer(owner, peer, size) => {
                let (owner, peer) = (self.guests[owner].clone(), self.guests[peer].clone());
                let result = self.fabric.alloc_for_peer(owner.gid, peer.gid, size);
                let refusal = result.as_ref().err().copied();
                if size == 0 || size > limits().max_dmb_size || owner.gid == peer.gid {
                    assert_eq!(refusal, Some(Refusal::Invalid));
                } else if !owner.up || !peer.up {
                    assert_eq!(refusal, Some(Refusal::NoSuchPeer));
                } else {
                    self.check_full(owner.gid, refusal);
                    assert!(matches!(refusal, None | Some(Refusal::Full)), "{refusal:?}");
                    if let Ok(placement) = result {
                        self.add(owner.gid, Some(peer.gid), &placement);
                    }
                }
            }
            Step::Alloc(owner, size) => {
                let owner = self.guests[owner].clone();
                let result = self.fabric.alloc(owner.gid, size, ANY);
                let refusal = result.as_ref().err().copied();
                if size == 0 || size > limits().max_dmb_size {
                    assert_eq!(refusal, Some(Refusal::Invalid));
                } else if !owner.up {
                    assert_eq!(refusal, Some(Refusal::NoSuchPeer));
                } else {
                    self.check_full(owner.gid, refusal);
                    assert!(matches!(refusal, None | Some(Refusal::Full)), "{refusal:?}");
                    if let Ok(placement) = result {
                        self.add(owner.gid, None, &placement);
                    }
                }
            }
            _ if self.dmbs.is_empty() => {}
            Step::Attach(guest, dmb, rw_perm) => self.attach(guest, dmb % self.dmbs.len(), rw_perm),
            Step::Detach(guest, dmb) => {
                let (gid, dmb) = (self.guests[guest].gid, dmb % self.dmbs.len());
                let owned = self.dmbs[dmb].owner == gid;
                let expected = self.detach(gid, dmb);
                let got = self.fabric.detach(gid, self.dmbs[dmb].token);
                match got {
                    Ok(Detached::Owned { .. }) => assert!(expected && owned),
                    Ok(Detached::Attached { .. }) => assert!(expected && !owned),
                    Err(refusal) => assert!(!expected && refusal == Refusal::NoSuchDmb),
                }
            }
            Step::GrantDefault(guest, dmb, permissions) => self.grant(guest, dmb % self.dmbs.len(), None, permissions),
            Step::GrantDevice(guest, dmb, to, permissions) => {
                let devid = self.guests[to].devid;
                self.grant(guest, dmb % self.dmbs.len(), Some(devid), permissions);
            }
            Step::Settle(guest) => settle(&self.fabric, self.guests[guest].gid),
        }
        self.check();
    }

    fn leave(&mut self, guest: usize) {
        let gid = self.guests[guest].gid;
        let pairs = self.acquainted.iter();
        let expected: HashSet<Gid> = pairs
            .filter_map(|&(a, b)| match gid {
                gid if gid == a => Some(b),
                gid if gid == b => Some(a),
                _ => None,
            })
            .collect();
        let notified = self.fabric.leave(gid);
        let notified: HashSet<*const EventSink> = notified.iter().map(Arc::as_ptr).collect();
        for other in self.guests.iter().filter(|other| other.up && other.gid != gid) {
            assert_eq!(
                notified.contains(&Arc::as_ptr(&other.sink)),
                self.guests[guest].up && expected.contains(&other.gid)
            );
        }
        assert!(!notified.contains(&Arc::as_ptr(&self.guests[guest].sink)));
        self.guests[guest].up = false;
        for index in 0..self.dmbs.len() {
            self.detach(gid, index);
        }
    }

    fn attach(&mut self, guest: usize, dmb: usize, rw_perm: u32) {
        let guest = self.guests[guest].clone();
        let dmb = &self.dmbs[dmb];
        let expected = dmb.attach(&guest, rw_perm);
        let result = self.fabric.attach(guest.gid, dmb.token, rw_perm, ANY);
        if !guest.up {
            assert_eq!(result.unwrap_err(), Refusal::NoSuchPeer);
            return;
        }
        match (expected, result) {
            (Ok(()), Ok(attachment)) => {
                assert!(self.held(guest.gid) < limits().max_dmbs);
                let placement = attachment.placement;
                assert_eq!(placement.mapping.memory.id, dmb.memory.id);
                assert_eq!(placement.offset - placement.mapping.base(), dmb.offset);
                assert_eq!(placement.size, dmb.size);
                let owner = self.guests.iter().find(|guest| guest.gid == dmb.owner).unwrap();
                assert!(Arc::ptr_eq(&attachment.owner, &owner.sink));
                self.may_see.entry(dmb.memory.id).or_default().insert(guest.gid);
                let others = dmb.attached.iter().chain([&dmb.owner]);
                self.acquainted.extend(others.map(|other| (guest.gid, *other)));
                let token = dmb.token;
                let dmb = self.dmbs.iter_mut().find(|dmb| dmb.token == token).unwrap();
                dmb.attached.insert(guest.gid);
            }
            (Ok(()), Err(refusal)) => assert_eq!(refusal, Refusal::Full),
            (Err(expected), result) => assert_eq!(result.err(), Some(expected)),
        }
    }

    fn grant(&mut self, guest: usize, dmb: usize, devid: Option<u64>, permissions: u32) {
        let guest = &self.guests[guest];
        let gid = guest.gid;
        let dmb = &mut self.dmbs[dmb];
        let manages = dmb.owner == gid || guest.up && dmb.granted(guest) & PERM_MANAGE != 0;
        let expected = if !dmb.owner_holds || !manages {
            Err(Refusal::NoSuchDmb)
        } else if dmb.peer.is_some() {
            Err(Refusal::Invalid)
        } else {
            match devid {
                None => dmb.default = permissions,
                Some(devid) => drop(dmb.by_device.insert(devid, permissions)),
            }
            Ok(())
        };
        assert_eq!(self.fabric.grant(gid, dmb.token, devid, permissions.into()), expected);
    }

    /// Checks the invariants after every step.
    fn check(&self) {
        let held: Vec<&ModelDmb> = self.dmbs.iter().filter(|dmb| dmb.is_held()).collect();
        let stats = self.fabric.stats();
        assert_eq!(stats.dmbs, held.len());
        assert_eq!(stats.sessions, self.guests.iter().filter(|guest| guest.up).count());
        assert_eq!(stats.lost_blocks, 0);

        let state = self.fabric.state();
        // DMBs of one slab lie apart, and belong to the same two.
        for (index, one) in held.iter().enumerate() {
            assert!(one.offset.is_multiple_of(one.block()));
            assert!(one.offset + one.block() <= one.memory.len);
            assert!(
                one.peer.is_none() || one.offset >= CHUNK_SIZE,
                "a DMB overlaps the bells"
            );
            Self::check_mark(one);
            let shared = &state.slabs[one.memory.id];
            match one.peer {
                Some(peer) => assert_eq!(shared.kind, pair(one.owner, peer)),
                None => assert_eq!((shared.kind, shared.live), (SlabKind::Solo, 1)),
            }
            for other in &held[index + 1..] {
                assert!(
                    one.memory.id != other.memory.id
                        || one.offset + one.block() <= other.offset
                        || other.offset + other.block() <= one.offset,
                    "two DMBs overlap"
                );
            }
        }
        // DMBs and bell chunks account for all allocated memory.
        let bells = state.slabs.iter().filter(|(_, s)| s.kind != SlabKind::Solo).count() as u64 * CHUNK_SIZE;
        let blocks: u64 = held.iter().map(|dmb| dmb.block()).sum();
        assert_eq!(stats.used_bytes, blocks + bells);
        // A slab without DMBs belongs to a pair of sessions that are both up.
        for (_, shared) in state.slabs.iter().filter(|(_, shared)| shared.live == 0) {
            let SlabKind::Pair(a, b) = shared.kind else {
                panic!("a slab without DMB or pair");
            };
            assert!(state.sessions.contains_key(&a) && state.sessions.contains_key(&b));
        }
        for (gid, session) in &state.sessions {
            assert_eq!(session.dmbs, self.held(*gid));
            assert!(session.dmbs <= limits().max_dmbs);
            assert!(session.places.len() <= limits().max_maps as usize);
            let mut ranges: Vec<(u64, u64)> = Vec::new();
            for (id, place) in &session.places {
                // Only sessions that the slab was created for have it.
                assert!(
                    self.may_see[id].contains(gid),
                    "a slab is in the window of a third guest"
                );
                // A slab that is gone is about to be unmapped.
                let len = match state.slabs.get(*id) {
                    Some(shared) => shared.slab.memory().len,
                    None => {
                        assert!(session.stale.contains(id));
                        WINDOW_UNIT
                    }
                };
                ranges.push((place.base(), place.base() + len));
            }
            ranges.sort_unstable();
            assert!(ranges.last().is_none_or(|last| last.1 <= limits().window_size));
            for two in ranges.windows(2) {
                assert!(two[0].1 <= two[1].0, "two slabs overlap in a window");
            }
            // Its DMBs are in its window.
            for dmb in held
                .iter()
                .filter(|dmb| dmb.attached.contains(gid) || (dmb.owner == *gid && dmb.owner_holds))
            {
                assert!(session.places.contains_key(&dmb.memory.id));
                assert!(
                    !session.stale.contains(&dmb.memory.id),
                    "a slab in use is marked for removal"
                );
            }
        }
        for (id, seers) in &self.may_see {
            if let Some(SlabKind::Pair(a, b)) = state.slabs.get(*id).map(|shared| shared.kind) {
                assert_eq!(seers, &HashSet::from([a, b]));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_program_keeps_the_rules(steps in prop::collection::vec(step(), 1..150)) {
        let mut model = Model::new();
        for guest in 0..3 {
            model.step(&Step::Join(guest));
        }
        for step in &steps {
            model.step(step);
        }
        for guest in 0..GUESTS {
            model.step(&Step::Leave(guest));
        }
        assert_empty(&model.fabric);
    }

    /// Checks that the whole window is free again once every DMB is detached.
    #[test]
    fn room_comes_back(steps in prop::collection::vec(step(), 1..100)) {
        let mut model = Model::new();
        for step in &steps {
            model.step(step);
        }
        for guest in 0..GUESTS {
            model.step(&Step::Leave(guest));
            model.step(&Step::Join(guest));
        }
        let (a, b) = (model.guests[0].gid, model.guests[1].gid);
        let count = (0..).take_while(|_| model.fabric.alloc(a, 1, ANY).is_ok()).count();
        assert_eq!(count, 4, "max_maps slabs of its own");
        let count = (0..).take_while(|_| model.fabric.alloc_for_peer(b, model.guests[2].gid, 1).is_ok()).count();
        assert_eq!(count, 8, "max_dmbs DMBs in one slab");
    }
}
