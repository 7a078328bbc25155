//! A hostile guest, which can put anything into the device's queues, gains no access to other guests' memory and does
//! not disturb them.

use guest_harness::Result;

use crate::fixture::{Fixture, Kernel, Setup};
use crate::probe::{Probe, Request, module};

// Commands and answers as in vhost-ism/docs/device.md.
const ALLOC: (u8, u8) = (0, 0);
const ATTACH: (u8, u8) = (1, 0);
const DETACH: (u8, u8) = (2, 0);
const GRANT_DEFAULT: (u8, u8) = (3, 0);
const GRANT_DEVICE: (u8, u8) = (3, 1);
const EVENT_VECTOR: (u8, u8) = (4, 0);
const ALLOC_FOR_PEER: (u8, u8) = (0x80, 0);
const QUERY_GID: (u8, u8) = (0x80, 1);
const SEND_MESSAGE: (u8, u8) = (0x80, 2);
const QUERY_SLAB: (u8, u8) = (0x80, 3);
const SUBSCRIBE: (u8, u8) = (0x80, 5);

const OK: u8 = 0;
const ENOENT: u8 = 2;
const E2BIG: u8 = 7;
const PERM_EATTACH: u8 = 100;
const ERR: u8 = 255;

/// Every command with the length of its body.
const COMMANDS: [((u8, u8), usize); 11] = [
    (ALLOC, 8),
    (ATTACH, 12),
    (DETACH, 8),
    (GRANT_DEFAULT, 16),
    (GRANT_DEVICE, 24),
    (EVENT_VECTOR, 16),
    (ALLOC_FOR_PEER, 24),
    (QUERY_GID, 16),
    (SEND_MESSAGE, 32),
    (QUERY_SLAB, 8),
    (SUBSCRIBE, 8),
];

/// Offset of the doorbell bytes.
const DOORBELLS: u64 = 4096;

/// SMC event that asks the peer to end all connections.
const SHUTDOWN: u32 = 0x80;

#[test]
fn a_hostile_guest_gets_nowhere() -> Result<()> {
    hostile("hostile", Kernel::Normal)
}

#[test]
#[ignore = "long: the debug kernel"]
fn debug_a_hostile_guest_gets_nowhere() -> Result<()> {
    hostile("debug-hostile", Kernel::Debug)
}

fn hostile(name: &'static str, kernel: Kernel) -> Result<()> {
    let fixture = Setup::new(name, 3).kernel(kernel).share(module(kernel)?).start()?;
    let (a, b, c) = (0, 1, 2);
    // Connections that C must neither access nor disturb.
    let load = fixture.run(a, b, "load")?;
    let hold = fixture.run(b, a, "hold")?;
    let tokens = tokens(&fixture, a)?;
    assert_eq!(tokens.len(), 4, "two connections with a buffer at each end");

    let probe = Probe::load(&fixture, c)?;
    let gids = [gid(&fixture, a)?, gid(&fixture, b)?];
    behaves(&probe, &gids)?;
    foreign_tokens(&probe, &tokens)?;
    malformed(&probe, &gids)?;
    messages(&probe, &gids)?;
    nonsense(&probe)?;
    // Doorbells of buffers C does not have, the word owned by the device, and offsets beyond the doorbells.
    probe.ring([
        0,
        1,
        2,
        3,
        4,
        DOORBELLS - 1,
        DOORBELLS,
        DOORBELLS + 1,
        DOORBELLS + 4095,
        DOORBELLS + 16000,
    ])?;

    // The other guests and the device are undisturbed.
    assert!(!hold.is_finished(), "{hold:?} has ended");
    drop(hold);
    load.stop(fixture.seconds(20))?;
    fixture.call(b, a, "bulk --bytes 1M --direction both --check hash")?;
    let stats = fixture.daemon_stats()?;
    for error in ["bad_request", "bad_chain", "stray_doorbell"] {
        let count = &stats["guests"][c]["guest_errors"][error];
        assert!(count.as_u64() > Some(0), "{error} of C: {count}");
    }

    // C works normally again.
    probe.unload()?;
    fixture.call(c, a, "bulk --bytes 1M --direction both --check hash")?;
    fixture.call(b, c, "bulk --bytes 1M --direction both --check hash")?;
    fixture.finish_despite(Some(c))
}

