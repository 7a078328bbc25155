//! Data over SMC-D: every buffer size, both directions, many connections, two and three guests.

use std::thread;
use std::time::Instant;

use guest_harness::Result;

use crate::fixture::{Fixture, Kernel, PORT, Setup};
use crate::server::Server;

const K: u64 = 1024;

/// Bytes of a buffer reserved for the CDC message.
const CDC: u64 = 32;

/// Buffer sizes of SMC.
const CLASSES: [u64; 7] = [16 * K, 32 * K, 64 * K, 128 * K, 256 * K, 512 * K, 1024 * K];

#[test]
fn two_guests() -> Result<()> {
    let fixture = Setup::new("smcd", 2).start()?;
    let before = fixture.daemon_stats()?;
    step("bulk", || bulk(&fixture, "100M"))?;
    step("buffer sizes", || buffer_sizes(&fixture, "2M"))?;
    step("many connections", || many_connections(&fixture, 200))?;
    step("others", || ipv6_rtt_and_messages(&fixture))?;
    fixture.assert_daemon_saw(
        &before,
        &[0, 1],
        &["attaches", "detaches", "kicks", "doorbells", "rings", "events"],
    )?;
    fixture.finish()
}

/// The mode in which the kernel copies from separate send buffers.
#[test]
fn two_guests_copying() -> Result<()> {
    copying("copy", "8M", &CLASSES[..1])
}

#[test]
#[ignore = "long: the copy mode with all sizes"]
fn two_guests_copying_much() -> Result<()> {
    copying("copy-long", "100M", &CLASSES)
}

fn copying(name: &'static str, bytes: &str, classes: &[u64]) -> Result<()> {
    let fixture = Setup::new(name, 2).driver_arg("copy=1").start()?;
    let before = fixture.daemon_stats()?;
    step("bulk", || bulk(&fixture, bytes))?;
    for &class in classes {
        buffer_size(&fixture, class, "1M")?;
    }
    let report = fixture.call(0, 1, "rtt --count 50 --warmup 0")?;
    let buffers = &report["connection"]["socket"]["buffers"];
    assert_ne!(buffers["send"], 0, "no separate send buffer in {report}");
    many_connections(&fixture, 20)?;
    fixture.assert_daemon_saw(&before, &[0, 1], &["attaches", "doorbells", "rings"])?;
    fixture.finish()
}

#[test]
fn three_guests_in_pairs() -> Result<()> {
    pairs(Setup::new("pairs", 3), "100M", &["attaches", "rings"])
}

#[test]
#[ignore = "long: the debug kernel"]
fn debug_two_guests() -> Result<()> {
    let fixture = Setup::new("debug-smcd", 2).kernel(Kernel::Debug).start()?;
    let before = fixture.daemon_stats()?;
    step("bulk", || bulk(&fixture, "8M"))?;
    step("buffer sizes", || buffer_sizes(&fixture, "1M"))?;
    step("many connections", || many_connections(&fixture, 50))?;
    step("others", || ipv6_rtt_and_messages(&fixture))?;
    fixture.assert_daemon_saw(&before, &[0, 1], &["attaches", "doorbells", "rings"])?;
    fixture.finish()
}

#[test]
#[ignore = "long: the debug kernel"]
fn debug_two_guests_copying() -> Result<()> {
    let setup = Setup::new("debug-copy", 2).kernel(Kernel::Debug).driver_arg("copy=1");
    let fixture = setup.start()?;
    bulk(&fixture, "4M")?;
    many_connections(&fixture, 10)?;
    fixture.finish()
}

#[test]
#[ignore = "long: the debug kernel"]
fn debug_three_guests_in_pairs() -> Result<()> {
    pairs(
        Setup::new("debug-pairs", 3).kernel(Kernel::Debug),
        "8M",
        &["attaches", "rings"],
    )
}

#[test]
#[ignore = "long: 500 MiB each way"]
fn three_guests_in_pairs_for_long() -> Result<()> {
    pairs(Setup::new("pairs-long", 3), "500M", &["attaches", "rings"])
}

