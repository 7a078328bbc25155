//! Faults of a plan, as the drivers see them.

use std::sync::Arc;

use vhost_daemon::fault::{Faults, Plan};
use vhost_ism::abi::{CHUNK_SIZE, Status};
use vhost_ism::fault::{FaultDoor, IsmFault};

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

    pub fn apply(&self, plan: &str) {
        self.faults.apply(Plan::from_toml(plan).unwrap()).unwrap();
        self.doors.iter().for_each(|door| door.now());
    }

    pub fn strikes(&self) -> Vec<u64> {
        self.faults.report().iter().map(|rule| rule.strikes).collect()
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

#[test]
fn a_peer_vanishes_at_a_chosen_request() {
    let mut faulty = Faulty::new();
    let (mut a, mut b) = (faulty.boot("a"), faulty.boot("b"));
    let gid = b.gid();
    let owned = a.alloc_for_peer(gid, 5000).unwrap();
    b.attach(owned.token).unwrap();
    faulty.apply("[[fault]]\nkind = \"vanish\"\nguest = \"b\"\non = \"now\"");
    assert_eq!(a.expect_event(), Event::PeerGone(gid));
    a.detach(owned.token).unwrap();
    assert_eq!(faulty.host.stats().dmbs, 0);
}

#[test]
fn a_guest_vanishes_at_an_event() {
    let mut faulty = Faulty::new();
    let (mut a, mut b) = (faulty.boot("a"), faulty.boot("b"));
    let owned = a.alloc_for_peer(b.gid(), 5000).unwrap();
    b.attach(owned.token).unwrap();
    faulty.apply("[[fault]]\nkind = \"vanish\"\nguest = \"a\"\non = \"event\"");
    assert_eq!(faulty.host.stats().dmbs, 1);
    b.reset();
    eventually("the end of the session of a", || faulty.host.stats().dmbs == 0);
    assert_eq!(faulty.strikes(), [1]);
}
