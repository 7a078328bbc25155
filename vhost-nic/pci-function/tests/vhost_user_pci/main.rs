//! PCI over virtio, driven as a User Mode Linux kernel drives it.

#[path = "../common/mod.rs"]
mod common;

mod driver;
mod fuzz_driver;
mod fuzzing;
mod host;
mod hostile;

use std::time::{Duration, Instant};

use common::{BAR, Purpose};
use driver::{CFG_READ, DATA, Driver, INTERRUPT, MEMORY, MEMORY_SIZE, MMIO_MEMSET, MMIO_READ, MSI, header};
use host::Host;

/// Message for an interrupt of `vector`.
fn message(vector: u32) -> Vec<u8> {
    let mut message = header(MSI, 0, 4, 0xa_0000);
    message.extend_from_slice(&(64 + vector).to_le_bytes());
    message
}

#[test]
fn configuration_space_is_read_and_written_in_every_width() {
    let host = Host::new();
    let mut driver = Driver::connect(&host.path);
    assert_eq!(driver.read(CFG_READ, 0, 1), [0xb3]);
    assert_eq!(driver.read(CFG_READ, 0, 2), [0xb3, 0x15]);
    assert_eq!(driver.read(CFG_READ, 0, 4), [0xb3, 0x15, 0x17, 0x10]);
    assert_eq!(driver.read(CFG_READ, 0, 8)[..4], [0xb3, 0x15, 0x17, 0x10]);
    // The sizing of BAR 0, which is 64 bits wide.
    driver.set_config(0x10, &[0xff; 8]);
    assert_eq!(driver.config(0x10) & !0xf, !(BAR.size as u32 - 1));
    assert_eq!(driver.config(0x14), u32::MAX);
    driver.set_config(0x3c, &[0x5a]);
    assert_eq!(driver.config(0x3c) & 0xff, 0x5a);
    assert_eq!(driver.config(0xffd), u32::MAX, "beyond the end of configuration space");
}

#[test]
fn the_bar_is_accessed_in_every_width_and_length() {
    let host = Host::new();
    let mut driver = host.driver();
    let pattern: Vec<u8> = (0..=255).collect();
    for length in [1, 2, 3, 4, 7, 8, 64, 256] {
        driver.write(0x9001, &pattern[..length]);
        assert_eq!(host.registers.bytes.lock()[0x9001..0x9001 + length], pattern[..length]);
        assert_eq!(driver.read(MMIO_READ, 0x9001, length as u32), pattern[..length]);
        assert_eq!(host.registers.bytes.lock()[0x9001 + length], 0);
        driver.write(0x9001, &[0; 256]);
    }
    // The data may follow the header in the same buffer.
    let mut both = header(driver::MMIO_WRITE, 0, 8, BAR.size - 8);
    both.extend_from_slice(b"the last");
    assert!(driver.command(&both, &[], 0).is_empty());
    assert_eq!(driver.read(MMIO_READ, BAR.size - 8, 8), *b"the last");

    let fill = header(MMIO_MEMSET, 0, 1000, 0x10_0000);
    assert!(driver.command(&fill, &[0xa5], 0).is_empty());
    let mut expected = vec![0xa5; 1000];
    expected.push(0);
    assert_eq!(driver.read(MMIO_READ, 0x10_0000, 1001), expected);

    assert_eq!(driver.read(MMIO_READ, BAR.size - 2, 4), [0xff; 4], "beyond the end");
    let other = header(MMIO_READ, 2, 4, 0);
    assert_eq!(driver.command(&other, &[], 4), [0xff; 4], "no such BAR");
}

#[test]
fn posted_commands_are_served_in_order_and_without_a_call() {
    let host = Host::new();
    let mut driver = host.driver();
    for number in 0..200_u16 {
        let mut message = header(driver::MMIO_WRITE, 0, 2, 0x8000);
        message.extend_from_slice(&number.to_le_bytes());
        let address = DATA + 0x4000 + u64::from(number) * 32;
        driver.put(address, &message);
        let descriptor = driver::Descriptor {
            address,
            length: message.len() as u32,
            flags: 0,
            next: 0,
        };
        driver.describe(driver::COMMAND, number, descriptor);
        driver.offer(driver::COMMAND, number);
        driver.kick(driver::COMMAND);
    }
    for number in 0..200 {
        assert_eq!(driver.reap(driver::COMMAND), (number, 0));
    }
    assert_eq!(driver.read(MMIO_READ, 0x8000, 2), 199_u16.to_le_bytes());
    driver.calls[driver::COMMAND].write(1).unwrap();
    assert_eq!(
        driver.calls[driver::COMMAND].read().unwrap(),
        1,
        "the device did not signal"
    );
}

