//! Cost of the device: a doorbell round trip between two guests through it, compared with the minimum that any device
//! of this kind needs.
//!
//! * *device*: A writes and rings; a worker of the device finds the ring and raises B's interrupt; B answers likewise.
//! * *echo*: the same four hops between threads, without content: A kicks an eventfd, a thread that waits with epoll
//!   reads it and writes B's eventfd, B answers likewise.
//! * *doors*: as *device*, with a door without rules before each guest, as in a daemon with `--control-socket`.
//! * *traced*: as *device*, while the flight recorder is on.
//!
//! Short turns alternate within one run, so that a busy machine slows all four alike, and each hop is between the same
//! two processors: A and its worker on one, B and its worker on another. Left to the scheduler, the placement of the
//! threads would dominate the result. `cargo bench -p vhost-ism`; `ROUNDS=n` and `TURNS=n` in the environment set the
//! number of measurements.

#[path = "../tests/common/mod.rs"]
#[allow(unused_imports, reason = "the tests use them")]
mod common;

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::*;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use vhost_daemon::fault::Faults;
use vhost_daemon::trace::set_flight_recorder;
use vhost_ism::fault::IsmFault;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Upper limit on the ratio of the medians.
const GOAL: f64 = 1.25;

fn from_environment(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// The processors of A and B; one and the same if there is no other.
#[derive(Clone, Copy)]
struct Places {
    a: usize,
    b: usize,
}

impl Places {
    fn new() -> Self {
        let allowed = sched_getaffinity(None).unwrap();
        let mut processors = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor));
        let a = processors.next().unwrap();
        let b = processors.next().unwrap_or(a);
        Self { a, b }
    }
}

/// Puts this thread, and those it starts from now on, on a processor.
fn sit_on(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).unwrap();
}

/// An eventfd that is waited for with epoll, as both the device and a VMM do.
struct Waiter {
    event: EventFd,
    epoll: Epoll,
}

impl Waiter {
    fn new() -> Self {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        let epoll = Epoll::new().unwrap();
        epoll
            .ctl(
                ControlOperation::Add,
                event.as_raw_fd(),
                EpollEvent::new(EventSet::IN, 0),
            )
            .unwrap();
        Self { event, epoll }
    }

    fn notifier(&self) -> EventFd {
        self.event.try_clone().unwrap()
    }

    /// Waits for a notification; false when none came for a while.
    fn wait(&self) -> bool {
        loop {
            if self.event.read().is_ok() {
                return true;
            }
            let mut ready = [EpollEvent::default()];
            if matches!(self.epoll.wait(200, &mut ready), Ok(0)) {
                return false;
            }
        }
    }
}

/// Starts a thread that forwards notifications until it is stopped.
fn relay(processor: usize, from: Waiter, to: EventFd, end: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        sit_on(processor);
        while !end.load(Ordering::Relaxed) {
            if from.wait() {
                to.write(1).unwrap();
            }
        }
    })
}

