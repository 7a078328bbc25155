//! Reply and effect of each message.

use crate::client::*;
use crate::host::Host;

const EINVAL: u32 = 22;
const ENOTSUP: u32 = 95;

#[test]
fn the_version_is_answered_with_zero_and_our_limits() {
    let host = Host::new();
    let reply = host.stranger().negotiate();
    assert_eq!(reply[..4], [0, 0, 0, 0]);
    let text = std::str::from_utf8(&reply[4..]).unwrap().strip_suffix('\0').unwrap();
    let answer: serde_json::Value = serde_json::from_str(text).unwrap();
    let expected = serde_json::json!({"capabilities": {
        "max_msg_fds": 16, "max_dma_maps": 65535, "max_data_xfer_size": 65536, "pgsizes": 4096, "write_multiple": true,
    }});
    assert_eq!(answer, expected);
}

#[test]
fn a_client_that_proposes_little_is_not_offered_more() {
    let host = Host::new();
    for payload in [
        vec![0, 0, 0, 0],
        vec![0, 0, 1, 0],
        version(0, 1, r#"{"capabilities":{"max_msg_fds":1}}"#),
        version(0, 0, r#"{"capabilities":{},"more":[1,{"a":null}]}"#),
    ] {
        let reply = host.stranger().call(VERSION, &payload).unwrap();
        assert_eq!(reply[..4], [0, 0, 0, 0]);
        let text = std::str::from_utf8(&reply[4..]).unwrap();
        assert!(!text.contains("write_multiple"), "{text}");
    }
}

#[test]
fn the_device_is_a_pci_device_with_reset_nine_regions_and_five_interrupts() {
    let host = Host::new();
    let reply = host.client().call(GET_INFO, &words(&[16, 0, 0, 0]));
    assert_eq!(reply, Ok(words(&[16, 3, 9, 5])));
}

#[test]
fn bar_zero_and_the_configuration_space_are_the_only_regions() {
    let host = Host::new();
    let mut client = host.client();
    for index in 0..9 {
        let request = [words(&[32, 0, index, 0]), longs(&[0, 0])].concat();
        let (flags, size) = match index {
            BAR0 => (3, 16 << 20),
            CONFIG => (3, 4096),
            _ => (0, 0),
        };
        let expected = [words(&[32, flags, index, 0]), longs(&[size, 0])].concat();
        assert_eq!(client.call(GET_REGION_INFO, &request), Ok(expected));
    }
    let request = [words(&[32, 0, 9, 0]), longs(&[0, 0])].concat();
    assert_eq!(client.call(GET_REGION_INFO, &request), Err(EINVAL));
}

#[test]
fn msix_has_its_vectors_and_notifications_have_one() {
    let host = Host::new();
    let mut client = host.client();
    for (index, count) in [(0, 0), (1, 0), (2, 32), (3, 1), (4, 1)] {
        let reply = client.call(GET_IRQ_INFO, &words(&[16, 0, index, 0]));
        assert_eq!(reply, Ok(words(&[16, 1, index, count])));
    }
    assert_eq!(client.call(GET_IRQ_INFO, &words(&[16, 0, 5, 0])), Err(EINVAL));
}

#[test]
fn the_configuration_space_is_read_and_written() {
    let host = Host::new();
    let mut client = host.client();
    let whole = client.read(CONFIG, 0, 4096).unwrap();
    assert_eq!(whole[..4], [0xb3, 0x15, 0x17, 0x10]);
    assert_eq!(client.write(CONFIG, 4, &[0xff, 0xff]), Ok(access(CONFIG, 4, 2, &[])));
    assert_eq!(client.read(CONFIG, 4, 2), Ok(vec![0x46, 0x05]));
    assert!(host.parts.bus_master.enabled());
    assert_eq!(client.read(CONFIG, 4095, 1).unwrap(), whole[4095..]);
    assert_eq!(client.read(CONFIG, 4095, 2), Err(EINVAL));
}

#[test]
fn the_bar_is_read_and_written_in_every_width() {
    let host = Host::new();
    let mut client = host.driver();
    for length in 1..=16 {
        let data: Vec<u8> = (0..length).map(|n| 0xa0 + n as u8).collect();
        client.write(BAR0, 0x1_0800, &data).unwrap();
        assert_eq!(host.writes(), [(0x1_0800, data)]);
        let expected: Vec<u8> = (0..length).map(|n| 0xfd_u8.wrapping_add(n as u8)).collect();
        assert_eq!(client.read(BAR0, 0x7fd, length), Ok(expected));
    }
    assert_eq!(client.read(BAR0, (16 << 20) - 1, 1), Ok(vec![0xff]));
    assert_eq!(client.read(BAR0, 0x4000, 65536).unwrap().len(), 65536);
}

#[test]
fn posted_writes_are_done_in_order_and_never_answered() {
    let host = Host::new();
    let mut client = host.driver();
    for n in 0..1000_u64 {
        client.post(REGION_WRITE, &access(BAR0, 0x1_0000 + n * 8, 8, &n.to_ne_bytes()));
    }
    // The next answer there is belongs to this, and comes after all of them.
    client.read(BAR0, 0, 4).unwrap();
    let expected: Vec<_> = (0..1000_u64)
        .map(|n| (0x1_0000 + n * 8, n.to_ne_bytes().to_vec()))
        .collect();
    assert_eq!(host.writes(), expected);
}

#[test]
fn posted_commands_that_fail_are_not_answered_either() {
    let host = Host::new();
    let mut client = host.driver();
    client.post(REGION_WRITE, &access(BAR0, 16 << 20, 4, &[1; 4]));
    client.post(REGION_WRITE, &access(BAR0, u64::MAX, 4, &[1; 4]));
    client.post(REGION_WRITE, &access(9, 0, 4, &[1; 4]));
    client.post(REGION_WRITE, &access(1, 0, 4, &[1; 4]));
    client.post(REGION_WRITE, &access(BAR0, 0, 4, &[1; 3]));
    client.post(REGION_WRITE, &[1, 2, 3]);
    client.post(REGION_READ, &access(BAR0, 0, 4, &[]));
    client.post(GET_INFO, &words(&[16, 0, 0, 0]));
    client.post(0xffff, &[7; 100]);
    assert_eq!(client.read(BAR0, 4, 1), Ok(vec![4]));
    assert_eq!(host.writes(), []);
    assert_eq!(host.server.stats().errors, 7);
}

#[test]
fn accesses_that_cannot_be_are_refused() {
    let host = Host::new();
    let mut client = host.driver();
    for region in [1, 6, 8, 9, u32::MAX] {
        assert_eq!(client.read(region, 0, 4), Err(EINVAL));
        assert_eq!(client.write(region, 0, &[0; 4]), Err(EINVAL));
    }
    assert_eq!(client.read(BAR0, (16 << 20) - 3, 4), Err(EINVAL));
    assert_eq!(client.read(BAR0, u64::MAX - 1, 4), Err(EINVAL));
    assert_eq!(client.read(BAR0, 0, 65537), Err(EINVAL));
    assert_eq!(client.read(BAR0, 0, u32::MAX), Err(EINVAL));
    assert_eq!(client.call(REGION_WRITE, &access(BAR0, 0, 8, &[0; 7])), Err(EINVAL));
    assert_eq!(host.writes(), []);
}

#[test]
fn several_writes_come_in_one_message() {
    let host = Host::new();
    let mut client = host.driver();
    let single = |region, offset, count, data: [u8; 8]| access(region, offset, count, &data);
    let payload = [
        longs(&[3]),
        single(BAR0, 0x1_0000, 4, [1, 2, 3, 4, 5, 6, 7, 8]),
        single(BAR0, 0x1_0008, 8, [9; 8]),
        single(CONFIG, 0x3c, 1, [0x55; 8]),
    ]
    .concat();
    client.post(WRITE_MULTI, &payload);
    assert_eq!(client.read(CONFIG, 0x3c, 2), Ok(vec![0x55, 0]));
    assert_eq!(host.writes(), [(0x1_0000, vec![1, 2, 3, 4]), (0x1_0008, vec![9; 8])]);
}

#[test]
fn of_several_writes_those_that_are_possible_are_done() {
    let host = Host::new();
    let mut client = host.driver();
    let single = |offset, count| access(BAR0, offset, count, &[1; 8]);
    let payload = [longs(&[3]), single(16 << 20, 4), single(0, 9), single(8, 2)].concat();
    assert_eq!(client.call(WRITE_MULTI, &payload), Err(EINVAL));
    assert_eq!(host.writes(), [(8, vec![1, 1])]);
    for count in [4, u64::MAX, u64::MAX / 24 + 1] {
        let payload = [longs(&[count]), single(8, 2)].concat();
        assert_eq!(client.call(WRITE_MULTI, &payload), Err(EINVAL));
    }
    assert_eq!(host.writes(), []);
}

#[test]
fn reset_brings_function_and_device_back() {
    let host = Host::new();
    let mut client = host.driver();
    assert_eq!(client.call(RESET, &[]), Ok(vec![]));
    assert_eq!(*host.device.resets.lock().unwrap(), 1);
    assert_eq!(client.read(CONFIG, 4, 2), Ok(vec![0, 0]));
    assert_eq!(client.read(BAR0, 0, 4), Ok(vec![0xff; 4]), "memory is not enabled");
}

#[test]
fn an_unknown_command_is_refused_and_its_payload_skipped() {
    let host = Host::new();
    let mut client = host.driver();
    for command in [0, GET_REGION_IO_FDS, 11, 12, 14, 16, 17, 18, 999, u16::MAX] {
        assert_eq!(client.call(command, &[0x41; 1000]), Err(ENOTSUP));
    }
    assert_eq!(client.read(BAR0, 7, 1), Ok(vec![7]));
}

#[test]
fn a_payload_that_is_too_short_is_refused() {
    let host = Host::new();
    let mut client = host.driver();
    for (command, length) in [
        (DMA_MAP, 32),
        (DMA_UNMAP, 24),
        (GET_INFO, 16),
        (GET_REGION_INFO, 32),
        (GET_IRQ_INFO, 16),
        (SET_IRQS, 20),
        (REGION_READ, 16),
        (REGION_WRITE, 16),
        (WRITE_MULTI, 8),
    ] {
        for short in [0, 1, length - 1] {
            assert_eq!(client.call(command, &vec![0; short]), Err(EINVAL), "{command}");
        }
    }
}

#[test]
fn a_second_version_and_a_reply_are_no_commands() {
    let host = Host::new();
    let mut client = host.driver();
    assert_eq!(client.call(VERSION, &version(0, 0, QEMU_PROPOSAL)), Err(EINVAL));
    let id = client.send(REGION_READ, 1, &access(BAR0, 0, 4, &[]), &[]);
    assert_eq!(client.reply(id, REGION_READ), Err(EINVAL));
    assert_eq!(client.read(BAR0, 1, 1), Ok(vec![1]));
}
