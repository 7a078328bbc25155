//! 64 guests on one switch that talk, are reset, die and attack.

use std::env;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::host::{Host, Seat};
use crate::load::{Interruption, Life, attack, interrupt, talk};

const GUESTS: u8 = 64;
/// Number of pairs of guests for each load; the others talk.
const RESET: usize = 6;
const DYING: usize = 4;
const ATTACKING: usize = 4;
/// Time limit for the goal, beyond its minimum duration.
const LIMIT: Duration = Duration::from_secs(1800);
/// Environment variable with the minimum duration of the long test in seconds.
const SECONDS: &str = "VHOST_SOAK_SECONDS";

/// Minimum number of interruptions, and minimum duration.
struct Goal {
    resets: u64,
    deaths: u64,
    time: Duration,
    /// Whether attacks are by WQEs as well as by commands.
    with_wqes: bool,
}

#[derive(Debug, Clone, Copy)]
enum Load {
    Talk,
    Interrupt(Interruption),
    Attack,
}

fn load_of(pair: usize) -> Load {
    const DYING_END: usize = RESET + DYING;
    const ATTACKING_END: usize = DYING_END + ATTACKING;
    match pair {
        0..RESET => Load::Interrupt(Interruption::Reset),
        RESET..DYING_END => Load::Interrupt(Interruption::Death),
        DYING_END..ATTACKING_END => Load::Attack,
        _ => Load::Talk,
    }
}

fn lead(load: Load, seats: [&Seat; 2], seed: u64, with_wqes: bool, life: &Life<'_>) {
    match load {
        Load::Talk => talk(seats, life),
        Load::Interrupt(how) => interrupt(seats, how, life),
        Load::Attack => attack(seats, seed, with_wqes, life),
    }
}

/// Lets all guests live until the goal is reached. Every pair does its part at least once.
fn live(host: &Host, seed: u64, goal: &Goal) {
    let pairs = host.pairs();
    let counts: Vec<AtomicU64> = pairs.iter().map(|_| AtomicU64::new(0)).collect();
    let ending = AtomicBool::new(false);
    let sum = |wanted: fn(Load) -> bool| -> u64 {
        let of_kind = counts.iter().enumerate().filter(|(pair, _)| wanted(load_of(*pair)));
        of_kind.map(|(_, count)| count.load(Ordering::Relaxed)).sum()
    };
    let resets = || sum(|load| matches!(load, Load::Interrupt(Interruption::Reset)));
    let deaths = || sum(|load| matches!(load, Load::Interrupt(Interruption::Death)));
    let begun = Instant::now();
    thread::scope(|scope| {
        for (pair, (&seats, done)) in pairs.iter().zip(&counts).enumerate() {
            let ending = &ending;
            let (load, seed, with_wqes) = (load_of(pair), seed + pair as u64, goal.with_wqes);
            scope.spawn(move || lead(load, seats, seed, with_wqes, &Life { ending, done }));
        }
        let reached = || {
            begun.elapsed() >= goal.time
                && resets() >= goal.resets
                && deaths() >= goal.deaths
                && counts.iter().all(|count| count.load(Ordering::Relaxed) > 0)
        };
        while !ending.load(Ordering::Relaxed) && !reached() {
            if begun.elapsed() > goal.time + LIMIT {
                ending.store(true, Ordering::Relaxed);
                panic!("{} resets and {} deaths: {counts:?}", resets(), deaths());
            }
            thread::sleep(Duration::from_millis(20));
        }
        ending.store(true, Ordering::Relaxed);
    });
    let talks = sum(|load| matches!(load, Load::Talk));
    let attacks = sum(|load| matches!(load, Load::Attack));
    println!(
        "{:.1} s: {} resets, {} deaths, {attacks} attacks, {talks} talks",
        begun.elapsed().as_secs_f64(),
        resets(),
        deaths()
    );
}

/// Lives once to warm up, and again towards the goal; nothing is left that was not there before.
fn soak(goal: &Goal) {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), GUESTS);
    let once = Goal {
        resets: 1,
        deaths: 1,
        time: Duration::ZERO,
        with_wqes: goal.with_wqes,
    };
    live(&host, 1, &once);
    let before = host.settled();
    println!("{before:?}");
    live(&host, 1000, goal);
    assert_eq!(host.settled(), before);
    let log = host.log();
    let panics: Vec<&String> = log.iter().filter(|line| line.contains("panicked")).collect();
    assert!(panics.is_empty(), "{panics:?}");
}

#[test]
fn a_crowd_leaves_nothing_behind() {
    soak(&Goal {
        resets: 20,
        deaths: 10,
        time: Duration::ZERO,
        with_wqes: false,
    });
}

#[test]
#[ignore = "long"]
fn a_crowd_leaves_nothing_behind_in_a_long_life() {
    let seconds = env::var(SECONDS).map_or(60, |text| text.parse().expect(SECONDS));
    soak(&Goal {
        resets: 1000,
        deaths: 100,
        time: Duration::from_secs(seconds),
        with_wqes: true,
    });
}
