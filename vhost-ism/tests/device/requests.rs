//! Bad control requests: each gets its answer, changes nothing, and is counted.

use vhost_ism::abi::*;
use vhost_ism::ism_finding::Finding;

use crate::common::guest::encode;
use crate::common::*;

/// Every command with a body of the right length.
const COMMANDS: [((u8, u8), usize); 11] = [
    (CMD_ALLOC, size_of::<Alloc>()),
    (CMD_ATTACH, size_of::<Attach>()),
    (CMD_DETACH, size_of::<Detach>()),
    (CMD_GRANT_DEFAULT, size_of::<GrantDefault>()),
    (CMD_GRANT_DEVICE, size_of::<GrantDevice>()),
    (CMD_EVENT_VECTOR, 16),
    (CMD_ALLOC_FOR_PEER, size_of::<AllocForPeer>()),
    (CMD_QUERY_GID, size_of::<QueryGid>()),
    (CMD_SEND_MESSAGE, size_of::<SendMessage>()),
    (CMD_QUERY_SLAB, size_of::<QuerySlab>()),
    (CMD_SUBSCRIBE, size_of::<Subscribe>()),
];

/// Three guests; A has a DMB of its own, one for B, and one of B's attached.
struct Scene {
    host: Host,
    a: TestGuest,
    b: TestGuest,
    c: TestGuest,
    own: Dmb,
    for_b: Dmb,
    of_b: Dmb,
    of_b_attached: Dmb,
    between_b_and_c: Dmb,
}

impl Scene {
    fn new() -> Self {
        let host = Host::default();
        let (mut a, mut b, c) = (host.boot("a"), host.boot("b"), host.boot("c"));
        let own = a.alloc(1 << 16).unwrap();
        let for_b = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
        let of_b = b.alloc_for_peer(a.gid(), 1 << 16).unwrap();
        let of_b_attached = a.attach(of_b.token).unwrap();
        let between_b_and_c = b.alloc_for_peer(c.gid(), 1 << 16).unwrap();
        b.window.write(of_b.offset, b"mark");
        Self {
            host,
            a,
            b,
            c,
            own,
            for_b,
            of_b,
            of_b_attached,
            between_b_and_c,
        }
    }

    /// Submits a request of A: the answer is this status alone, nothing changes, and a valid request is still answered.
    #[track_caller]
    fn refused(&mut self, what: &str, request: &[u8], expected: Status) {
        let seat = self.a.seat.clone().unwrap();
        let (before, counted) = (self.host.stats(), seat.counters());
        let errors = seat.found(Finding::BadRequest);
        let answer = self.a.request(request, 64);
        assert_eq!(answer.status(), Some(expected), "{what}");
        assert_eq!(answer.used, 1, "{what}");
        let (after, counts) = (self.host.stats(), seat.counters());
        assert_eq!(
            (after.dmbs, after.slabs, after.used_bytes),
            (before.dmbs, before.slabs, before.used_bytes),
            "{what}"
        );
        assert_eq!(counts.refusals, counted.refusals + 1, "{what}");
        let errors = seat.found(Finding::BadRequest) - errors;
        assert_eq!(errors, u64::from(expected == Status::Err), "{what}");
        self.a.ping();
    }

    /// Checks that A's requests harmed no guest.
    #[track_caller]
    fn all_well(&mut self) {
        assert_eq!(self.a.window.read(self.of_b_attached.offset, 4), b"mark");
        let chunk = |dmb: &Dmb| (dmb.offset / CHUNK_SIZE) as u32;
        self.a.ring(self.of_b_attached.offset);
        assert_eq!(self.b.expect_event(), Event::Doorbells(vec![chunk(&self.of_b)]));
        let attached = self.c.attach(self.between_b_and_c.token).unwrap();
        self.c.ring(attached.offset);
        assert_eq!(
            self.b.expect_event(),
            Event::Doorbells(vec![chunk(&self.between_b_and_c)])
        );
        self.c.detach(self.between_b_and_c.token).unwrap();
        let attached = self.b.attach(self.for_b.token).unwrap();
        self.b.ring(attached.offset);
        assert_eq!(self.a.expect_event(), Event::Doorbells(vec![chunk(&self.for_b)]));
        self.b.detach(self.for_b.token).unwrap();
        self.a.ping();
    }
}

