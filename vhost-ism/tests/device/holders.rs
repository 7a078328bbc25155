//! DMBs of one owner and several attachers: rings for all of them, and the draft's events.

use vhost_ism::abi::*;
use vhost_ism::ism_finding::Finding;

use crate::common::*;

const ALL: u64 = (PERM_READ | PERM_WRITE | PERM_ATTACH) as u64;
const ATTACHMENTS: u64 = EV_ATTACH | EV_DETACH;

/// Returns an owner with a DMB for all, and three more guests.
fn scene(host: &Host, size: u64) -> (TestGuest, Dmb, [TestGuest; 3]) {
    let mut owner = host.boot("owner");
    let dmb = owner.alloc(size).unwrap();
    owner.grant(dmb.token, None, ALL).unwrap();
    let others = ["b", "c", "d"].map(|name| host.boot(name));
    (owner, dmb, others)
}

fn chunk(dmb: &Dmb) -> u32 {
    (dmb.offset / CHUNK_SIZE) as u32
}

// Draft: ATTACH: several devices; Notification
#[test]
fn what_the_owner_writes_and_rings_reaches_every_attacher() {
    let host = Host::default();
    let (mut owner, dmb, mut others) = scene(&host, 1 << 20);
    let bytes: Vec<u8> = (0..1 << 20)
        .map(|at: u32| (at ^ at >> 8).wrapping_mul(167) as u8)
        .collect();
    let attached: Vec<Dmb> = others
        .iter_mut()
        .map(|guest| guest.attach(dmb.token).unwrap())
        .collect();
    for round in 0..3 {
        let bytes: Vec<u8> = bytes.iter().map(|byte| byte.wrapping_add(round)).collect();
        owner.window.write(dmb.offset, &bytes);
        owner.ring(dmb.offset);
        for (guest, attached) in others.iter_mut().zip(&attached) {
            assert_eq!(guest.expect_event(), Event::Doorbells(vec![chunk(attached)]));
            assert!(guest.window.read(attached.offset, 1 << 20) == bytes, "round {round}");
        }
    }
    owner.expect_silence();
    assert_eq!(owner.seat.as_ref().unwrap().found(Finding::StrayDoorbell), 0);
}

// Draft: ATTACH: several devices; Notification
#[test]
fn an_attachers_ring_reaches_the_owner_and_the_other_attachers() {
    let host = Host::default();
    let (mut owner, dmb, mut others) = scene(&host, 1 << 16);
    let attached: Vec<Dmb> = others
        .iter_mut()
        .map(|guest| guest.attach(dmb.token).unwrap())
        .collect();
    for ringer in 0..3 {
        others[ringer]
            .window
            .write(attached[ringer].offset, &[ringer as u8 + 1; 16]);
        others[ringer].ring(attached[ringer].offset);
        assert_eq!(owner.expect_event(), Event::Doorbells(vec![chunk(&dmb)]));
        assert_eq!(owner.window.read(dmb.offset, 16), [ringer as u8 + 1; 16]);
        for (index, guest) in others.iter_mut().enumerate().filter(|(index, _)| *index != ringer) {
            assert_eq!(guest.expect_event(), Event::Doorbells(vec![chunk(&attached[index])]));
        }
    }
    others.iter_mut().for_each(TestGuest::expect_silence);
    // One that has detached hears and rings no longer.
    let [b, c, d] = &mut others;
    b.detach(dmb.token).unwrap();
    owner.ring(dmb.offset);
    for (guest, attached) in [c, d].into_iter().zip(&attached[1..]) {
        assert_eq!(guest.expect_event(), Event::Doorbells(vec![chunk(attached)]));
    }
    b.expect_silence();
    b.ring(attached[0].offset);
    owner.expect_silence();
    let seat = b.seat.clone().unwrap();
    eventually("the stray is found", || seat.found(Finding::StrayDoorbell) == 1);
}

#[test]
fn the_owners_ring_of_a_dmb_for_one_peer_is_a_stray() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let dmb = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    b.attach(dmb.token).unwrap();
    a.ring(dmb.offset);
    b.expect_silence();
    let seat = a.seat.clone().unwrap();
    eventually("the stray is found", || seat.found(Finding::StrayDoorbell) == 1);
}

