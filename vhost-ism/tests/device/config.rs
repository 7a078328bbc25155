//! Configuration space and shared memory configuration.

use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost_ism::abi::*;
use vhost_ism::doorbell::DoorbellArea;
use vhost_ism::fabric::Limits;
use zerocopy::IntoBytes;

use crate::common::*;

// Draft: Configuration: gid; Configuration: chunk_size; Configuration: notify_size
#[test]
fn the_fields_say_what_the_fabric_is() {
    let host = Host::new(Limits {
        max_dmbs: 77,
        ..limits()
    });
    let guest = host.boot("a");
    let config = guest.config;
    let window = host.fabric.limits().window_size;
    assert_eq!(config.gid.get(), host.fabric.id());
    assert_eq!(config.chunk_size.get(), CHUNK_SIZE);
    assert_eq!(config.notify_size.get(), NOTIFY_SIZE);
    assert_eq!(config.magic.as_bytes(), b"VISM");
    assert_eq!(config.version.get(), VERSION);
    assert_eq!(config.chid.get(), 0xff42);
    assert_eq!(config.features.get(), F_PEER | F_AWAKE | F_BELLS);
    assert_eq!(config.max_dmbs.get(), 77);
    assert_eq!(config.window_size.get(), window);
    assert!(config.window_size.get().is_multiple_of(2 << 20));
    assert_eq!(config.doorbell_offset.get(), window);
    assert_eq!(config.doorbell_size.get(), DoorbellArea::len_for(window));
    assert_eq!(config.max_dmb_size.get(), host.fabric.limits().max_dmb_size);
    assert!(config.max_dmb_size.get().is_power_of_two());
    let (first, second) = config.dmb_gid.0.split_at(8);
    assert!(first != [0; 8] && second != [0; 8], "{}", config.dmb_gid);
}

// Draft: Shared memory: REGIONS
#[test]
fn the_region_holds_window_and_doorbells() {
    let host = Host::default();
    let mut guest = host.boot("a");
    let shmem = guest.frontend.get_shmem_config().unwrap();
    let size = shmem.memory_sizes[SHMID_REGIONS as usize];
    assert!(size.is_power_of_two(), "a PCI BAR is a power of two");
    let config = guest.config;
    assert!(config.doorbell_offset.get() + config.doorbell_size.get() <= size);
    // One byte per chunk of the window.
    let bytes = config.window_size.get() / CHUNK_SIZE * NOTIFY_SIZE;
    assert!(config.doorbell_size.get() >= DOORBELL_BYTES + bytes);
}

// Draft: Configuration: gid; Configuration: devid
#[test]
fn guests_share_the_fabric_and_nothing_else() {
    let host = Host::default();
    let (a, b) = (host.boot("a"), host.boot("b"));
    assert_eq!(a.config.gid, b.config.gid);
    assert_ne!(a.gid(), b.gid());
    assert_ne!(a.devid(), b.devid());
    let other = Host::default().boot("a");
    assert_ne!(a.config.gid, other.config.gid);
}

#[test]
fn any_part_can_be_read() {
    let host = Host::default();
    let mut guest = host.boot("a");
    let whole = guest.config.as_bytes().to_vec();
    let mut read = |offset: usize, len: usize| {
        let (_, bytes) = guest
            .frontend
            .get_config(offset as u32, len as u32, VhostUserConfigFlags::empty(), &vec![0; len])
            .unwrap();
        bytes
    };
    for offset in 0..whole.len() + 8 {
        for len in [1, 2, 3, 4, 7, 8, 16] {
            let expected: Vec<u8> = (offset..offset + len)
                .map(|at| whole.get(at).copied().unwrap_or(0))
                .collect();
            assert_eq!(read(offset, len), expected, "{len} bytes at {offset}");
        }
    }
    assert_eq!(read(4095, 1), [0]);
    assert_eq!(read(0, 256)[..96], whole);
    assert_eq!(read(96, 4000), vec![0; 4000]);
}

#[test]
fn nobody_can_write_it() {
    let host = Host::default();
    let mut guest = host.boot("a");
    let before = guest.config;
    // Refused or ignored.
    let _ = guest
        .frontend
        .set_config(0, VhostUserConfigFlags::WRITABLE, &[0xff; 96]);
    assert_eq!(guest::read_config(&mut guest.frontend), before);
    guest.ping();
}
