//! DMA_MAP and DMA_UNMAP: memory in reach of the device.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use pci_function::dma::DmaError;

use crate::client::*;
use crate::common::Purpose;
use crate::host::Host;

const EINVAL: u32 = 22;
const EEXIST: u32 = 17;
const ENOMEM: u32 = 12;

const READ: u32 = 1;
const READ_WRITE: u32 = 3;

fn read(host: &Host, address: u64, length: usize) -> Result<Vec<u8>, DmaError> {
    let mut data = vec![0; length];
    host.parts.dma.read(Purpose::Gather, address, &mut data)?;
    Ok(data)
}

#[test]
fn the_device_reads_and_writes_what_the_guest_has_in_its_memory() {
    let host = Host::new();
    let mut client = host.client();
    let file = memory(0x3000);
    file.write_all_at(b"of the guest", 0x1ffa).unwrap();
    client
        .dma_map(READ_WRITE, 0x1000, 0x8000_0000, 0x2000, &[file.as_fd()])
        .unwrap();
    assert_eq!(read(&host, 0x8000_0ffa, 12).unwrap(), b"of the guest");
    host.parts
        .dma
        .write(Purpose::Scatter, 0x8000_0000, b"of the device")
        .unwrap();
    let mut data = [0; 13];
    file.read_exact_at(&mut data, 0x1000).unwrap();
    assert_eq!(&data, b"of the device");
    assert!(read(&host, 0x7fff_ffff, 2).is_err());
    assert!(read(&host, 0x8000_1fff, 2).is_err());
}

#[test]
fn memory_without_a_descriptor_is_known_and_out_of_reach() {
    let host = Host::new();
    let mut client = host.client();
    client.dma_map(READ_WRITE, 0, 0xfeb0_0000, 0x1000, &[]).unwrap();
    assert!(matches!(read(&host, 0xfeb0_0000, 4), Err(DmaError::Unreachable { .. })));
}

#[test]
fn read_only_memory_is_not_written() {
    let host = Host::new();
    let mut client = host.client();
    let file = memory(0x1000);
    client.dma_map(READ, 0, 0xc_0000, 0x1000, &[file.as_fd()]).unwrap();
    read(&host, 0xc_0000, 16).unwrap();
    let written = host.parts.dma.write(Purpose::Cqe, 0xc_0000, &[1]);
    assert!(matches!(written, Err(DmaError::ReadOnly { .. })));
}

#[test]
fn unmapping_takes_exactly_the_range_away_and_is_answered_with_it() {
    let host = Host::new();
    let mut client = host.client();
    let file = memory(0x3000);
    client.dma_map(READ_WRITE, 0, 0x1000, 0x3000, &[file.as_fd()]).unwrap();
    let reply = client.dma_unmap(0, 0x2000, 0x1000);
    assert_eq!(reply, Ok([words(&[24, 0]), longs(&[0x2000, 0x1000])].concat()));
    assert!(read(&host, 0x1fff, 1).is_ok());
    assert!(read(&host, 0x2000, 1).is_err());
    assert!(read(&host, 0x2fff, 1).is_err());
    assert!(read(&host, 0x3000, 1).is_ok());
    // As QEMU does when it moves memory: the same range again.
    client
        .dma_map(READ_WRITE, 0x1000, 0x2000, 0x1000, &[file.as_fd()])
        .unwrap();
    assert!(read(&host, 0x1000, 0x3000).is_ok());
}

#[test]
fn unmapping_all_leaves_nothing() {
    let host = Host::new();
    let mut client = host.client();
    let file = memory(0x1000);
    for address in [0, 0x10_0000, u64::MAX - 0x1fff] {
        client.dma_map(READ_WRITE, 0, address, 0x1000, &[file.as_fd()]).unwrap();
    }
    client.dma_unmap(2, 0, 0).unwrap();
    for address in [0, 0x10_0000, u64::MAX - 0x1fff] {
        assert!(read(&host, address, 1).is_err());
    }
}

#[test]
fn mappings_that_cannot_be_are_refused() {
    let host = Host::new();
    let mut client = host.client();
    let file = memory(0x2000);
    let fd = file.as_fd();
    client.dma_map(READ_WRITE, 0, 0x1000, 0x2000, &[fd]).unwrap();
    assert_eq!(client.dma_map(READ_WRITE, 0, 0x2000, 0x2000, &[fd]), Err(EEXIST));
    assert_eq!(client.dma_map(READ_WRITE, 0, 0x8000, 0, &[fd]), Err(EINVAL));
    assert_eq!(client.dma_map(READ_WRITE, 0, u64::MAX - 1, 0x1000, &[fd]), Err(EINVAL));
    assert_eq!(client.dma_map(READ_WRITE, 0, 0x8000, 0x1000, &[fd, fd]), Err(EINVAL));
    assert_eq!(client.dma_map(4, 0, 0x8000, 0x1000, &[fd]), Err(EINVAL));
    assert_eq!(
        client.dma_map(READ_WRITE, 0x1000, 0x8000, 0x2000, &[fd]),
        Err(ENOMEM),
        "beyond the file"
    );
    assert_eq!(
        client.dma_map(READ_WRITE, 1, 0x8000, 0x1000, &[fd]),
        Err(ENOMEM),
        "not at a page"
    );
    assert_eq!(client.dma_map(READ_WRITE, u64::MAX, 0x8000, 0x1000, &[fd]), Err(ENOMEM));
    let pipe = rustix::pipe::pipe().unwrap();
    assert_eq!(
        client.dma_map(READ_WRITE, 0, 0x8000, 0x1000, &[pipe.0.as_fd()]),
        Err(ENOMEM)
    );
    assert_eq!(client.dma_unmap(0, u64::MAX, 0x1000), Err(EINVAL));
    assert_eq!(client.dma_unmap(1, 0x1000, 0x2000), Err(EINVAL));
    assert!(read(&host, 0x1000, 0x2000).is_ok());
    assert!(read(&host, 0x8000, 1).is_err());
}

#[test]
fn descriptors_belong_to_the_message_they_came_with() {
    let host = Host::new();
    let mut client = host.client();
    let files: Vec<_> = (0..8_u8)
        .map(|n| {
            let file = memory(0x1000);
            file.write_all_at(&[n], 0).unwrap();
            file
        })
        .collect();
    // All are sent before the first is answered: with a descriptor, without one, and posted writes between them.
    let mut ids = Vec::new();
    for (n, file) in files.iter().enumerate() {
        let payload = |address| [words(&[32, 3]), longs(&[0, address, 0x1000])].concat();
        client.post(REGION_WRITE, &access(BAR0, 0, 4, &[0; 4]));
        ids.push(client.send(DMA_MAP, 0, &payload(0x10_0000 + n as u64 * 0x1000), &[file.as_fd()]));
        ids.push(client.send(DMA_MAP, 0, &payload(0x20_0000 + n as u64 * 0x1000), &[]));
    }
    for id in ids {
        client.reply(id, DMA_MAP).unwrap();
    }
    for n in 0..8_u8 {
        let address = u64::from(n) * 0x1000;
        assert_eq!(read(&host, 0x10_0000 + address, 1).unwrap(), [n]);
        assert!(matches!(
            read(&host, 0x20_0000 + address, 1),
            Err(DmaError::Unreachable { .. })
        ));
    }
}