/// Tokens of all buffers of a guest's connections, its own and its peers'.
fn tokens(fixture: &Fixture, index: usize) -> Result<Vec<u64>> {
    let sockets = fixture.sockets(index)?;
    let dmbs = sockets.iter().filter(|socket| socket["state"] == "active");
    let tokens = dmbs.flat_map(|socket| [&socket["dmb"]["token"], &socket["dmb"]["peer_token"]]);
    Ok(tokens
        .map(|token| u64::from_str_radix(token.as_str().expect("a token"), 16).expect("hexadecimal"))
        .collect())
}

fn gid(fixture: &Fixture, index: usize) -> Result<[u8; 16]> {
    let text = fixture.gid(index)?.replace('-', "");
    let number = u128::from_str_radix(&text, 16).expect("a GID");
    Ok(number.to_be_bytes())
}

/// Valid requests work; otherwise the refusals below would mean nothing.
fn behaves(probe: &Probe<'_>, gids: &[[u8; 16]; 2]) -> Result<()> {
    for gid in gids {
        for segment in [0, 5] {
            let answer = probe.ask_one(Request::new(QUERY_GID, gid).segment(segment))?;
            assert_eq!(answer.bytes, [OK], "QUERY_GID");
        }
    }
    let answer = probe.ask_one(Request::new(QUERY_GID, &[7; 16]))?;
    assert_eq!(answer.bytes, [ENOENT], "QUERY_GID of an unknown GID");

    // A buffer that A could attach if it knew the token, and a buffer for C itself.
    for request in [
        Request::new(ALLOC_FOR_PEER, &[&65536_u64.to_le_bytes()[..], &gids[0]].concat()),
        Request::new(ALLOC, &65536_u64.to_le_bytes()),
    ] {
        let answer = probe.ask_one(request.clone())?;
        assert_eq!(
            (answer.status(), answer.used),
            (Some(OK), 1 + 8 + 8 + 16),
            "{request:02x?}"
        );
        let token = &answer.bytes[1..9];
        assert_eq!(probe.ask_one(Request::new(DETACH, token))?.bytes, [OK]);
        assert_eq!(
            probe.ask_one(Request::new(DETACH, token))?.bytes,
            [ENOENT],
            "DETACH of a freed token"
        );
    }
    Ok(())
}

/// Knowing a token gives no access to a buffer shared by others.
fn foreign_tokens(probe: &Probe<'_>, tokens: &[u64]) -> Result<()> {
    for token in tokens {
        let token = token.to_le_bytes();
        for permissions in [3_u32, 1, 2, 0x1f] {
            let request = Request::new(ATTACH, &[&token[..], &permissions.to_le_bytes()].concat());
            let answer = probe.ask_one(request)?;
            assert_ne!(answer.status(), Some(OK), "ATTACH with {permissions:#x}");
            if permissions == 3 {
                assert_eq!(answer.bytes, [PERM_EATTACH], "ATTACH");
            }
        }
        for command in [DETACH, QUERY_SLAB, GRANT_DEFAULT, GRANT_DEVICE] {
            let length = COMMANDS
                .iter()
                .find(|(known, _)| *known == command)
                .map_or(0, |(_, length)| *length);
            let mut body = token.to_vec();
            // All permissions, for every device.
            body.resize(length, 0x0f);
            let answer = probe.ask_one(Request::new(command, &body))?;
            assert_eq!(answer.used, 1, "{command:?}: {answer:02x?}");
            assert_ne!(answer.status(), Some(OK), "{command:?}");
        }
    }
    // Guessed tokens do not exist.
    let guesses: Vec<Request> = tokens
        .iter()
        .flat_map(|token| {
            (1..32).flat_map(move |step| [token.wrapping_add(step), token.wrapping_sub(step), token ^ (1 << step)])
        })
        .filter(|guess| !tokens.contains(guess))
        .map(|guess| Request::new(ATTACH, &[&guess.to_le_bytes()[..], &3_u32.to_le_bytes()].concat()))
        .collect();
    for (guess, answer) in guesses.iter().zip(probe.ask(&guesses)?) {
        assert_eq!(answer.bytes, [ENOENT], "{guess:02x?}");
    }
    Ok(())
}

