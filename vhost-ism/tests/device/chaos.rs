//! Four guests make random requests at the same time on one daemon.

use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use vhost_ism::abi::*;
use vhost_ism::stats::GuestSnapshot;

use crate::common::host::Seat;
use crate::common::*;
use crate::replay::equal;

const GUESTS: usize = 4;
const STEPS: usize = 1500;

/// Messages between guests outside of the fabric, as SMC sends them over TCP.
#[derive(Default)]
struct Board {
    gids: [Option<Gid>; GUESTS],
    /// Receiver, token, and the word that the first bytes hold once the owner has written them.
    offers: Vec<(Gid, Token, u64)>,
}

/// Returns a word unique to two sessions.
fn word_of(a: Gid, b: Gid) -> u64 {
    let half = |gid: Gid, at: usize| u64::from_le_bytes(gid.0[at..at + 8].try_into().unwrap());
    (half(a, 0) ^ half(b, 0)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ half(a, 8) ^ half(b, 8)
}

struct Player {
    number: usize,
    seat: Arc<Seat>,
    guest: TestGuest,
    board: Arc<Mutex<Board>>,
    owned: Vec<Dmb>,
    attached: Vec<Dmb>,
    random: u64,
}

impl Player {
    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % limit as u64) as usize
    }

    fn join(&mut self) {
        self.owned.clear();
        self.attached.clear();
        self.board.lock().unwrap().gids[self.number] = Some(self.guest.gid());
    }

    fn peer(&mut self) -> Option<Gid> {
        let other = (self.number + 1 + self.below(GUESTS - 1)) % GUESTS;
        self.board.lock().unwrap().gids[other]
    }

    fn step(&mut self) {
        match self.below(100) {
            0 => {
                self.guest.reset();
                self.join();
            }
            1 => {
                let next = self.seat.clone();
                // The guest cannot be moved out of `self`; the next one waits until it has hung up.
                self.guest.hang_up();
                self.guest = next.boot();
                self.join();
            }
            2..=39 => self.offer(),
            40..=59 => self.take(),
            60..=69 => {
                if !self.owned.is_empty() {
                    let at = self.below(self.owned.len());
                    let dmb = self.owned.swap_remove(at);
                    assert_eq!(self.guest.detach(dmb.token), Ok(()));
                }
            }
            70..=79 => {
                if !self.attached.is_empty() {
                    let at = self.below(self.attached.len());
                    let dmb = self.attached.swap_remove(at);
                    assert_eq!(self.guest.detach(dmb.token), Ok(()));
                }
            }
            80..=94 => {
                if !self.attached.is_empty() {
                    let at = self.below(self.attached.len());
                    self.guest.ring(self.attached[at].offset);
                }
            }
            _ => {
                if let Some(peer) = self.peer() {
                    let _ = self.guest.send_message(peer, 1, word_of(self.guest.gid(), peer));
                }
            }
        }
        while let Some(event) = self.guest.next_event(Duration::ZERO) {
            match event {
                Event::Doorbells(chunks) => {
                    let window = self.guest.config.window_size.get();
                    assert!(chunks.iter().all(|chunk| u64::from(*chunk) * CHUNK_SIZE < window));
                }
                Event::Message(sender, _, word) => assert_eq!(word, word_of(sender, self.guest.gid())),
                Event::PeerGone(gid) => assert_ne!(gid, self.guest.gid()),
                Event::Nothing => panic!("a buffer came back empty"),
                other => panic!("{other:?} without a subscription"),
            }
        }
    }

    fn offer(&mut self) {
        let Some(peer) = self.peer() else { return };
        let size = 1 + self.below(200_000) as u64;
        match self.guest.alloc_for_peer(peer, size.max(8)) {
            Ok(dmb) => {
                let bytes = self.guest.window.read(dmb.offset, dmb.size);
                assert!(bytes.iter().all(|byte| *byte == 0), "a new DMB is not zero");
                let word = word_of(self.guest.gid(), peer);
                self.guest.window.write(dmb.offset, &word.to_le_bytes());
                self.owned.push(dmb);
                self.board.lock().unwrap().offers.push((peer, dmb.token, word));
            }
            Err(refused) => assert!(matches!(refused, Status::NoEnt | Status::NoSpc), "{refused:?}"),
        }
    }

    fn take(&mut self) {
        let offer = {
            let mut board = self.board.lock().unwrap();
            let keep = board.offers.len().saturating_sub(200);
            board.offers.drain(..keep);
            if board.offers.is_empty() {
                return;
            }
            let at = self.random as usize % board.offers.len();
            board.offers[at]
        };
        let (peer, token, word) = offer;
        match self.guest.attach(token) {
            Ok(dmb) => {
                assert_eq!(peer, self.guest.gid(), "it was for somebody else");
                let found = self.guest.window.read(dmb.offset, 8);
                assert_eq!(found, word.to_le_bytes(), "other content than offered");
                self.attached.push(dmb);
            }
            Err(Status::PermAttach) => {
                let again = self.attached.iter().any(|dmb| dmb.token == token);
                assert!(again || peer != self.guest.gid());
            }
            Err(refused) => assert!(matches!(refused, Status::NoEnt | Status::NoSpc), "{refused:?}"),
        }
    }
}

/// Makes random requests until all guests have made their steps.
fn run(host: &Arc<Host>, steps: usize) {
    let board = Arc::new(Mutex::new(Board::default()));
    let start = Arc::new(Barrier::new(GUESTS));
    let seed = 0xdead_beef;
    let players: Vec<_> = (0..GUESTS)
        .map(|number| {
            let (host, board, start) = (host.clone(), board.clone(), start.clone());
            std::thread::spawn(move || {
                let seat = host.seat(&number.to_string());
                let mut player = Player {
                    number,
                    guest: seat.boot(),
                    seat,
                    board,
                    owned: Vec::new(),
                    attached: Vec::new(),
                    random: seed + 0x1_0001 * number as u64,
                };
                player.join();
                start.wait();
                for _ in 0..steps {
                    player.step();
                }
            })
        })
        .collect();
    for player in players {
        player.join().unwrap();
    }
    host.expect_empty();
}

#[test]
fn anything_goes() {
    run(&Arc::new(Host::default()), STEPS);
}

#[test]
fn anything_is_replayed() {
    let host = Arc::new(Host::recorded(&["0", "1", "2", "3"]));
    run(&host, STEPS / 5);
    let counters: Vec<_> = (0..GUESTS).map(|number| host.counters(&number.to_string())).collect();
    let sum = |count: fn(&GuestSnapshot) -> u64| counters.iter().map(count).sum::<u64>();
    let counts = equal(&host.finish_record()).counts;
    assert_eq!(counts.requests, sum(|guest| guest.requests));
    assert_eq!(counts.events, sum(|guest| guest.events));
    assert_eq!(counts.doorbells, sum(|guest| guest.doorbells));
    assert!(counts.requests > 4 * 100 && counts.maps > 20, "{counts}");
}
