//! Faults of a plan, as the drivers see them.

use std::sync::Arc;

use vhost_daemon::fault::{Faults, Plan};
use vhost_ism::abi::{CHUNK_SIZE, Gid, Status, Token};
use vhost_ism::fault::{FaultDoor, IsmFault};
use vhost_ism::ism_finding::Finding;

use crate::common::*;

/// Two guests whose doors take faults.
pub struct Faulty {
    pub host: Host,
    faults: Arc<Faults<IsmFault>>,
    doors: Vec<Arc<FaultDoor>>,
}

impl Faulty {
    fn new() -> Self {
        Self::at(Host::default())
    }

    pub fn at(host: Host) -> Self {
        Self {
            host,
            faults: Faults::new(["a", "b"].map(str::to_owned).to_vec()).unwrap(),
            doors: Vec::new(),
        }
    }

    pub fn boot(&mut self, name: &str) -> TestGuest {
        let seat = self.host.seat(name);
        self.doors.push(seat.install(&self.faults));
        seat.boot()
    }

    /// Boots a guest that posts no event buffers.
    pub fn boot_without_buffers(&mut self, name: &str) -> TestGuest {
        let seat = self.host.seat(name);
        self.doors.push(seat.install(&self.faults));
        seat.boot_with(Options {
            event_buffers: 0,
            ..Options::default()
        })
    }

    pub fn apply(&self, plan: &str) {
        self.faults.apply(Plan::from_toml(plan).unwrap()).unwrap();
        self.doors.iter().for_each(|door| door.now());
    }

    pub fn strikes(&self) -> Vec<u64> {
        self.faults.report().iter().map(|rule| rule.strikes).collect()
    }

    /// Occasions of the only rule.
    fn occasions(&self) -> u64 {
        self.faults.report()[0].occasions
    }
}

#[test]
fn the_chosen_request_is_refused_with_any_status() {
    let mut faulty = Faulty::new();
    let (mut a, b) = (faulty.boot("a"), faulty.boot("b"));
    faulty.apply(
        "[[fault]]\nkind = \"request_refused\"\nguest = \"a\"\nrequest = \"alloc_for_peer\"\n\
         status = \"no_spc\"\nskip = 1\ncount = 1",
    );
    let first = a.alloc_for_peer(b.gid(), 5000).unwrap();
    assert_eq!(a.alloc_for_peer(b.gid(), 5000).unwrap_err(), Status::NoSpc);
    let third = a.alloc_for_peer(b.gid(), 5000).unwrap();
    assert_eq!((faulty.host.stats().dmbs, faulty.strikes()), (2, vec![1]));
    for dmb in [first, third] {
        a.detach(dmb.token).unwrap();
    }
}

#[test]
fn a_refusal_by_a_fault_is_no_mistake_of_the_guest() {
    let mut faulty = Faulty::new();
    let (mut a, b) = (faulty.boot("a"), faulty.boot("b"));
    let seat = a.seat.clone().unwrap();
    let statuses = [
        ("no_ent", Status::NoEnt),
        ("too_big", Status::TooBig),
        ("no_mem", Status::NoMem),
        ("no_spc", Status::NoSpc),
        ("perm_attach", Status::PermAttach),
        ("perm_read", Status::PermRead),
        ("perm_write", Status::PermWrite),
        ("err", Status::Err),
    ];
    for (name, status) in statuses {
        faulty.apply(&format!("[[fault]]\nkind = \"request_refused\"\nstatus = \"{name}\""));
        assert_eq!(a.alloc_for_peer(b.gid(), 5000), Err(status));
        assert_eq!(a.detach(Token(7.into())), Err(status));
    }
    assert_eq!((seat.findings(), seat.counters().refusals), (Vec::new(), 16));
    // The same request without the fault is one.
    faulty.apply("");
    assert_eq!(a.detach(Token(7.into())), Err(Status::NoEnt));
    assert_eq!(seat.findings().len(), 1);
}

#[test]
fn a_slab_that_the_vmm_does_not_map_is_given_back() {
    let mut faulty = Faulty::new();
    let (mut a, b) = (faulty.boot("a"), faulty.boot("b"));
    // The first map of a session is that of the doorbell area.
    a.alloc_for_peer(b.gid(), u64::MAX).unwrap_err();
    faulty.apply("[[fault]]\nkind = \"map_refused\"\nguest = \"a\"\ncount = 1");
    assert_eq!(a.alloc_for_peer(b.gid(), 5000).unwrap_err(), Status::Err);
    assert_eq!(faulty.host.stats().dmbs, 0);
    a.alloc_for_peer(b.gid(), 5000).unwrap();
    assert_eq!(faulty.strikes(), [1]);
    // Only the size above is a mistake of the guest.
    let seat = a.seat.as_ref().unwrap();
    assert_eq!((seat.found(Finding::BadRequest), seat.findings().len()), (1, 1));
}