/// A -> thread -> B -> thread -> A.
struct Echo {
    kick: EventFd,
    called: Waiter,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    fn new(places: Places) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let (to_b, at_b, to_a, called) = (Waiter::new(), Waiter::new(), Waiter::new(), Waiter::new());
        let kick = to_b.notifier();
        let threads = vec![
            relay(places.a, to_b, at_b.notifier(), end.clone()),
            relay(places.b, at_b, to_a.notifier(), end.clone()),
            relay(places.b, to_a, called.notifier(), end.clone()),
        ];
        Self {
            kick,
            called,
            end,
            threads,
        }
    }

    fn round(&mut self) {
        self.kick.write(1).unwrap();
        assert!((0..100).any(|_| self.called.wait()), "the echo is lost");
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// Waits for one doorbell event and gives its buffer back, without looking at more than a driver would.
fn await_ring(guest: &mut TestGuest, timeout: Duration) -> bool {
    let Some((slot, _)) = guest.events.wait_used(timeout) else {
        return false;
    };
    guest.events.publish(slot as u16);
    true
}

/// Two guests; B answers in a thread of its own.
struct Device {
    a: TestGuest,
    inbox: Dmb,
    outbox: Dmb,
    value: u64,
    end: Arc<AtomicBool>,
    answering: Option<JoinHandle<()>>,
    _faults: Arc<Faults<IsmFault>>,
    _host: Host,
}

impl Device {
    /// This thread is A's from now on.
    fn new(places: Places, has_doors: bool) -> Self {
        let host = Host::default();
        let faults = Faults::new(["a", "b"].map(str::to_owned).to_vec()).unwrap();
        let boot = |name| {
            let seat = host.seat(name);
            if has_doors {
                seat.install(&faults);
            }
            seat.boot()
        };
        sit_on(places.b);
        let mut b = boot("b");
        sit_on(places.a);
        let mut a = boot("a");
        let of_a = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
        let of_b = b.alloc_for_peer(a.gid(), 1 << 16).unwrap();
        let (a_sends, b_sends) = (a.attach(of_b.token).unwrap(), b.attach(of_a.token).unwrap());
        let end = Arc::new(AtomicBool::new(false));
        let answering = std::thread::spawn({
            let end = end.clone();
            move || {
                sit_on(places.b);
                let window = b.window.clone();
                let (from, to) = (window.word(of_b.offset), window.word(b_sends.offset));
                let bell = window.bell(b_sends.offset);
                let mut seen = 0;
                while !end.load(Ordering::Relaxed) {
                    if !await_ring(&mut b, Duration::from_millis(200)) {
                        continue;
                    }
                    let value = from.load(Ordering::Acquire);
                    if value != seen {
                        seen = value;
                        to.store(value, Ordering::Release);
                        if bell.ring() {
                            b.doorbell.notify();
                        }
                    }
                }
            }
        });
        Self {
            a,
            inbox: of_a,
            outbox: a_sends,
            value: 0,
            end,
            answering: Some(answering),
            _faults: faults,
            _host: host,
        }
    }

    /// Measures many round trips, one sample each.
    fn rounds(&mut self, samples: &mut Vec<f64>, rounds: usize) {
        let window = self.a.window.clone();
        let (from, to): (&AtomicU64, &AtomicU64) = (window.word(self.inbox.offset), window.word(self.outbox.offset));
        let bell = window.bell(self.outbox.offset);
        for _ in 0..rounds {
            self.value += 1;
            let start = Instant::now();
            to.store(self.value, Ordering::Release);
            if bell.ring() {
                self.a.doorbell.notify();
            }
            while from.load(Ordering::Acquire) != self.value {
                assert!(await_ring(&mut self.a, PATIENCE), "a ring is lost");
            }
            samples.push(micros(start));
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.answering.take() {
            thread.join().unwrap();
        }
    }
}

fn micros(start: Instant) -> f64 {
    start.elapsed().as_nanos() as f64 / 1000.0
}

/// Returns the minimum and the median.
fn summary(samples: &mut [f64]) -> (f64, f64) {
    samples.sort_by(f64::total_cmp);
    (samples[0], samples[samples.len() / 2])
}

fn line(name: &str, samples: &mut [f64]) -> f64 {
    let (least, median) = summary(samples);
    println!("{name:<34} {:>8} {least:>9.1} {median:>9.1}", samples.len());
    median
}

fn main() {
    if std::env::args().any(|arg| arg == "--list") {
        // A test runner lists the tests.
        return;
    }
    if std::env::args().any(|arg| arg == "--test") {
        // `cargo test --benches`: only check that it runs.
        let mut samples = Vec::new();
        Device::new(Places::new(), false).rounds(&mut samples, 10);
        Device::new(Places::new(), true).rounds(&mut samples, 10);
        set_flight_recorder(true);
        Device::new(Places::new(), false).rounds(&mut samples, 10);
        Echo::new(Places::new()).round();
        return;
    }
    let rounds = from_environment("ROUNDS", 500);
    let turns = from_environment("TURNS", 80);
    let places = Places::new();
    let (mut device, mut echo) = (Device::new(places, false), Echo::new(places));
    let mut doored = Device::new(places, true);
    let [mut through_device, mut through_echo, mut through_doors, mut traced] = [(); 4].map(|()| Vec::new());
    let [mut ratios, mut doors_ratios, mut trace_ratios] = [(); 3].map(|()| Vec::new());
    // The first turn warms up and does not count.
    for turn in 0..=turns {
        let [mut one, mut other, mut with_doors, mut with_trace] = [(); 4].map(|()| Vec::new());
        device.rounds(&mut one, rounds);
        for _ in 0..rounds {
            let start = Instant::now();
            echo.round();
            other.push(micros(start));
        }
        doored.rounds(&mut with_doors, rounds);
        set_flight_recorder(true);
        device.rounds(&mut with_trace, rounds);
        set_flight_recorder(false);
        if turn > 0 {
            let plain = summary(&mut one).1;
            ratios.push(plain / summary(&mut other).1);
            doors_ratios.push(summary(&mut with_doors).1 / plain);
            trace_ratios.push(summary(&mut with_trace).1 / plain);
            through_device.append(&mut one);
            through_echo.append(&mut other);
            through_doors.append(&mut with_doors);
            traced.append(&mut with_trace);
        }
    }
    drop((device, doored, echo));

    let host = Host::default();
    let (mut a, b) = (host.boot("a"), host.boot("b"));
    let peer = b.gid();
    let mut one_request = Vec::new();
    let mut alloc_detach = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        a.ping();
        one_request.push(micros(start));
        let start = Instant::now();
        let dmb = a.alloc_for_peer(peer, 64 << 10).unwrap();
        a.detach(dmb.token).unwrap();
        alloc_detach.push(micros(start));
    }

    println!(
        "{:<34} {:>8} {:>9} {:>9}",
        "round trip", "samples", "min/us", "median/us"
    );
    let device = line("doorbell, A device B device A", &mut through_device);
    let echo = line("echo, A thread B thread A", &mut through_echo);
    line("doorbell, with doors", &mut through_doors);
    line("doorbell, traced", &mut traced);
    line("control request (QUERY_GID)", &mut one_request);
    line("control requests (ALLOC, DETACH)", &mut alloc_detach);
    for (name, ratios) in [("doors", &mut doors_ratios), ("traced", &mut trace_ratios)] {
        ratios.sort_by(f64::total_cmp);
        let [first, middle, last] = [0, ratios.len() / 2, ratios.len() - 1].map(|at| ratios[at]);
        println!("{name} / device: per turn {first:.3} to {last:.3}, median {middle:.3}");
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "doorbell / echo: {:.2} of the medians; per turn {:.2} to {:.2}, median {:.2} (goal: at most {GOAL})",
        device / echo,
        ratios[0],
        ratios[ratios.len() - 1],
        ratios[ratios.len() / 2]
    );
}
