//! An independent client: that of the vfio_user crate.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use vfio_user::Client;

use crate::client::{event, events, memory};
use crate::common::Purpose;
use crate::host::Host;

const CONFIG: u32 = 7;

#[test]
fn a_client_by_others_finds_regions_and_interrupts() {
    let host = Host::new();
    let mut client = Client::new(host.path()).unwrap();
    let bar = client.region(0).unwrap();
    assert_eq!((bar.size, bar.flags), (16 << 20, 3));
    assert_eq!(client.region(CONFIG).unwrap().size, 4096);
    let msix = client.get_irq_info(2).unwrap();
    assert_eq!((msix.index, msix.flags, msix.count), (2, 1, 32));
}

#[test]
fn a_client_by_others_drives_the_device() {
    let host = Host::new();
    let mut client = Client::new(host.path()).unwrap();
    let mut ids = [0; 4];
    client.region_read(CONFIG, 0, &mut ids).unwrap();
    assert_eq!(ids, [0xb3, 0x15, 0x17, 0x10]);
    client.region_write(CONFIG, 4, &[6, 0]).unwrap();
    client.region_write(0, 0x1_0000, &[1, 2, 3, 4]).unwrap();
    let mut data = [0; 8];
    client.region_read(0, 0x40, &mut data).unwrap();
    assert_eq!(data, [0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47]);
    assert_eq!(host.writes(), [(0x1_0000, vec![1, 2, 3, 4])]);

    let file = memory(0x2000);
    client.dma_map(0, 0x1000, 0x2000, file.as_raw_fd()).unwrap();
    host.parts.dma.write(Purpose::Scatter, 0x2ffe, &[7, 8]).unwrap();
    file.read_exact_at(&mut data[..2], 0x1ffe).unwrap();
    assert_eq!(data[..2], [7, 8]);
    client.dma_unmap(0x1000, 0x2000).unwrap();
    assert!(host.parts.dma.write(Purpose::Scatter, 0x2ffe, &[7, 8]).is_err());

    let eventfd = event();
    client.set_irqs(2, 0x24, 3, 1, &[eventfd.as_raw_fd()]).unwrap();
    host.parts.msix.raise(3);
    assert_eq!(events(&eventfd), 1);

    client.reset().unwrap();
    assert_eq!(*host.device.resets.lock().unwrap(), 1);
    drop::<File>(file);
}