/// Runs a step and prints its duration.
pub fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    let begin = Instant::now();
    run()?;
    eprintln!("{name}: {:.1} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Transfers data in each direction and in both at once; the digests at both ends must match.
pub fn bulk(fixture: &Fixture, bytes: &str) -> Result<()> {
    for (from, to) in [(0, 1), (1, 0)] {
        for direction in ["to", "from", "both"] {
            // Symmetric: one client is enough.
            if direction == "both" && from == 1 {
                continue;
            }
            let seed = from + 10;
            let report = fixture.call(
                from,
                to,
                &format!("bulk --bytes {bytes} --direction {direction} --check hash --seed {seed}"),
            )?;
            for digest in ["to", "from"] {
                let expected = direction == digest || direction == "both";
                assert_eq!(report[format!("digest_{digest}")].is_string(), expected, "{report}");
            }
            eprintln!(
                "bulk {from}-{to} {direction}: {:.1} MB/s",
                report["megabytes_per_second"].as_f64().unwrap_or_default()
            );
        }
    }
    Ok(())
}

fn buffer_sizes(fixture: &Fixture, bytes: &str) -> Result<()> {
    CLASSES.iter().try_for_each(|&class| buffer_size(fixture, class, bytes))
}

/// Transfers data through buffers of this size at both ends, as reported by both kernels.
pub fn buffer_size(fixture: &Fixture, class: u64, bytes: &str) -> Result<()> {
    let port = 6000;
    let server = Server::start(
        fixture.guest(1),
        port,
        &format!("--rcvbuf {class}"),
        fixture.seconds(10),
    )?;
    let address = fixture.guest(1).addr(0).into();
    let workload = format!("bulk --bytes {bytes} --direction both --check hash --write-size 1000K --rcvbuf {class}");
    let report = fixture.call_at(0, 1, (address, port), &workload)?;
    let buffers = &report["connection"]["socket"]["buffers"];
    for side in ["receive", "peer_receive"] {
        assert_eq!(buffers[side], class - CDC, "{side} buffer of {class}: {buffers}");
    }
    server.stop(fixture.seconds(20))
}

/// Opens connections in parallel, all with the same peer and so in one link group.
pub fn many_connections(fixture: &Fixture, count: u64) -> Result<()> {
    // The kernel gives a handshake six seconds, and the debug kernel is slow.
    let parallel = if fixture.kernel() == Kernel::Debug { 2 } else { 8 };
    let options = format!("--count {count} --open-parallel {parallel} --bytes-each 64K");
    let report = fixture.call(0, 1, &format!("connections {options}"))?;
    assert_eq!(report["connections"], count, "{report}");
    eprintln!(
        "{count} connections: {:.1} s to open, {:.1} s to exchange",
        report["open_seconds"].as_f64().unwrap_or_default(),
        report["exchange_seconds"].as_f64().unwrap_or_default()
    );
    let groups = report["link_groups"].as_object().expect("link groups");
    let members: u64 = groups.values().filter_map(|members| members.as_u64()).sum();
    assert_eq!(members, count, "{report}");
    Ok(())
}

pub fn ipv6_rtt_and_messages(fixture: &Fixture) -> Result<()> {
    let v6 = fixture.guest(1).addr_v6(0).into();
    fixture.call_at(0, 1, (v6, PORT), "bulk --bytes 1M --direction both --check hash")?;
    for (from, to) in [(0, 1), (1, 0)] {
        let report = fixture.call(from, to, "rtt --count 300")?;
        eprintln!(
            "round trip {from}-{to}: p50 {} us, p99 {} us",
            report["p50_us"], report["p99_us"]
        );
        // Not a multiple of any buffer or page size.
        fixture.call(from, to, "rtt --count 50 --size 17777")?;
        fixture.call(from, to, "messages --seconds 1")?;
    }
    Ok(())
}

/// Every pair of three guests exchanges data at the same time; these counters of the daemon grow.
pub fn pairs(setup: Setup, bytes: &str, counters: &[&str]) -> Result<()> {
    let fixture = setup.start()?;
    let before = fixture.daemon_stats()?;
    let begin = Instant::now();
    thread::scope(|scope| {
        let threads = [(0, 1), (1, 2), (2, 0)].map(|(from, to)| {
            let fixture = &fixture;
            let workload = format!(
                "bulk --bytes {bytes} --direction both --check hash --seed {}",
                20 + from
            );
            scope.spawn(move || fixture.call(from, to, &workload).map(drop))
        });
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    eprintln!("{bytes} each way in every pair: {:.1} s", begin.elapsed().as_secs_f64());
    fixture.assert_daemon_saw(&before, &[0, 1, 2], counters)?;
    let slabs = fixture.daemon_stats()?["fabric"]["slabs"].as_u64();
    assert!(
        slabs >= Some(3),
        "each pair or guest must have its own memory: {slabs:?} slabs"
    );
    fixture.finish()
}
