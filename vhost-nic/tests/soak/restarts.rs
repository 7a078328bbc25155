//! Daemon after daemon on the same paths, each ended under load.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use mlx5_test_driver::wait::{eventually, set_hopeless};
use rustix::process::Signal;
use vhost_daemon::testing::{Possessions, is_empty};

use crate::host::{Host, Seat};
use crate::load::{Interruption, Life, interrupt, talk};

const GUESTS: u8 = 6;

/// Leads a life until its end, or that of the daemon.
fn lead(seats: [&Seat; 2], index: usize, done: &AtomicU64, alive: &AtomicBool) {
    let life = Life {
        ending: &AtomicBool::new(false),
        done,
    };
    let led = panic::catch_unwind(AssertUnwindSafe(|| match index {
        0 => interrupt(seats, Interruption::Reset, &life),
        _ => talk(seats, &life),
    }));
    if let Err(reason) = led
        && alive.load(Ordering::Relaxed)
    {
        panic::resume_unwind(reason);
    }
}

fn restart(count: u32) {
    let directory = tempfile::tempdir().unwrap();
    let alive: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(true)));
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if alive.load(Ordering::Relaxed) {
            report(info);
        }
    }));
    let mut before = None;
    for number in 0..count {
        let host = Host::start(directory.path(), GUESTS);
        set_hopeless(false);
        alive.store(true, Ordering::Relaxed);
        let pairs = host
            .pairs()
            .into_iter()
            .map(|pair| pair.map(Seat::clone))
            .collect::<Vec<_>>();
        let counts: Vec<AtomicU64> = pairs.iter().map(|_| AtomicU64::new(0)).collect();
        let signal = if number.is_multiple_of(2) {
            Signal::KILL
        } else {
            Signal::TERM
        };
        thread::scope(|scope| {
            for (index, (seats, done)) in pairs.iter().zip(&counts).enumerate() {
                scope.spawn(move || lead(seats.each_ref(), index, done, alive));
            }
            eventually("all have work", || {
                counts.iter().all(|count| count.load(Ordering::Relaxed) > 0)
            });
            // Into another phase of the work each time.
            thread::sleep(Duration::from_micros(u64::from(number * 977 % 5000)));
            alive.store(false, Ordering::Relaxed);
            let code = host.end(signal);
            set_hopeless(true);
            assert_eq!(code, (signal == Signal::TERM).then_some(0));
        });
        if signal == Signal::TERM {
            assert!(is_empty(directory.path()), "a socket is left");
        }
        let held = Possessions::own();
        assert_eq!(before.get_or_insert_with(|| held.clone()), &held, "the guests' own");
    }
    set_hopeless(false);
}

#[test]
fn daemons_end_under_load_and_others_take_their_place() {
    restart(6);
}

#[test]
#[ignore = "long"]
fn a_hundred_daemons_end_under_load_and_others_take_their_place() {
    restart(100);
}