/// Requests of a wrong length, with invalid parameters, or without room for the answer.
fn malformed(probe: &Probe<'_>, gids: &[[u8; 16]; 2]) -> Result<()> {
    let raw = |bytes: &[u8]| Request {
        bytes: bytes.to_vec(),
        room: 64,
        segment: 0,
    };
    let mut requests = vec![
        raw(&[]),
        raw(&[0x80]),
        raw(&[0x80; 1024]),
        Request::new((7, 0), &[]),
        Request::new((0, 9), &[0; 8]),
        Request::new((0x80, 0x7f), &[0; 16]),
        Request::new((0xff, 0xff), &[0xff; 60]),
        Request::new(ALLOC, &0_u64.to_le_bytes()),
        Request::new(ALLOC, &u64::MAX.to_le_bytes()),
        Request::new(ALLOC, &(1_u64 << 40).to_le_bytes()),
        Request::new(ALLOC_FOR_PEER, &[&u64::MAX.to_le_bytes()[..], &gids[0]].concat()),
    ];
    for (command, length) in COMMANDS {
        for wrong in [0, length - 1, length + 1, length + 64] {
            requests.push(Request::new(command, &vec![1; wrong]));
        }
    }
    for (request, answer) in requests.iter().zip(probe.ask(&requests)?) {
        assert_eq!(answer.bytes, [ERR], "{request:02x?}");
    }
    assert_eq!(probe.ask_one(Request::new(EVENT_VECTOR, &[0; 16]))?.bytes, [ENOENT]);
    let small = Request::new(ALLOC, &65536_u64.to_le_bytes()).room(16);
    assert_eq!(probe.ask_one(small)?.bytes, [E2BIG]);
    // No room even for the status.
    for (command, length) in COMMANDS {
        let answer = probe.ask_one(Request::new(command, &vec![0; length]).room(0))?;
        assert_eq!(answer.used, 0, "{command:?}");
    }
    Ok(())
}

/// Messages to guests that share nothing with C: shutdown events and random codes.
fn messages(probe: &Probe<'_>, gids: &[[u8; 16]; 2]) -> Result<()> {
    let requests: Vec<Request> = (0..200_u32)
        .map(|number| {
            let code = if number % 2 == 0 {
                SHUTDOWN
            } else {
                number.wrapping_mul(0x9e37_79b9)
            };
            let info = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let peer = &gids[number as usize / 2 % 2];
            Request::new(
                SEND_MESSAGE,
                &[&peer[..], &code.to_le_bytes(), &[0; 4], &info.to_le_bytes()].concat(),
            )
        })
        .collect();
    let answers = probe.ask(&requests)?;
    assert!(
        answers.iter().any(|answer| answer.bytes == [OK]),
        "no message was accepted"
    );
    Ok(())
}

/// Random bodies for every command, with random segments and room. The answers do not matter.
fn nonsense(probe: &Probe<'_>) -> Result<()> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let requests: Vec<Request> = (0..300)
        .map(|_| {
            let (command, length) = COMMANDS[random(COMMANDS.len() as u64) as usize];
            let length = match random(4) {
                0 => random(200) as usize,
                _ => length,
            };
            let body: Vec<u8> = (0..length).map(|_| random(256) as u8).collect();
            Request::new(command, &body)
                .room(random(80) as usize)
                .segment(16 + random(64) as usize)
        })
        .collect();
    probe.ask(&requests).map(drop)
}