#[test]
fn the_owners_last_ring_is_delivered_with_its_detach() {
    let host = Host::default();
    let (mut owner, dmb, [mut b, ..]) = scene(&host, 1 << 16);
    let attached = b.attach(dmb.token).unwrap();
    // Without a kick.
    owner.window.bell(dmb.offset).ring();
    owner.detach(dmb.token).unwrap();
    assert_eq!(b.expect_event(), Event::Doorbells(vec![chunk(&attached)]));
}

// Draft: ATTACH event; DETACH event
#[test]
fn attachments_are_told_to_all_holders_with_the_number_of_attachers() {
    let host = Host::default();
    let (mut owner, dmb, [mut b, mut c, mut d]) = scene(&host, 1 << 16);
    let other = owner.alloc_for_peer(d.gid(), 1 << 16).unwrap();
    for guest in [&mut owner, &mut b, &mut c] {
        guest.subscribe(ATTACHMENTS).unwrap();
    }
    let event = |attached: &Dmb, guest: &TestGuest, peers, attaches| match attaches {
        true => Event::Attach(attached.offset, guest.devid(), peers),
        false => Event::Detach(attached.offset, guest.devid(), peers),
    };
    let in_b = b.attach(dmb.token).unwrap();
    assert_eq!(owner.expect_event(), event(&dmb, &b, 1, true));
    b.expect_silence();
    let in_c = c.attach(dmb.token).unwrap();
    assert_eq!(owner.expect_event(), event(&dmb, &c, 2, true));
    assert_eq!(b.expect_event(), event(&in_b, &c, 2, true));
    d.attach(dmb.token).unwrap();
    assert_eq!(owner.expect_event(), event(&dmb, &d, 3, true));
    assert_eq!(b.expect_event(), event(&in_b, &d, 3, true));
    assert_eq!(c.expect_event(), event(&in_c, &d, 3, true));
    // A refused one is none.
    assert_eq!(d.attach(dmb.token), Err(Status::PermAttach));
    // Of the pair's DMB the owner alone hears.
    d.attach(other.token).unwrap();
    assert_eq!(owner.expect_event(), event(&other, &d, 1, true));
    d.detach(other.token).unwrap();
    assert_eq!(owner.expect_event(), event(&other, &d, 0, false));
    b.detach(dmb.token).unwrap();
    assert_eq!(owner.expect_event(), event(&dmb, &b, 2, false));
    assert_eq!(c.expect_event(), event(&in_c, &b, 2, false));
    // The owner's detach is one as well.
    owner.detach(dmb.token).unwrap();
    assert_eq!(c.expect_event(), event(&in_c, &owner, 2, false));
    d.detach(dmb.token).unwrap();
    assert_eq!(c.expect_event(), event(&in_c, &d, 1, false));
    for guest in [&mut owner, &mut b, &mut c, &mut d] {
        guest.expect_silence();
    }
}

// Draft: DETACH event
#[test]
fn the_end_of_a_session_detaches() {
    let host = Host::default();
    let (mut owner, dmb, [mut b, mut c, _]) = scene(&host, 1 << 16);
    owner.subscribe(ATTACHMENTS).unwrap();
    b.attach(dmb.token).unwrap();
    let in_c = c.attach(dmb.token).unwrap();
    c.subscribe(ATTACHMENTS).unwrap();
    for _ in 0..2 {
        owner.expect_event();
    }
    let (gid, devid) = (b.gid(), b.devid());
    b.reset();
    assert_eq!(owner.expect_event(), Event::PeerGone(gid));
    assert_eq!(owner.expect_event(), Event::Detach(dmb.offset, devid, 1));
    assert_eq!(c.expect_event(), Event::PeerGone(gid));
    assert_eq!(c.expect_event(), Event::Detach(in_c.offset, devid, 1));
    let (gid, devid) = (owner.gid(), owner.devid());
    owner.kill();
    assert_eq!(c.expect_event(), Event::PeerGone(gid));
    assert_eq!(c.expect_event(), Event::Detach(in_c.offset, devid, 1));
    c.expect_silence();
}

/// An attachment that the VMM refuses is followed by its end, or by nothing.
#[test]
fn an_attachment_that_fails_leaves_none() {
    let host = Host::default();
    let (mut owner, dmb, [mut b, ..]) = scene(&host, 1 << 16);
    owner.subscribe(ATTACHMENTS).unwrap();
    b.window.set_policy(window::Policy::RefuseMap);
    assert_eq!(b.attach(dmb.token), Err(Status::Err));
    if let Some(told) = owner.next_event(BRIEF) {
        // It was told before the refusal was known.
        assert_eq!(told, Event::Attach(dmb.offset, b.devid(), 1));
        assert_eq!(owner.expect_event(), Event::Detach(dmb.offset, b.devid(), 0));
    }
    b.window.set_policy(window::Policy::Comply);
    b.attach(dmb.token).unwrap();
    assert_eq!(owner.expect_event(), Event::Attach(dmb.offset, b.devid(), 1));
}