// Draft: Request; ERR
#[test]
fn requests_of_the_wrong_length() {
    let mut scene = Scene::new();
    scene.refused("an empty request", &[], Status::Err);
    for class in [0, 1, 2, 3, 4, 0x80] {
        scene.refused("one byte", &[class], Status::Err);
    }
    for (command, right) in COMMANDS {
        for length in (0..=64).chain([65, 200, 4096, 5000]) {
            let padded = command == CMD_ATTACH && length == right + ATTACH_PADDING;
            if length == right || padded {
                continue;
            }
            let request = encode(command, &vec![0xff_u8; length][..]);
            scene.refused(&format!("{command:?} with {length} bytes"), &request, Status::Err);
        }
    }
    scene.all_well();
}

#[test]
fn requests_that_end_where_the_longest_ends() {
    let mut scene = Scene::new();
    for length in 60..70 {
        scene.refused(&format!("{length} bytes"), &vec![0x80; length], Status::Err);
    }
    scene.all_well();
}

// Draft: Request; ERR; ENOENT
#[test]
fn unknown_commands() {
    let mut scene = Scene::new();
    for class in 0..=255u8 {
        for cmd in [0, 1, 2, 3, 0x7f, 0x80, 0xff] {
            let known = COMMANDS.iter().find(|((c, d), _)| (*c, *d) == (class, cmd));
            let length = known.map_or(16, |(_, length)| *length);
            let body = vec![0_u8; length];
            let request = encode((class, cmd), &body[..]);
            // Known commands get token, GID and size zero.
            let expected = match (known, (class, cmd)) {
                (None, _) | (_, CMD_ALLOC | CMD_ALLOC_FOR_PEER) => Status::Err,
                _ => Status::NoEnt,
            };
            scene.refused(&format!("{class:#x} {cmd:#x}"), &request, expected);
        }
    }
    scene.all_well();
}

