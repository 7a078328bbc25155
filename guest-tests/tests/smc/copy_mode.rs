//! Copy mode of the device: SMC-D between guests that share no memory.

use std::collections::BTreeSet;
use std::fs;

use guest_harness::Result;
use serde_json::Value;

use crate::fixture::{Fixture, Kernel, Setup};
use crate::smcd::{buffer_size, bulk, ipv6_rtt_and_messages, many_connections, pairs, step};

/// Length of the control message of SMC.
const CDC: u64 = 32;

#[test]
fn two_guests_that_share_no_memory() -> Result<()> {
    let fixture = Setup::new("copy-mode", 2).daemon_args(["--copy"]).start()?;
    check(&fixture, "16M", &[16 << 10, 1 << 20])?;
    fixture.finish()
}

#[test]
fn three_guests_that_share_no_memory() -> Result<()> {
    pairs(
        Setup::new("copy-mode-pairs", 3).daemon_args(["--copy"]),
        "16M",
        &["moves", "moved_bytes"],
    )
}

#[test]
#[ignore = "long: the debug kernel"]
fn debug_two_guests_that_share_no_memory() -> Result<()> {
    let setup = Setup::new("debug-copy-mode", 2).kernel(Kernel::Debug);
    let fixture = setup.daemon_args(["--copy"]).start()?;
    check(&fixture, "4M", &[16 << 10])?;
    fixture.finish()
}

fn check(fixture: &Fixture, bytes: &str, classes: &[u64]) -> Result<()> {
    for index in 0..2 {
        let stats = fixture
            .guest(index)
            .run("cat /sys/kernel/debug/virtio_ism/*/stats")?
            .check()?;
        assert!(stats.text().lines().any(|line| line == "mode: copy"), "{stats}");
    }
    let report = fixture.call(0, 1, "rtt --count 50 --warmup 0")?;
    let buffers = &report["connection"]["socket"]["buffers"];
    assert_ne!(buffers["send"], 0, "no separate send buffer in {report}");
    let before = fixture.daemon_stats()?;
    // Every payload byte is moved once, and with it at least one control message.
    let payload = 1 << 20;
    fixture.call(0, 1, "bulk --bytes 1M --direction to --check hash")?;
    let moved = counter(&fixture.daemon_stats()?, 0, "moved_bytes") - counter(&before, 0, "moved_bytes");
    let moves = counter(&fixture.daemon_stats()?, 0, "moves") - counter(&before, 0, "moves");
    assert!(
        (payload + CDC..=payload + moves * CDC + 4096).contains(&moved),
        "{moved} bytes in {moves} moves for {payload} bytes of payload"
    );
    step("bulk", || bulk(fixture, bytes))?;
    for &class in classes {
        buffer_size(fixture, class, "1M")?;
    }
    step("many connections", || many_connections(fixture, 50))?;
    step("others", || ipv6_rtt_and_messages(fixture))?;
    let stats = fixture.daemon_stats()?;
    for guest in 0..2 {
        for unused in ["attaches", "doorbells", "refusals"] {
            assert_eq!(counter(&stats, guest, unused), 0, "{unused} of guest {guest}");
        }
    }
    Ok(())
}

fn counter(stats: &Value, guest: usize, name: &str) -> u64 {
    stats["guests"][guest][name].as_u64().expect("a counter")
}

#[test]
fn no_page_of_a_guest_is_mapped_in_the_vmm_of_another() -> Result<()> {
    let fixture = Setup::new("copy-mode-maps", 2).daemon_args(["--copy"]).start()?;
    fixture.call(0, 1, "bulk --bytes 1M --direction both --check hash")?;
    let (a, b) = (files(&fixture, 0), files(&fixture, 1));
    // RAM, doorbell area, slab.
    for own in [&a, &b] {
        assert_eq!(own.iter().filter(|file| file.is_slab).count(), 1, "{own:?}");
        assert!(own.len() >= 3, "{own:?}");
    }
    assert_eq!(a.intersection(&b).count(), 0, "mapped in both: {a:?}, {b:?}");
    fixture.finish()
}

/// Shows that [`files`] finds a common mapping where there is one.
#[test]
fn in_mapped_mode_both_vmms_map_the_slab_of_a_pair() -> Result<()> {
    let fixture = Setup::new("mapped-mode-maps", 2).start()?;
    fixture.call(0, 1, "bulk --bytes 1M --direction both --check hash")?;
    let (a, b) = (files(&fixture, 0), files(&fixture, 1));
    let common: Vec<_> = a.intersection(&b).collect();
    assert_eq!(common.len(), 1, "mapped in both: {a:?}, {b:?}");
    assert!(common[0].is_slab, "{common:?}");
    fixture.finish()
}

/// A file that a process has mapped for writing, and other processes can map as well.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SharedFile {
    device: String,
    inode: u64,
    is_slab: bool,
}

/// Returns the files that the VMM of a guest has mapped shared and writable (proc_pid_maps(5)).
fn files(fixture: &Fixture, index: usize) -> BTreeSet<SharedFile> {
    let path = format!("/proc/{}/maps", fixture.guest(index).process().expect("a VMM").pid());
    let maps = fs::read_to_string(&path).expect("the mappings of a VMM");
    let file = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let permissions = fields.nth(1)?;
        let device = fields.nth(1)?.to_owned();
        let inode = fields.next()?.parse().ok().filter(|inode| *inode != 0)?;
        let is_slab = fields.next()?.starts_with("/memfd:vhost-ism-slab");
        let is_shared = permissions.starts_with("rw") && permissions.ends_with('s');
        is_shared.then_some(SharedFile { device, inode, is_slab })
    };
    maps.lines().filter_map(file).collect()
}
