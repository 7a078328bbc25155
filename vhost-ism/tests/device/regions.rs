//! The draft's layout: a region for the window, and one for the doorbells.

use vhost::vhost_user::VhostUserFrontend;
use vhost_ism::abi::*;
use vhost_ism::fabric::{Layout, Limits, Mode};
use vhost_ism::guest::DOORBELL_TAIL;

use super::replay::equal;
use crate::common::*;

fn two_regions() -> Limits {
    Limits {
        layout: Layout::TwoRegions,
        ..limits()
    }
}

// Draft: Shared memory: REGIONS; Shared memory: NOTIFY
#[test]
fn window_and_doorbells_have_a_region_each() {
    let host = Host::new(two_regions());
    let mut guest = host.boot("a");
    let (config, window) = (guest.config, limits().window_size);
    assert_eq!(config.features.get(), F_PEER | F_AWAKE | F_BELLS | F_NOTIFY);
    assert_eq!(config.window_size.get(), window);
    assert_eq!(config.doorbell_offset.get(), 0);
    let bytes = window / CHUNK_SIZE * NOTIFY_SIZE;
    assert_eq!(config.doorbell_size.get(), bytes.next_multiple_of(4096) + DOORBELL_PAGE);
    let shmem = guest.frontend.get_shmem_config().unwrap();
    let sizes = [SHMID_REGIONS, SHMID_NOTIFY].map(|shmid| shmem.memory_sizes[shmid as usize]);
    assert_eq!((shmem.nregions, sizes), (2, [window, DOORBELL_TAIL]));
    assert!(guest.window.has_doorbell());
}

/// The notify byte of the draft: `offset / chunk_size * notify_size` in region 2.
// Draft: Shared memory: NOTIFY; Notification
#[test]
fn a_byte_of_region_2_rings() {
    let host = Host::new(two_regions());
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let all = u64::from(PERM_READ | PERM_WRITE | PERM_ATTACH);
    let dmbs = [(); 3].map(|()| {
        let dmb = a.alloc(1 << 16).unwrap();
        a.grant(dmb.token, None, all).unwrap();
        dmb
    });
    // The windows differ.
    b.alloc(1).unwrap();
    let region_2 = b.config.window_size.get();
    for (round, dmb) in dmbs.iter().enumerate() {
        let attached = b.attach(dmb.token).unwrap();
        assert_ne!(attached.offset, dmb.offset);
        let bytes: Vec<u8> = (0..1 << 16)
            .map(|at: u32| ((at * 31) >> 3) as u8 ^ round as u8)
            .collect();
        b.window.write(attached.offset, &bytes);
        let at = attached.offset / b.config.chunk_size.get() * b.config.notify_size.get();
        b.window.write(region_2 + at, &[1]);
        b.doorbell.notify();
        assert_eq!(
            a.expect_event(),
            Event::Doorbells(vec![(dmb.offset / CHUNK_SIZE) as u32])
        );
        assert!(a.window.read(dmb.offset, 1 << 16) == bytes);
        eventually("the device clears it", || b.window.read(region_2 + at, 1) == [0]);
    }
    eventually("the awake word is cleared", || b.window.awake() == 0);
    // It lies behind the bytes: a byte where it is in the other layout rings no more than another.
    b.window.write(region_2, &[1]);
    b.doorbell.notify();
    a.expect_silence();
}

#[test]
fn pairs_bells_and_moves_are_as_in_one_region() {
    for mode in [Mode::Mapped, Mode::Copy] {
        let host = Host::recorded_with(&["a", "b"], Limits { mode, ..two_regions() });
        let (mut a, mut b) = (host.boot("a"), host.boot("b"));
        let dmb = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
        let chunk = (dmb.offset / CHUNK_SIZE) as u32;
        for round in 0..3u8 {
            match mode {
                Mode::Mapped => {
                    let attached = b.attach(dmb.token).unwrap();
                    b.window.write(attached.offset, &[round + 1; 4000]);
                    b.ring(attached.offset);
                    assert_eq!(a.expect_event(), Event::Doorbells(vec![chunk]));
                    b.detach(dmb.token).unwrap();
                }
                Mode::Copy => {
                    assert_eq!(b.move_data(dmb.token, 0, &[round + 1; 4000], true), Status::Ok);
                    assert_eq!(a.expect_event(), Event::Doorbells(vec![chunk]));
                }
            }
            assert_eq!(a.window.read(dmb.offset, 4000), [round + 1; 4000]);
        }
        let gid = a.gid();
        a.reset();
        assert_eq!(b.expect_event(), Event::PeerGone(gid));
        drop((a, b));
        host.expect_empty();
        equal(&host.finish_record());
    }
}