#[test]
fn interrupts_are_messages_and_a_call() {
    let host = Host::new();
    let mut driver = host.driver();
    driver.give_buffers(0, 10, 20);
    for vector in [0, 31, 5] {
        host.function.msix().raise(vector);
        assert_eq!(driver.interrupt(), message(vector.into()));
        assert!(driver.calls[INTERRUPT].read().unwrap() >= 1);
    }
    assert_eq!(host.server.stats().counters.interrupts.get(), 3);
}

#[test]
fn interrupts_without_a_buffer_wait_for_one() {
    let host = Host::new();
    let mut driver = host.driver();
    for vector in [3, 1, 3, 2] {
        host.function.msix().raise(vector);
    }
    assert_eq!(driver.try_reap(INTERRUPT, Duration::from_millis(50)), None);
    assert_eq!(host.function.msix().stats().pending, 3);
    driver.give_buffers(0, 2, 20);
    assert_eq!(driver.interrupt(), message(1));
    assert_eq!(driver.interrupt(), message(2));
    assert_eq!(driver.try_reap(INTERRUPT, Duration::from_millis(50)), None);
    driver.give_buffers(2, 1, 20);
    assert_eq!(driver.interrupt(), message(3));
    assert_eq!(host.function.msix().stats().pending, 0);
    assert!(host.server.stats().counters.interrupts_deferred.get() >= 3);
}

#[test]
fn a_guest_that_takes_no_calls_holds_up_nobody() {
    let host = Host::new();
    let mut driver = host.driver();
    driver.give_buffers(0, 2, 20);
    // An eventfd at its limit blocks its writer, as a full pipe does.
    driver.calls[INTERRUPT].write(u64::MAX - 1).unwrap();
    host.function.msix().raise(0);
    assert_eq!(driver.interrupt(), message(0));
    host.function.msix().raise(1);
    assert_eq!(driver.interrupt(), message(1));
}

#[test]
fn the_device_reaches_exactly_the_memory_of_the_table() {
    let host = Host::new();
    let driver = host.driver();
    let dma = &host.parts.dma;
    driver.put(DATA + 0x5000, b"from the guest");
    let mut bytes = [0; 14];
    dma.read(Purpose::Gather, DATA + 0x5000, &mut bytes).unwrap();
    assert_eq!(&bytes, b"from the guest");
    dma.write(Purpose::Scatter, DATA + 0x6000, b"from the device").unwrap();
    assert_eq!(driver.get(DATA + 0x6000, 15), *b"from the device");
    for outside in [0, MEMORY - 1, MEMORY + MEMORY_SIZE - 13, MEMORY + MEMORY_SIZE] {
        assert!(dma.read(Purpose::Gather, outside, &mut bytes).is_err(), "{outside:#x}");
    }
    drop(driver);
    host.wait_for_reset(2);
    // The mappings go right after the reset.
    let begin = Instant::now();
    while dma.read(Purpose::Gather, DATA, &mut bytes).is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn every_connection_is_a_new_life_of_the_device() {
    let host = Host::new();
    for life in 1..=3 {
        let mut driver = host.driver();
        assert_eq!(driver.read(MMIO_READ, 0x8000, 4), [0; 4]);
        driver.write(0x8000, &[1, 2, 3, 4]);
        driver.give_buffers(0, 1, 20);
        host.function.msix().raise(7);
        assert_eq!(driver.interrupt(), message(7));
        drop(driver);
        host.wait_for_reset(1 + life);
    }
    assert_eq!(host.server.stats().counters.connections.get(), 3);
}

#[test]
fn stopping_ends_a_connection_and_the_wait_for_one() {
    let mut host = Host::new();
    host.server.stop();

    let mut host = Host::new();
    let driver = host.driver();
    host.server.stop();
    let mut bytes = [0; 1];
    assert!(host.parts.dma.read(Purpose::Gather, DATA, &mut bytes).is_err());
    drop(driver);
}