#[test]
fn bells_are_lost_late_and_spurious() {
    let mut faulty = Faulty::new();
    let (mut a, mut b) = (faulty.boot("a"), faulty.boot("b"));
    let owned = a.alloc_for_peer(b.gid(), 5000).unwrap();
    let attached = b.attach(owned.token).unwrap();
    let bell = Event::Doorbells(vec![(owned.offset / CHUNK_SIZE) as u32]);

    faulty.apply("[[fault]]\nkind = \"bell_lost\"\ncount = 1");
    b.ring(attached.offset);
    eventually("the strike", || faulty.strikes() == [1]);
    assert_eq!(a.seat.as_ref().unwrap().counters().rings, 0);

    faulty.apply("[[fault]]\nkind = \"bell_late\"\ncount = 1\ndelay = \"30ms\"");
    b.ring(attached.offset);
    eventually("the strike", || faulty.strikes() == [1]);
    assert_eq!(a.expect_event(), bell);

    faulty.apply("[[fault]]\nkind = \"bell_spurious\"\ncount = 1\ndelay = \"30ms\"");
    b.ring(attached.offset);
    assert_eq!(a.expect_event(), bell);
    assert_eq!(a.expect_event(), bell);
}

#[test]
fn an_event_is_lost() {
    let mut faulty = Faulty::new();
    let (mut a, mut b) = (faulty.boot("a"), faulty.boot("b"));
    let owned = a.alloc_for_peer(b.gid(), 5000).unwrap();
    b.attach(owned.token).unwrap();
    faulty.apply("[[fault]]\nkind = \"event_lost\"\nguest = \"a\"\nevent = \"peer_gone\"");
    b.reset();
    eventually("the strike", || faulty.strikes() == [1]);
}

#[test]
fn a_lost_message_is_as_good_as_sent_and_the_next_one_arrives() {
    let mut faulty = Faulty::new();
    let (mut a, mut b) = (faulty.boot("a"), faulty.boot("b"));
    let (from, to) = (b.gid(), a.gid());
    faulty.apply("[[fault]]\nkind = \"event_lost\"\nguest = \"a\"\nevent = \"message\"\ncount = 1");
    b.send_message(to, 1, 2).unwrap();
    assert_eq!(faulty.strikes(), [1]);
    b.send_message(to, 3, 4).unwrap();
    assert_eq!(a.expect_event(), Event::Message(from, 3, 4));
    // The rule is about messages only.
    faulty.apply("[[fault]]\nkind = \"event_lost\"\nguest = \"a\"\nevent = \"message\"");
    let owned = a.alloc_for_peer(from, 5000).unwrap();
    b.attach(owned.token).unwrap();
    b.reset();
    assert_eq!((a.expect_event(), faulty.strikes()), (Event::PeerGone(from), vec![0]));
}

/// Puts a rule in force by which a guest vanishes at an occasion of a kind, after `skip` others.
fn vanish(faulty: &Faulty, guest: &str, on: &str, skip: u64) {
    faulty.apply(&format!(
        "[[fault]]\nkind = \"vanish\"\nguest = \"{guest}\"\non = \"{on}\"\nskip = {skip}\ncount = 1"
    ));
}

/// Two guests, and a DMB of the first that the second has attached.
struct Pair {
    faulty: Faulty,
    a: TestGuest,
    b: TestGuest,
    owned: Dmb,
    attached: Dmb,
}

impl Pair {
    fn new() -> Self {
        let mut faulty = Faulty::new();
        let (mut a, mut b) = (faulty.boot("a"), faulty.boot("b"));
        let owned = a.alloc_for_peer(b.gid(), 5000).unwrap();
        let attached = b.attach(owned.token).unwrap();
        Self {
            faulty,
            a,
            b,
            owned,
            attached,
        }
    }

    /// The rule in force has not struck, after this number of occasions.
    #[track_caller]
    fn expect_no_strike(&self, occasions: u64) {
        assert_eq!((self.faulty.occasions(), self.faulty.strikes()), (occasions, vec![0]));
        assert_eq!(self.faulty.host.stats().sessions, 2);
    }

    /// The second guest vanishes: the first is told so, and can give its DMB back.
    #[track_caller]
    fn expect_end_of_b(mut self, gone: Gid) {
        assert_eq!(self.a.expect_event(), Event::PeerGone(gone));
        assert_eq!(self.faulty.strikes(), [1]);
        self.a.detach(self.owned.token).unwrap();
        assert_eq!(self.faulty.host.stats().dmbs, 0);
        let no_findings = || [&self.a, &self.b].map(|guest| guest.seat.as_ref().unwrap().findings());
        assert_eq!(no_findings(), [[], []]);
    }