#[test]
fn what_cancels_out_while_no_buffer_is_posted_is_not_told() {
    let host = Host::default();
    let mut owner = host.boot_with(
        "owner",
        Options {
            event_buffers: 0,
            ..Options::default()
        },
    );
    let (mut b, mut c) = (host.boot("b"), host.boot("c"));
    let dmb = owner.alloc(1 << 16).unwrap();
    owner.grant(dmb.token, None, ALL).unwrap();
    owner.subscribe(ATTACHMENTS).unwrap();
    for _ in 0..50 {
        b.attach(dmb.token).unwrap();
        c.attach(dmb.token).unwrap();
        b.detach(dmb.token).unwrap();
        c.detach(dmb.token).unwrap();
    }
    c.attach(dmb.token).unwrap();
    owner.post_event(256);
    assert_eq!(
        owner.last_event(PATIENCE),
        Some(Event::Attach(dmb.offset, c.devid(), 1))
    );
    // What has been told once is told to end, unless it is back by then.
    c.detach(dmb.token).unwrap();
    c.attach(dmb.token).unwrap();
    b.attach(dmb.token).unwrap();
    c.detach(dmb.token).unwrap();
    for expected in [
        Event::Attach(dmb.offset, b.devid(), 2),
        Event::Detach(dmb.offset, c.devid(), 1),
    ] {
        owner.post_event(256);
        assert_eq!(owner.last_event(PATIENCE), Some(expected));
    }
    // The owner's own detach leaves nothing to tell.
    b.detach(dmb.token).unwrap();
    owner.detach(dmb.token).unwrap();
    owner.post_event(256);
    assert_eq!(owner.last_event(BRIEF), None);
}

// Draft: UPDATE
#[test]
fn an_update_names_place_and_ringer() {
    let host = Host::default();
    let (mut owner, dmb, [mut b, mut c, mut d]) = scene(&host, 1 << 16);
    owner.subscribe(EV_UPDATE).unwrap();
    c.subscribe(EV_UPDATE).unwrap();
    let in_b = b.attach(dmb.token).unwrap();
    let in_c = c.attach(dmb.token).unwrap();
    b.ring(in_b.offset);
    assert_eq!(owner.expect_event(), Event::Update(dmb.offset, b.devid()));
    assert_eq!(c.expect_event(), Event::Update(in_c.offset, b.devid()));
    owner.ring(dmb.offset);
    assert_eq!(c.expect_event(), Event::Update(in_c.offset, owner.devid()));
    for _ in 0..2 {
        assert_eq!(b.expect_event_of_doorbells(), [chunk(&in_b)]);
        c.ring(in_c.offset);
        assert_eq!(owner.expect_event(), Event::Update(dmb.offset, c.devid()));
    }
    assert_eq!(b.expect_event_of_doorbells(), [chunk(&in_b)]);
    // Of a DMB for one peer as well.
    let own = owner.alloc_for_peer(d.gid(), 1 << 14).unwrap();
    let attached = d.attach(own.token).unwrap();
    d.ring(attached.offset);
    assert_eq!(owner.expect_event(), Event::Update(own.offset, d.devid()));
    // Nobody asked for attachments.
    for guest in [&mut owner, &mut b, &mut c, &mut d] {
        guest.expect_silence();
    }
}

// Draft: UPDATE
#[test]
fn updates_of_one_dmb_coalesce_and_name_the_last_ringer() {
    let host = Host::default();
    let mut owner = host.boot_with(
        "owner",
        Options {
            event_buffers: 0,
            ..Options::default()
        },
    );
    let mut peers = [host.boot("b"), host.boot("c")];
    owner.subscribe(EV_UPDATE).unwrap();
    let mut dmbs = [(); 2].map(|()| owner.alloc(1 << 14).unwrap());
    // The device lists them in the order of the window.
    dmbs.sort_by_key(|dmb| dmb.offset);
    for dmb in &dmbs {
        owner.grant(dmb.token, None, ALL).unwrap();
    }
    for guest in &mut peers {
        for dmb in &dmbs {
            let attached = guest.attach(dmb.token).unwrap();
            guest.ring(attached.offset);
            eventually("the ring is taken", || guest.window.bell(attached.offset).is_silent());
        }
        eventually("both are delivered", || guest.window.awake() == 0);
    }
    for dmb in &dmbs {
        owner.post_event(24);
        assert_eq!(
            owner.last_event(PATIENCE),
            Some(Event::Update(dmb.offset, peers[1].devid()))
        );
    }
    owner.post_event(24);
    assert_eq!(owner.last_event(BRIEF), None);
}