// Draft: ERR; ENOENT; PERM_EATTACH
#[test]
fn requests_that_make_no_sense() {
    let mut scene = Scene::new();
    let max = scene.host.fabric.limits().max_dmb_size;
    let (a, b) = (scene.a.gid(), scene.b.gid());
    for size in [0, max + 1, max * 2, 1 << 40, 1 << 63, u64::MAX] {
        let alloc = encode(CMD_ALLOC, &Alloc { size: size.into() });
        scene.refused(&format!("ALLOC of {size:#x}"), &alloc, Status::Err);
        let for_peer = AllocForPeer {
            size: size.into(),
            peer_gid: b,
        };
        let request = encode(CMD_ALLOC_FOR_PEER, &for_peer);
        scene.refused(&format!("ALLOC_FOR_PEER of {size:#x}"), &request, Status::Err);
    }
    let mut almost = b;
    almost.0[15] ^= 1;
    let peers = [
        ("its own", a, Status::Err),
        ("zero", Gid([0; 16]), Status::NoEnt),
        ("unknown", Gid([0xff; 16]), Status::NoEnt),
        ("almost", almost, Status::NoEnt),
    ];
    for (what, peer_gid, expected) in peers {
        let size = 4096.into();
        let request = encode(CMD_ALLOC_FOR_PEER, &AllocForPeer { size, peer_gid });
        scene.refused(&format!("a DMB for {what} GID"), &request, expected);
        if what != "its own" {
            let query = encode(CMD_QUERY_GID, &QueryGid { gid: peer_gid });
            scene.refused(&format!("a query for {what} GID"), &query, expected);
        }
        let message = SendMessage {
            peer_gid,
            code: 0.into(),
            reserved: 0.into(),
            info: 0.into(),
        };
        let request = encode(CMD_SEND_MESSAGE, &message);
        scene.refused(&format!("a message to {what} GID"), &request, expected);
    }

    let wrong = |token: Token| Token((token.0.get() ^ 1).into());
    let attaches = [
        ("no token", Token(0.into()), Status::NoEnt),
        ("all bits", Token(u64::MAX.into()), Status::NoEnt),
        ("almost a token", wrong(scene.of_b.token), Status::NoEnt),
        ("an own DMB", scene.own.token, Status::PermAttach),
        ("an own DMB for B", scene.for_b.token, Status::PermAttach),
        ("what is attached", scene.of_b.token, Status::PermAttach),
        ("what others share", scene.between_b_and_c.token, Status::PermAttach),
    ];
    for (what, token, expected) in attaches {
        for rw_perm in [0u32, 1, 2, 3, 4, 7, 255, u32::MAX] {
            let body = Attach {
                token,
                rw_perm: rw_perm.into(),
            };
            let request = encode(CMD_ATTACH, &body);
            scene.refused(&format!("ATTACH of {what} for {rw_perm:#x}"), &request, expected);
        }
    }
    for (what, token) in [
        ("no token", Token(0.into())),
        ("what others share", scene.between_b_and_c.token),
        ("almost a token", wrong(scene.own.token)),
    ] {
        scene.refused(
            &format!("DETACH of {what}"),
            &encode(CMD_DETACH, &Detach { token }),
            Status::NoEnt,
        );
    }
    let slabs = [
        ("no token", Token(0.into()), Status::NoEnt),
        ("what others share", scene.between_b_and_c.token, Status::NoEnt),
        ("a DMB from ALLOC", scene.own.token, Status::Err),
    ];
    for (what, token, expected) in slabs {
        scene.refused(
            &format!("QUERY_SLAB of {what}"),
            &encode(CMD_QUERY_SLAB, &QuerySlab { token }),
            expected,
        );
    }
    let grants = [
        ("no token", Token(0.into()), 7u64, Status::NoEnt),
        ("another's DMB", scene.of_b.token, 7, Status::NoEnt),
        ("a DMB for B", scene.for_b.token, 7, Status::Err),
        ("too many bits", scene.own.token, 1 << 32, Status::Err),
        ("a permission that there is not", scene.own.token, 32, Status::Err),
    ];
    for (what, token, permissions, expected) in grants {
        let permissions = permissions.into();
        let request = encode(CMD_GRANT_DEFAULT, &GrantDefault { token, permissions });
        scene.refused(&format!("GRANT, {what}"), &request, expected);
        let body = GrantDevice {
            token,
            permissions,
            peer_devid: 1.into(),
        };
        scene.refused(
            &format!("GRANT to one, {what}"),
            &encode(CMD_GRANT_DEVICE, &body),
            expected,
        );
    }
    scene.all_well();
}

/// The transport has one vector: no DMB gets one of its own, and the device does not pretend otherwise.
// Draft: EVENT_VECTOR SET
#[test]
fn no_dmb_has_a_vector_of_its_own() {
    let mut scene = Scene::new();
    let vector = |token: Token, vector: u64| {
        let vector = vector.into();
        encode(CMD_EVENT_VECTOR, &EventVector { token, vector })
    };
    for token in [scene.own.token, scene.for_b.token, scene.of_b.token] {
        for number in [0, 1, 3, NO_VECTOR - 1, NO_VECTOR + 1, u64::MAX] {
            scene.refused(&format!("vector {number:#x}"), &vector(token, number), Status::Err);
        }
        let answer = scene.a.request(&vector(token, NO_VECTOR), 64);
        assert_eq!(answer.written(), [Status::Ok as u8], "it is so");
    }
    for token in [Token(0.into()), scene.between_b_and_c.token] {
        for number in [0, NO_VECTOR] {
            scene.refused("the vector of another's DMB", &vector(token, number), Status::NoEnt);
        }
    }
    let own = scene.own.token;
    scene.a.detach(own).unwrap();
    scene.refused("the vector of a dead DMB", &vector(own, NO_VECTOR), Status::NoEnt);
    scene.all_well();
}