    /// The first guest, which owns the DMB, vanishes.
    #[track_caller]
    fn expect_end_of_a(mut self, gone: Gid) {
        assert_eq!(self.b.expect_event(), Event::PeerGone(gone));
        assert_eq!(self.faulty.strikes(), [1]);
        self.b.detach(self.owned.token).unwrap();
        assert_eq!(self.faulty.host.stats().dmbs, 0);
        let no_findings = || [&self.a, &self.b].map(|guest| guest.seat.as_ref().unwrap().findings());
        assert_eq!(no_findings(), [[], []]);
    }
}

#[test]
fn a_peer_vanishes_now() {
    let pair = Pair::new();
    let gone = pair.b.gid();
    vanish(&pair.faulty, "b", "now", 0);
    pair.expect_end_of_b(gone);
    // A plan is applied once.
    let pair = Pair::new();
    vanish(&pair.faulty, "b", "now", 1);
    pair.expect_no_strike(1);
}

#[test]
fn a_peer_vanishes_at_a_chosen_request() {
    for skip in 0..3 {
        let mut pair = Pair::new();
        let gone = pair.b.gid();
        vanish(&pair.faulty, "b", "request", skip);
        for passed in 0..skip {
            pair.b.query_gid(gone).unwrap();
            pair.expect_no_strike(passed + 1);
        }
        // Answered as long as the session goes on, or as one that there is not.
        let answer = pair.b.query_gid(pair.a.gid());
        assert!(
            [Ok(()), Err(Status::Err), Err(Status::NoEnt)].contains(&answer),
            "{answer:?}"
        );
        pair.expect_end_of_b(gone);
    }
}

#[test]
fn a_peer_vanishes_at_a_chosen_map() {
    for skip in 0..2 {
        let mut pair = Pair::new();
        let gone = pair.b.gid();
        vanish(&pair.faulty, "b", "map", skip);
        for passed in 0..skip {
            // Each is a slab of its own.
            pair.b.alloc(1 << 16).unwrap();
            pair.expect_no_strike(passed + 1);
        }
        let answer = pair.b.alloc(1 << 16);
        assert!(matches!(answer, Ok(_) | Err(Status::Err)), "{answer:?}");
        pair.expect_end_of_b(gone);
    }
}

#[test]
fn an_owner_vanishes_at_a_chosen_bell() {
    for skip in 0..3 {
        let mut pair = Pair::new();
        let gone = pair.a.gid();
        let bell = Event::Doorbells(vec![(pair.owned.offset / CHUNK_SIZE) as u32]);
        vanish(&pair.faulty, "a", "bell", skip);
        for passed in 0..skip {
            pair.b.ring(pair.attached.offset);
            assert_eq!(pair.a.expect_event(), bell);
            pair.expect_no_strike(passed + 1);
        }
        pair.b.ring(pair.attached.offset);
        pair.expect_end_of_a(gone);
    }
}

#[test]
fn a_guest_vanishes_at_a_chosen_event() {
    for skip in 0..3 {
        let mut pair = Pair::new();
        let gone = pair.a.gid();
        vanish(&pair.faulty, "a", "event", skip);
        for passed in 0..skip {
            pair.b.send_message(gone, 1, passed).unwrap();
            assert_eq!(pair.a.expect_event(), Event::Message(pair.b.gid(), 1, passed));
            pair.expect_no_strike(passed + 1);
        }
        pair.b.send_message(gone, 1, 100).unwrap();
        pair.expect_end_of_a(gone);
    }
}

#[test]
fn a_driver_that_is_unaware_of_its_end_makes_no_mistakes() {
    let mut pair = Pair::new();
    let gone = pair.b.gid();
    vanish(&pair.faulty, "b", "now", 0);
    assert_eq!(pair.a.expect_event(), Event::PeerGone(gone));
    // So that the next session can map, as it can of QEMU after the driver's reset.
    pair.b.window.unmap_all();
    let seat = pair.b.seat.clone().unwrap();
    assert_eq!(pair.b.detach(pair.owned.token), Err(Status::NoEnt));
    pair.b.ring(pair.attached.offset);
    eventually("the kick is served", || seat.counters().kicks > 0);
    pair.b.query_gid(pair.a.gid()).unwrap();
    assert_eq!((seat.findings(), seat.counters().sessions), (Vec::new(), 2));
    // Its next session is its own.
    pair.b.reset();
    assert_eq!(pair.b.detach(pair.owned.token), Err(Status::NoEnt));
    assert_eq!(seat.found(Finding::UnknownToken), 1);
}
