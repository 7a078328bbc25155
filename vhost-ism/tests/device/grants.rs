//! The draft's ALLOC and GRANT.

use vhost_ism::abi::*;
use vhost_ism::fabric::MAX_GRANTS;

use crate::common::*;

const READ: u64 = PERM_READ as u64;
const WRITE: u64 = PERM_WRITE as u64;
const ATTACH: u64 = PERM_ATTACH as u64;
const MANAGE: u64 = PERM_MANAGE as u64;
const CLEAN: u64 = PERM_CLEAN_DEFAULT as u64;
const ALL: u64 = READ | WRITE | ATTACH;

// Draft: ALLOC; ATTACH; GRANT SET_DEFAULT; ATTACH permission; PERM_EATTACH
#[test]
fn nobody_attaches_without_a_grant() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let dmb = a.alloc(1 << 16).unwrap();
    assert_eq!(b.attach(dmb.token), Err(Status::PermAttach));
    a.grant(dmb.token, None, READ | WRITE).unwrap();
    assert_eq!(b.attach(dmb.token), Err(Status::PermAttach));
    assert!(b.window.maps().is_empty());
    a.grant(dmb.token, None, ALL).unwrap();
    let attached = b.attach(dmb.token).unwrap();
    a.window.write(dmb.offset, b"granted");
    assert_eq!(b.window.read(attached.offset, 7), b"granted");
}

/// Default, grant of B's device if any, requested access, and the answer.
// Draft: READ; WRITE; ATTACH permission; CLEAN_DEFAULT; PERM_EATTACH; PERM_EREAD; PERM_EWRITE
#[test]
fn grants_and_access() {
    let table: &[(u64, Option<u64>, u32, Status)] = &[
        (ALL, None, 3, Status::Ok),
        (ALL, None, PERM_READ, Status::PermWrite),
        (ALL, None, PERM_WRITE, Status::PermRead),
        (ALL, None, 0, Status::PermRead),
        (READ | ATTACH, None, 3, Status::PermWrite),
        (WRITE | ATTACH, None, 3, Status::PermRead),
        (ATTACH, None, 3, Status::PermRead),
        (0, None, 3, Status::PermAttach),
        // One device's grant adds to the default.
        (0, Some(ALL), 3, Status::Ok),
        (READ, Some(WRITE | ATTACH), 3, Status::Ok),
        (ALL, Some(0), 3, Status::Ok),
        (ATTACH, Some(READ), 3, Status::PermWrite),
        // Or replaces it.
        (ALL, Some(CLEAN), 3, Status::PermAttach),
        (ALL, Some(CLEAN | ATTACH), 3, Status::PermRead),
        (ALL, Some(CLEAN | ATTACH | READ), 3, Status::PermWrite),
        (0, Some(CLEAN | ALL), 3, Status::Ok),
        // The default has nothing to replace.
        (CLEAN | ALL, None, 3, Status::Ok),
        // Managing is not attaching.
        (MANAGE | READ | WRITE, None, 3, Status::PermAttach),
    ];
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    for &(default, device, rw_perm, expected) in table {
        let dmb = a.alloc(1 << 16).unwrap();
        a.grant(dmb.token, None, default).unwrap();
        if let Some(permissions) = device {
            a.grant(dmb.token, Some(b.devid()), permissions).unwrap();
        }
        let got = b.attach_as(dmb.token, rw_perm).err().unwrap_or(Status::Ok);
        assert_eq!(
            got, expected,
            "default {default}, device {device:?}, asked for {rw_perm}"
        );
        if got == Status::Ok {
            b.detach(dmb.token).unwrap();
        }
        a.detach(dmb.token).unwrap();
        assert!(a.window.maps().is_empty() && b.window.maps().is_empty());
    }
    assert_eq!(host.stats().slabs, 0);
}

// Draft: GRANT SET_FOR_DEVICE
#[test]
fn a_grant_for_one_device_is_for_that_one() {
    let host = Host::default();
    let (mut a, mut b, mut c) = (host.boot("a"), host.boot("b"), host.boot("c"));
    let dmb = a.alloc(1 << 16).unwrap();
    a.grant(dmb.token, Some(b.devid()), ALL).unwrap();
    assert_eq!(c.attach(dmb.token), Err(Status::PermAttach));
    b.attach(dmb.token).unwrap();
    // Several may attach one DMB.
    a.grant(dmb.token, Some(c.devid()), ALL).unwrap();
    let third = c.attach(dmb.token).unwrap();
    a.window.write(dmb.offset, b"all");
    assert_eq!(c.window.read(third.offset, 3), b"all");
    // A device's next session is another device.
    c.reset();
    assert_eq!(c.attach(dmb.token), Err(Status::PermAttach));
}

