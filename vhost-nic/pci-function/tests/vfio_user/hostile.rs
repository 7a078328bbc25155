//! Clients that are hostile or die: only their own connection ends.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::client::*;
use crate::host::{Host, PANIC};

const EINVAL: u32 = 22;
const EMFILE: u32 = 24;

/// Asserts that a new client finds everything as the first one did.
fn assert_serves(host: &Host) {
    let mut client = host.driver();
    assert_eq!(client.read(CONFIG, 0, 2), Ok(vec![0xb3, 0x15]));
    assert_eq!(client.read(BAR0, 5, 1), Ok(vec![5]));
}

#[test]
fn a_size_that_cannot_be_ends_the_connection() {
    let host = Host::new();
    for size in [0, 1, 15, 65569, 1 << 20, u32::MAX] {
        let mut client = host.client();
        let mut bytes = message(1, REGION_READ, 0, &access(BAR0, 0, 4, &[]));
        bytes[4..8].copy_from_slice(&u32::to_ne_bytes(size));
        client.send_raw(&bytes, &[]);
        assert!(client.is_closed(), "{size}");
    }
    assert_eq!(host.server.stats().broken_connections, 6);
    assert_serves(&host);
}

#[test]
fn the_longest_message_is_served() {
    let host = Host::new();
    let mut client = host.driver();
    let data: Vec<u8> = (0..65536_u32).map(|n| (n >> 3) as u8).collect();
    client.write(BAR0, 0x8_0000, &data).unwrap();
    client.post(REGION_WRITE, &access(BAR0, 0x9_0000, 65536, &data));
    client.read(BAR0, 0, 1).unwrap();
    assert_eq!(host.writes(), [(0x8_0000, data.clone()), (0x9_0000, data)]);
    assert_eq!(
        client.call(REGION_WRITE, &access(BAR0, 0, 65537, &[0; 65536])),
        Err(EINVAL)
    );
}

#[test]
fn messages_in_pieces_are_put_together() {
    let host = Host::new();
    let mut client = host.driver();
    let bytes = [
        message(7, REGION_WRITE, NO_REPLY, &access(BAR0, 0x1_0000, 4, &[1, 2, 3, 4])),
        message(8, REGION_READ, 0, &access(BAR0, 0x30, 4, &[])),
    ]
    .concat();
    for byte in bytes {
        client.stream.write_all(&[byte]).unwrap();
        std::thread::yield_now();
    }
    assert_eq!(client.reply(8, REGION_READ).unwrap()[16..], [0x30, 0x31, 0x32, 0x33]);
    assert_eq!(host.writes(), [(0x1_0000, vec![1, 2, 3, 4])]);
}

#[test]
fn a_client_that_dies_in_the_middle_leaves_the_server_alone() {
    let host = Host::new();
    let whole = message(1, REGION_WRITE, NO_REPLY, &access(BAR0, 0, 8, &[9; 8]));
    for length in 1..whole.len() {
        let mut client = host.client();
        client.send_raw(&whole[..length], &[]);
    }
    assert_eq!(host.writes(), []);
    assert_serves(&host);
    assert_eq!(host.server.stats().broken_connections, whole.len() as u64 - 1);
}

#[test]
fn a_client_that_takes_no_answers_ends_only_itself() {
    let host = Host::new();
    let mut client = host.driver();
    let read = message(1, REGION_READ, 0, &access(BAR0, 0x1_0000, 65536, &[]));
    client
        .stream
        .set_write_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    while client.stream.write_all(&read).is_ok() {}
    drop(client);
    assert_serves(&host);
}

#[test]
fn who_does_not_begin_with_a_version_is_sent_away() {
    let host = Host::new();
    for (command, payload) in [
        (GET_INFO, words(&[16, 0, 0, 0])),
        (RESET, vec![]),
        (999, vec![1; 64]),
        (VERSION, vec![]),
        (VERSION, vec![0, 0, 0]),
        (VERSION, version(0, 0, "{")),
        (VERSION, version(0, 0, r#"{"capabilities": 7}"#)),
        (VERSION, version(0, 0, r#"{"capabilities": {"write_multiple": "yes"}}"#)),
        (VERSION, version(0, 0, &"[".repeat(60_000))),
        (VERSION, [version(0, 0, ""), vec![0xff, 0]].concat()),
    ] {
        let mut client = host.stranger();
        assert_eq!(client.call(command, &payload), Err(EINVAL));
        assert!(client.is_closed());
    }
    let mut client = host.stranger();
    assert!(client.call(VERSION, &version(1, 0, QEMU_PROPOSAL)).is_err());
    assert!(client.is_closed());
    assert_serves(&host);
}

#[test]
fn more_descriptors_than_agreed_on_are_refused_and_closed() {
    let host = Host::new();
    let mut client = host.client();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    for count in [17, 64, 253] {
        let fds = vec![theirs.as_fd(); count];
        let reply = client.call_with(SET_IRQS, &words(&[20, 0x24, 2, 0, count as u32]), &fds);
        assert_eq!(reply, Err(EMFILE));
    }
    let fds = vec![theirs.as_fd(); 5];
    for command in [DMA_MAP, REGION_READ, RESET, 999] {
        let _ = client.call_with(command, &[0; 32], &fds);
    }
    client.call(RESET, &[]).unwrap();
    drop(theirs);
    // No other process has the other end any more.
    let mut end = Client::new(ours);
    assert!(end.is_closed());
}

#[test]
fn descriptors_with_every_byte_of_a_message_do_not_pile_up() {
    let host = Host::new();
    let mut client = host.client();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let bytes = message(1, SET_IRQS, 0, &words(&[20, 0x24, 2, 0, 16]));
    let (last, rest) = bytes.split_last().unwrap();
    for byte in rest {
        client.send_raw(&[*byte], &[theirs.as_fd(); 16]);
    }
    // Other tests have their descriptors, but not as many.
    std::thread::sleep(Duration::from_millis(100));
    assert!(open() < before + 16 * rest.len() / 2);
    client.send_raw(&[*last], &[]);
    assert_eq!(client.reply(1, SET_IRQS), Err(EMFILE));
    drop(theirs);
    assert!(Client::new(ours).is_closed());
}

#[test]
fn a_panic_in_the_device_costs_that_connection() {
    let host = Host::new();
    let mut client = host.driver();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    client.send(REGION_READ, 0, &access(BAR0, PANIC, 4, &[]), &[]);
    assert!(client.is_closed());
    std::panic::set_hook(hook);
    host.wait_for("the device is reset", |host| *host.device.resets.lock().unwrap() == 1);
    assert_serves(&host);
}