// Draft: DETACH; ENOENT
#[test]
fn what_is_done_cannot_be_done_twice() {
    let mut scene = Scene::new();
    let token = scene.of_b.token;
    let detach = encode(CMD_DETACH, &Detach { token });
    scene.a.detach(token).unwrap();
    scene.refused("DETACH twice", &detach, Status::NoEnt);
    let own = scene.own.token;
    scene.a.detach(own).unwrap();
    scene.refused(
        "DETACH of what is free",
        &encode(CMD_DETACH, &Detach { token: own }),
        Status::NoEnt,
    );
    scene.of_b_attached = scene.a.attach(token).unwrap();
    scene.all_well();
}

// Draft: Request: ATTACH padded
#[test]
fn padding_of_attach() {
    let mut scene = Scene::new();
    let mut request = encode(
        CMD_ATTACH,
        &Attach {
            token: scene.for_b.token,
            rw_perm: 3.into(),
        },
    );
    request.extend([0xff; ATTACH_PADDING]);
    let answer = scene.b.request(&request, 64);
    assert_eq!(answer.status(), Some(Status::Ok), "padding has no meaning");
    assert_eq!(answer.used, 1 + size_of::<AttachReply>());
    scene.b.detach(scene.for_b.token).unwrap();
    scene.all_well();
}

// Draft: E2BIG
#[test]
fn too_little_room_for_the_reply() {
    let mut scene = Scene::new();
    let b = scene.b.gid();
    let asks = [
        (encode(CMD_ALLOC, &Alloc { size: 4096.into() }), size_of::<AllocReply>()),
        (
            encode(
                CMD_ALLOC_FOR_PEER,
                &AllocForPeer {
                    size: 4096.into(),
                    peer_gid: b,
                },
            ),
            size_of::<AllocReply>(),
        ),
    ];
    for (request, reply) in &asks {
        let before = scene.host.stats();
        for room in 1..=*reply {
            let answer = scene.a.request(request, room);
            assert_eq!(answer.status(), Some(Status::TooBig), "{room} bytes");
            // Token 0, and the number of areas, where they fit.
            let number = [&[0; 8][..], &1u64.to_le_bytes()].concat();
            let expected = if room > number.len() { &number[..] } else { &[] };
            assert_eq!(answer.written()[1..], *expected, "{room} bytes");
        }
        let after = scene.host.stats();
        assert_eq!(
            (after.dmbs, after.slabs),
            (before.dmbs, before.slabs),
            "nothing was done"
        );
        for room in [reply + 1, reply + 2, 4096] {
            let answer = scene.a.request(request, room);
            assert_eq!(
                (answer.status(), answer.used),
                (Some(Status::Ok), reply + 1),
                "{room} bytes"
            );
        }
    }
    let body = Attach {
        token: scene.for_b.token,
        rw_perm: 3.into(),
    };
    let request = encode(CMD_ATTACH, &body);
    for room in 1..=size_of::<AttachReply>() {
        let answer = scene.b.request(&request, room);
        assert_eq!(answer.status(), Some(Status::TooBig), "{room} bytes");
        let number = 1u64.to_le_bytes();
        let expected = if room > number.len() { &number[..] } else { &[] };
        assert_eq!(answer.written()[1..], *expected, "{room} bytes");
    }
    let answer = scene.b.request(&request, size_of::<AttachReply>() + 1);
    assert_eq!(answer.status(), Some(Status::Ok), "it was not attached before");
    scene.b.detach(scene.for_b.token).unwrap();
    let request = encode(
        CMD_QUERY_SLAB,
        &QuerySlab {
            token: scene.for_b.token,
        },
    );
    for room in 1..=size_of::<SlabReply>() {
        let answer = scene.a.request(&request, room);
        assert_eq!(
            (answer.status(), answer.used),
            (Some(Status::TooBig), 1),
            "{room} bytes"
        );
    }
    // An invalid request is not answered with E2BIG.
    let answer = scene.a.request(&encode(CMD_ALLOC, &[0u8; 3]), 1);
    assert_eq!(answer.status(), Some(Status::Err));
    scene.all_well();
}