#[test]
fn granted_memory_holds_one_dmb_alone() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let (shown, hidden) = (a.alloc(1 << 16).unwrap(), a.alloc(1 << 16).unwrap());
    a.window.write(hidden.offset, &[0x5a; 1 << 16]);
    a.grant(shown.token, None, ALL).unwrap();
    b.attach(shown.token).unwrap();
    for (offset, map) in b.window.maps() {
        let bytes = b.window.read(offset, map.len);
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_revoked_grant_stops_the_next_attach_and_not_the_last() {
    let host = Host::default();
    let (mut a, mut b, mut c) = (host.boot("a"), host.boot("b"), host.boot("c"));
    let dmb = a.alloc(1 << 16).unwrap();
    a.grant(dmb.token, None, ALL).unwrap();
    let attached = b.attach(dmb.token).unwrap();
    a.grant(dmb.token, None, 0).unwrap();
    assert_eq!(c.attach(dmb.token), Err(Status::PermAttach));
    a.window.write(dmb.offset, b"still");
    assert_eq!(b.window.read(attached.offset, 5), b"still");
    b.detach(dmb.token).unwrap();
    assert_eq!(b.attach(dmb.token), Err(Status::PermAttach));
}

// Draft: GRANT SET_DEFAULT; GRANT SET_FOR_DEVICE; MANAGE
#[test]
fn who_may_grant_what() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let dmb = a.alloc(1 << 16).unwrap();
    assert_eq!(b.grant(dmb.token, None, ALL), Err(Status::NoEnt));
    assert_eq!(a.grant(dmb.token, None, 1 << 32), Err(Status::Err));
    let of_pair = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    assert_eq!(a.grant(of_pair.token, None, ALL), Err(Status::Err));
    assert_eq!(a.grant(of_pair.token, Some(b.devid()), ALL), Err(Status::Err));
    let nothing = Token(12345.into());
    assert_eq!(a.grant(nothing, None, ALL), Err(Status::NoEnt));
    a.grant(dmb.token, None, ALL).unwrap();
    assert_eq!(a.attach(dmb.token), Err(Status::PermAttach), "the owner has it already");
    a.detach(dmb.token).unwrap();
    assert_eq!(a.grant(dmb.token, None, ALL), Err(Status::NoEnt));
}

// Draft: MANAGE; CLEAN_DEFAULT
#[test]
fn a_device_with_manage_grants_in_place_of_the_owner() {
    let host = Host::default();
    let (mut a, mut b, mut c) = (host.boot("a"), host.boot("b"), host.boot("c"));
    let dmb = a.alloc(1 << 16).unwrap();
    a.grant(dmb.token, Some(b.devid()), READ | WRITE | ATTACH).unwrap();
    assert_eq!(b.grant(dmb.token, None, ALL), Err(Status::NoEnt), "without MANAGE");
    a.grant(dmb.token, Some(b.devid()), MANAGE).unwrap();
    assert_eq!(
        b.attach(dmb.token),
        Err(Status::PermAttach),
        "managing is not attaching"
    );
    assert_eq!(c.grant(dmb.token, None, ALL), Err(Status::NoEnt), "it is b's");

    // To all, to one, and to itself.
    b.grant(dmb.token, None, ALL).unwrap();
    let attached = c.attach(dmb.token).unwrap();
    a.window.write(dmb.offset, b"by b");
    assert_eq!(c.window.read(attached.offset, 4), b"by b");
    c.detach(dmb.token).unwrap();
    b.grant(dmb.token, Some(c.devid()), CLEAN).unwrap();
    assert_eq!(c.attach(dmb.token), Err(Status::PermAttach));
    b.grant(dmb.token, Some(b.devid()), ALL | MANAGE).unwrap();
    b.attach(dmb.token).unwrap();
    // On, by the default.
    b.grant(dmb.token, None, MANAGE).unwrap();
    assert_eq!(
        c.grant(dmb.token, None, 0),
        Err(Status::NoEnt),
        "its own grant replaces the default"
    );
    b.grant(dmb.token, Some(c.devid()), 0).unwrap();
    c.grant(dmb.token, None, 0).unwrap();
    assert_eq!(
        c.grant(dmb.token, None, ALL),
        Err(Status::NoEnt),
        "it has taken MANAGE from itself"
    );

    // The owner cannot be shut out, and takes it back.
    b.grant(dmb.token, Some(a.devid()), CLEAN).unwrap();
    a.grant(dmb.token, Some(b.devid()), 0).unwrap();
    assert_eq!(b.grant(dmb.token, None, ALL), Err(Status::NoEnt));
    // The token dies with the owner's detach, for managers as well.
    a.grant(dmb.token, Some(c.devid()), MANAGE).unwrap();
    a.detach(dmb.token).unwrap();
    assert_eq!(c.grant(dmb.token, None, ALL), Err(Status::NoEnt));
}