#[test]
fn a_buffer_too_small_for_an_attachment_loses_nothing() {
    let host = Host::default();
    let mut owner = host.boot_with(
        "owner",
        Options {
            event_buffers: 0,
            ..Options::default()
        },
    );
    let mut b = host.boot("b");
    let dmb = owner.alloc(1 << 14).unwrap();
    owner.grant(dmb.token, None, ALL).unwrap();
    owner.subscribe(ATTACHMENTS | EV_UPDATE).unwrap();
    let attached = b.attach(dmb.token).unwrap();
    b.ring(attached.offset);
    owner.post_event(31);
    assert_eq!(owner.last_event(PATIENCE), Some(Event::Nothing));
    assert_eq!(owner.seat.as_ref().unwrap().found(Finding::ShortEventBuffer), 1);
    owner.post_event(32);
    assert_eq!(
        owner.last_event(PATIENCE),
        Some(Event::Attach(dmb.offset, b.devid(), 1))
    );
    owner.post_event(23);
    assert_eq!(owner.last_event(PATIENCE), Some(Event::Nothing));
    owner.post_event(24);
    assert_eq!(owner.last_event(PATIENCE), Some(Event::Update(dmb.offset, b.devid())));
}

// Draft: Feature bits; Virtqueues
#[test]
fn subscriptions() {
    let host = Host::default();
    let (mut owner, dmb, [mut b, ..]) = scene(&host, 1 << 16);
    // Attachments without detachments would wait without end.
    for events in [
        EV_ATTACH,
        EV_DETACH,
        EV_UPDATE | EV_ATTACH,
        8,
        EV_DOORBELLS,
        EV_PEER_GONE,
        EV_MESSAGE,
        1 << 63,
    ] {
        assert_eq!(owner.subscribe(events), Err(Status::Err), "{events:#x}");
    }
    let attached = b.attach(dmb.token).unwrap();
    owner.expect_silence();
    for (events, expected) in [
        (EV_UPDATE, Event::Update(dmb.offset, b.devid())),
        (ATTACHMENTS, Event::Doorbells(vec![chunk(&dmb)])),
        (0, Event::Doorbells(vec![chunk(&dmb)])),
        (EV_UPDATE | ATTACHMENTS, Event::Update(dmb.offset, b.devid())),
    ] {
        owner.subscribe(events).unwrap();
        b.ring(attached.offset);
        assert_eq!(owner.expect_event(), expected, "{events:#x}");
    }
    // A session begins without.
    owner.reset();
    let dmb = owner.alloc(1 << 16).unwrap();
    owner.grant(dmb.token, None, ALL).unwrap();
    let attached = b.attach(dmb.token).unwrap();
    b.ring(attached.offset);
    assert_eq!(owner.expect_event(), Event::Doorbells(vec![chunk(&dmb)]));
    owner.expect_silence();
}

#[test]
fn a_ring_of_a_dmb_that_is_detached_is_not_told_of_the_next_at_its_place() {
    let host = Host::default();
    let mut owner = host.boot_with(
        "owner",
        Options {
            event_buffers: 0,
            ..Options::default()
        },
    );
    let mut peer = host.boot("b");
    let dmb = owner.alloc(1 << 14).unwrap();
    owner.grant(dmb.token, None, ALL).unwrap();
    let attached = peer.attach(dmb.token).unwrap();
    peer.ring(attached.offset);
    eventually("the ring is taken", || peer.window.bell(attached.offset).is_silent());
    eventually("it is delivered", || peer.window.awake() == 0);
    peer.detach(dmb.token).unwrap();
    owner.detach(dmb.token).unwrap();
    let next = owner.alloc(1 << 14).unwrap();
    assert_eq!(next.offset, dmb.offset);
    owner.post_event(24);
    assert_eq!(owner.last_event(BRIEF), None);
}
