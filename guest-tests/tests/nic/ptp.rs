//! PTP with the NIC's time stamps, by the stock programs of linuxptp: the clocks of two guests agree, and each system's
//! clock follows its NIC's.

use std::time::Duration;

use guest_harness::{Guest, Job, NIC, Result};

use crate::fixture::{Fixture, Setup, step};
use crate::workloads::TERM;

/// Limit on the time until a servo has locked, of which most is the processing of messages by busy guests.
const LOCKED: Duration = Duration::from_secs(120);
/// Limit on the time between two lines of a servo.
const LINE: Duration = Duration::from_secs(20);
/// Measurements of a servo that are compared.
const COUNT: usize = 40;
/// Options of both ends: IEEE 802.3 transport, standard error, 8 messages a second.
const PTP4L: &str = "ptp4l -i nic0 -2 -m --logSyncInterval=-3 --logMinDelayReqInterval=-3 --summary_interval=-3";
/// Bound on the offset of a locked servo, in nanoseconds; a busy host delays messages by some microseconds.
const CLOSE: f64 = 1e6;

/// A line of a servo.
#[derive(Debug)]
struct Measured {
    /// In nanoseconds.
    offset: f64,
    /// `s0` to `s2`: unlocked, a step, locked.
    state: String,
    /// In nanoseconds.
    delay: f64,
}

impl Measured {
    /// Parses `... offset N sN freq N path delay N`, in which phc2sys has no `path`.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1)?.parse().ok()
        };
        let state = words.iter().find(|word| ["s0", "s1", "s2"].contains(word))?;
        Some(Self {
            offset: after("offset")?,
            state: (*state).to_owned(),
            delay: after("delay")?,
        })
    }
}

/// Waits until a servo is locked, and returns what it measures after.
fn measure(servo: &Job) -> Result<Vec<Measured>> {
    servo.wait_line(" s2 ", LOCKED)?;
    let mut measured = Vec::new();
    // What the servo knows of the frequency when it locks is coarse.
    for number in 0..2 * COUNT {
        let line = servo.read_line(LINE)?.expect("the servo goes on");
        if number >= COUNT {
            measured.push(Measured::parse(&line).unwrap_or_else(|| panic!("{line}")));
        }
    }
    Ok(measured)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "long: needs a root file system with linuxptp"]
fn clocks_of_two_guests_converge() -> Result<()> {
    let fixture = Setup::new("nic-ptp", 2).packages("linuxptp").ethernet_only().start()?;
    for guest in fixture.testbed().guests() {
        let shown = guest.run(&format!("ethtool -T {NIC}"))?.check()?;
        assert!(shown.stdout.contains("hardware-raw-clock"), "{shown}");
    }
    let (server, client) = (fixture.guest(0), fixture.guest(1));
    // The client's clock is seven seconds ahead.
    client.run(&format!("phc_ctl {NIC} adj 7"))?.check()?;
    let serving = server.spawn(&format!("exec {PTP4L} --priority1=10"))?;
    let following = client.spawn(&format!("exec {PTP4L} -s"))?;
    step("ptp4l", || ptp4l(&following))?;
    step("phc2sys", || phc2sys(client))?;
    step("the time itself", || same_time(&fixture))?;
    for job in [following, serving] {
        job.kill(TERM);
        job.wait(LINE)?;
    }
    fixture.finish()
}

/// The NIC's clock of the client follows that of the server.
fn ptp4l(following: &Job) -> Result<()> {
    let measured = measure(following)?;
    let offset = median(measured.iter().map(|one| one.offset.abs()));
    let delay = median(measured.iter().map(|one| one.delay));
    eprintln!("medians: offset {offset} ns, path delay {delay} ns");
    assert!(offset < CLOSE, "{measured:?}");
    for one in &measured {
        assert_eq!(one.state, "s2", "{one:?}");
        assert!(one.delay > 0.0, "{one:?}");
    }
    Ok(())
}

/// The system's clock of the client follows that of its NIC.
fn phc2sys(client: &Guest) -> Result<()> {
    let servo = client.spawn(&format!("exec phc2sys -s {NIC} -c CLOCK_REALTIME -O 0 -R 8 -m"))?;
    let measured = measure(&servo)?;
    let offset = median(measured.iter().map(|one| one.offset.abs()));
    eprintln!("median offset {offset} ns");
    assert!(offset < CLOSE, "{measured:?}");
    servo.kill(TERM);
    servo.wait(LINE).map(drop)
}

/// A clock that is read between two readings of another shows a time between theirs.
fn same_time(fixture: &Fixture) -> Result<()> {
    let (server, client) = (fixture.guest(0), fixture.guest(1));
    let readings = [nic_time(server)?, nic_time(client)?, nic_time(server)?];
    assert!(readings.is_sorted(), "{readings:?}");
    let readings = [nic_time(client)?, system_time(client)?, nic_time(client)?];
    assert!(readings.is_sorted(), "{readings:?}");
    Ok(())
}

/// Reads the clock of a guest's NIC, in seconds.
fn nic_time(guest: &Guest) -> Result<f64> {
    let shown = guest.run(&format!("phc_ctl {NIC} get"))?.check()?;
    let (_, time) = shown.stdout.split_once("clock time is ").expect("a time");
    Ok(time
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .parse()
        .expect("seconds"))
}

fn system_time(guest: &Guest) -> Result<f64> {
    let shown = guest.run("date +%s.%N")?.check()?;
    Ok(shown.text().parse().expect("seconds"))
}