#[test]
fn a_managers_grants_are_charged_to_the_owner() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let [managed, of_b] = [a.alloc(1 << 14).unwrap(), b.alloc(1 << 14).unwrap()];
    a.grant(managed.token, Some(b.devid()), MANAGE).unwrap();
    let devid = b.devid();
    let mut others = (1..).filter(|other| *other != devid);
    for devid in others.by_ref().take(MAX_GRANTS as usize - 1) {
        b.grant(managed.token, Some(devid), ALL).unwrap();
    }
    let next = others.next().unwrap();
    assert_eq!(b.grant(managed.token, Some(next), ALL), Err(Status::NoSpc));
    assert_eq!(a.grant(managed.token, Some(next), ALL), Err(Status::NoSpc));
    b.grant(of_b.token, Some(next), ALL).unwrap();
    a.detach(managed.token).unwrap();
    let again = a.alloc(1 << 14).unwrap();
    a.grant(again.token, Some(next), ALL).unwrap();
}

// Draft: ENOSPC
#[test]
fn grants_for_single_devices_have_a_budget() {
    let host = Host::default();
    let mut a = host.boot("a");
    let [first, second] = [(); 2].map(|()| a.alloc(1 << 14).unwrap());
    for devid in 0..u64::from(MAX_GRANTS) - 1 {
        a.grant(first.token, Some(devid), ALL).unwrap();
    }
    a.grant(second.token, Some(0), ALL).unwrap();
    assert_eq!(a.grant(second.token, Some(1), ALL), Err(Status::NoSpc));
    assert_eq!(a.grant(first.token, Some(u64::MAX), ALL), Err(Status::NoSpc));
    // What is there can be changed, and the default costs nothing.
    a.grant(second.token, Some(0), READ).unwrap();
    a.grant(first.token, None, READ).unwrap();
    // They are given back with the DMB.
    a.detach(first.token).unwrap();
    a.grant(second.token, Some(1), ALL).unwrap();
}

// Draft: DETACH; DETACH: last reference
#[test]
fn the_owner_goes_first() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let dmb = a.alloc(1 << 16).unwrap();
    a.grant(dmb.token, None, ALL).unwrap();
    let attached = b.attach(dmb.token).unwrap();
    a.window.write(dmb.offset, b"kept");
    a.detach(dmb.token).unwrap();
    assert!(a.window.maps().is_empty(), "the owner's window is rid of it at once");
    assert_eq!(b.window.read(attached.offset, 4), b"kept");
    b.detach(dmb.token).unwrap();
    assert!(b.window.maps().is_empty());
    assert_eq!(host.stats().slabs, 0);
}

#[test]
fn doorbells_of_granted_memory() {
    let host = Host::default();
    let (mut a, mut b, mut c) = (host.boot("a"), host.boot("b"), host.boot("c"));
    let dmb = a.alloc(1 << 16).unwrap();
    a.grant(dmb.token, None, ALL).unwrap();
    let chunk = (dmb.offset / CHUNK_SIZE) as u32;
    for guest in [&mut b, &mut c] {
        let attached = guest.attach(dmb.token).unwrap();
        guest.ring(attached.offset);
        assert_eq!(a.expect_event(), Event::Doorbells(vec![chunk]));
    }
}