#[test]
fn no_room_at_all() {
    let mut scene = Scene::new();
    let seat = scene.a.seat.clone().unwrap();
    let good = encode(CMD_ALLOC, &Alloc { size: 4096.into() });
    let before = (scene.host.stats().dmbs, seat.found(Finding::BadChain));
    assert_eq!(scene.a.submit(&[Part::Ask(&good)]).used, 0);
    assert_eq!(scene.a.submit(&[Part::Ask(&good), Part::Room(0)]).used, 0);
    assert_eq!(scene.a.submit(&[Part::Ask(&[])]).used, 0);
    assert_eq!(scene.host.stats().dmbs, before.0, "nothing was done");
    assert_eq!(seat.found(Finding::BadChain), before.1 + 3);
    // Room and no request.
    let answer = scene.a.submit(&[Part::Room(64)]);
    assert_eq!((answer.status(), answer.used), (Some(Status::Err), 1));
    scene.all_well();
}

// Draft: Request; OK
#[test]
fn how_a_request_is_cut_has_no_meaning() {
    let mut scene = Scene::new();
    let request = encode(
        CMD_ALLOC_FOR_PEER,
        &AllocForPeer {
            size: 20_000.into(),
            peer_gid: scene.b.gid(),
        },
    );
    let reply = 1 + size_of::<AllocReply>();
    for indirect in [false, true] {
        let mut submit = |parts: &[Part<'_>]| {
            let answer = if indirect {
                scene.a.submit_indirect(parts)
            } else {
                scene.a.submit(parts)
            };
            assert_eq!((answer.status(), answer.used), (Some(Status::Ok), reply), "{parts:?}");
            assert_eq!(answer.room[25..33], 20_000u64.to_le_bytes());
        };
        // One byte per descriptor.
        let mut parts: Vec<Part<'_>> = request.chunks(1).map(Part::Ask).collect();
        parts.extend(vec![Part::Room(1); reply]);
        submit(&parts);
        // Parts of odd lengths, some of them empty.
        let mut parts: Vec<Part<'_>> = Vec::new();
        for piece in request.chunks(7) {
            parts.extend([Part::Ask(piece), Part::Ask(&[])]);
        }
        parts.extend([
            Part::Room(0),
            Part::Room(1),
            Part::Room(5),
            Part::Room(0),
            Part::Room(reply),
        ]);
        submit(&parts);
        // The status at the end of one and the reply in the next.
        submit(&[
            Part::Ask(&request[..2]),
            Part::Ask(&request[2..]),
            Part::Room(1),
            Part::Room(32),
        ]);
    }
    scene.all_well();
}

#[test]
fn readable_after_writable() {
    let mut scene = Scene::new();
    let gid = scene.a.gid();
    let request = encode(CMD_QUERY_GID, &QueryGid { gid });
    for parts in [
        &[Part::Room(8), Part::Ask(&request)][..],
        &[Part::Ask(&request[..5]), Part::Room(8), Part::Ask(&request[5..])],
        &[Part::Room(1), Part::Ask(&request), Part::Room(8)],
    ] {
        // The specification forbids it; any answer is acceptable, but there must be one.
        let answer = scene.a.submit(parts);
        assert!(
            matches!(answer.status(), Some(Status::Ok | Status::Err)),
            "{parts:?}: {answer:?}"
        );
        scene.a.ping();
    }
    scene.all_well();
}

#[test]
fn findings_are_counted() {
    let mut scene = Scene::new();
    let seat = scene.a.seat.clone().unwrap();
    for count in 1..=10 {
        scene.a.request(&[0xff, 0xff], 8);
        assert_eq!(seat.found(Finding::BadRequest), count);
    }
    assert_eq!(scene.b.seat.as_ref().unwrap().found(Finding::BadRequest), 0);
}
