//! A guest that wants no good, in which anything may go into the device's queues: it gets at nothing of the others', and they do
//! not notice.

use guest_tests::Result;

use crate::lab::{Kernel, Lab, Setup};
use crate::probe::{Probe, Request, module};

// Commands and answers as vhost-ism/docs/device.md has them.
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

const OK: u8 = 0;
const ENOENT: u8 = 2;
const E2BIG: u8 = 7;
const PERM_EATTACH: u8 = 100;
const ERR: u8 = 255;

/// Every command, and how long its body is.
const COMMANDS: [((u8, u8), usize); 10] = [
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
];

/// Where the doorbell bytes begin.
const BELLS: u64 = 4096;

/// What SMC takes for "I am going away, end our connections".
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
    let lab = Setup::new(name, 3).kernel(kernel).share(module(kernel)?).start()?;
    let (a, b, c) = (0, 1, 2);
    // What C is not to get at, and what is not to be disturbed.
    let load = lab.run(a, b, "load")?;
    let hold = lab.run(b, a, "hold")?;
    let tokens = tokens(&lab, a)?;
    assert_eq!(tokens.len(), 4, "two connections with a buffer at each end");

    let probe = Probe::load(&lab, c)?;
    let gids = [gid(&lab, a)?, gid(&lab, b)?];
    behaves(&probe, &gids)?;
    foreign_tokens(&probe, &tokens)?;
    malformed(&probe, &gids)?;
    messages(&probe, &gids)?;
    nonsense(&probe)?;
    // Bells of buffers it does not have, the word that is the device's, and beyond the bells.
    probe.ring([0, 1, 2, 3, 4, BELLS - 1, BELLS, BELLS + 1, BELLS + 4095, BELLS + 16000])?;

    // The others have not noticed, nor has the device come to harm.
    assert!(!hold.is_finished(), "{hold:?} has ended");
    drop(hold);
    load.stop(lab.seconds(20))?;
    lab.call(b, a, "bulk --bytes 1M --direction both --check hash")?;
    let stats = lab.daemon_stats()?;
    for error in ["bad_request", "bad_chain", "stray_doorbell"] {
        let count = &stats["guests"][c]["guest_errors"][error];
        assert!(count.as_u64() > Some(0), "{error} of C: {count}");
    }

    // C reforms.
    probe.unload()?;
    lab.call(c, a, "bulk --bytes 1M --direction both --check hash")?;
    lab.call(b, c, "bulk --bytes 1M --direction both --check hash")?;
    lab.finish_despite(Some(c))
}

/// The tokens of all buffers that a guest's connections have, its own and its peers'.
fn tokens(lab: &Lab, index: usize) -> Result<Vec<u64>> {
    let sockets = lab.sockets(index)?;
    let dmbs = sockets.iter().filter(|socket| socket["state"] == "active");
    let tokens = dmbs.flat_map(|socket| [&socket["dmb"]["token"], &socket["dmb"]["peer_token"]]);
    Ok(tokens
        .map(|token| u64::from_str_radix(token.as_str().expect("a token"), 16).expect("hexadecimal"))
        .collect())
}

fn gid(lab: &Lab, index: usize) -> Result<[u8; 16]> {
    let text = lab.gid(index)?.replace('-', "");
    let number = u128::from_str_radix(&text, 16).expect("a GID");
    Ok(number.to_be_bytes())
}

/// The module does what it says, or what is refused below would mean nothing.
fn behaves(probe: &Probe<'_>, gids: &[[u8; 16]; 2]) -> Result<()> {
    for gid in gids {
        for piece in [0, 5] {
            let answer = probe.ask_one(Request::new(QUERY_GID, gid).piece(piece))?;
            assert_eq!(answer.bytes, [OK], "QUERY_GID");
        }
    }
    let answer = probe.ask_one(Request::new(QUERY_GID, &[7; 16]))?;
    assert_eq!(answer.bytes, [ENOENT], "QUERY_GID of nobody");

    // A buffer that A could attach if it knew of it; and one of its own.
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
            "a token that is dead"
        );
    }
    Ok(())
}

/// Nothing can be done with what others share, even by who knows its name.
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
            // All the permissions there are, for every device.
            body.resize(length, 0x0f);
            let answer = probe.ask_one(Request::new(command, &body))?;
            assert_eq!(answer.used, 1, "{command:?}: {answer:02x?}");
            assert_ne!(answer.status(), Some(OK), "{command:?}");
        }
    }
    // Nor does guessing help.
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

/// Requests of the wrong length, for the wrong thing, without room for the answer.
fn malformed(probe: &Probe<'_>, gids: &[[u8; 16]; 2]) -> Result<()> {
    let raw = |bytes: &[u8]| Request {
        bytes: bytes.to_vec(),
        room: 64,
        piece: 0,
    };
    let mut requests = vec![
        raw(&[]),
        raw(&[0x80]),
        raw(&[0x80; 1024]),
        Request::new((7, 0), &[]),
        Request::new((0, 9), &[0; 8]),
        Request::new((0x80, 0x7f), &[0; 16]),
        Request::new((0xff, 0xff), &[0xff; 60]),
        Request::new(EVENT_VECTOR, &[0; 16]),
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
    let small = Request::new(ALLOC, &65536_u64.to_le_bytes()).room(16);
    assert_eq!(probe.ask_one(small)?.bytes, [E2BIG]);
    // No room for even a status.
    for (command, length) in COMMANDS {
        let answer = probe.ask_one(Request::new(command, &vec![0; length]).room(0))?;
        assert_eq!(answer.used, 0, "{command:?}");
    }
    Ok(())
}

/// Messages to guests it shares nothing with, as many as they take: that it is going away, and worse.
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
        "no message was taken"
    );
    Ok(())
}

/// Bodies of random bytes behind every command, in random pieces and room. What is answered does not matter here.
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
                .piece(16 + random(64) as usize)
        })
        .collect();
    probe.ask(&requests).map(drop)
}
