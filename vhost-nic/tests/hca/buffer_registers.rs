//! Registers of the receive buffers, as `dcb` reads and writes them.

use mlx5_prm::access_reg::PfccReg;
use mlx5_prm::buffer_reg::{BufferxReg, PbmcReg, PptbReg, SbcmReg, SbprReg};
use mlx5_prm::command::Status;
use mlx5_test_driver::hca::Hca;
use zerocopy::FromBytes;

use crate::commands::refused;
use crate::lan::with_hca;
use crate::qos_registers::{is_refused, of_port, over_a_reset};

/// `MLX5_REG_*` (driver.h).
const PFCC: u16 = 0x5007;
const PPTB: u16 = 0x500b;
const PBMC: u16 = 0x500c;
const SBPR: u16 = 0xb001;
const SBCM: u16 = 0xb002;
/// Owners of the port buffers.
const FIRMWARE: u8 = 1;
const DRIVER: u8 = 2;

/// A port buffer: lossless, and cells of its size and thresholds.
type Buffer = (bool, u16, u16, u16);

fn buffers(hca: &Hca) -> Vec<Buffer> {
    let reply = hca.read_register(PBMC, &of_port!(PbmcReg)).unwrap();
    assert_eq!(reply.port_buffer_size(), 2047);
    let buffers = reply
        .buffer()
        .chunks_exact(8)
        .map(|buffer| BufferxReg::ref_from_bytes(buffer).unwrap());
    let all: Vec<Buffer> = buffers
        .map(|buffer| {
            (
                !buffer.lossy(),
                buffer.size(),
                buffer.xoff_threshold(),
                buffer.xon_threshold(),
            )
        })
        .collect();
    assert_eq!(all[8..], [(true, 0, 0, 0); 2], "no internal buffers");
    all[..8].to_vec()
}

fn buffers_of_priorities(hca: &Hca) -> u32 {
    hca.read_register(PPTB, &of_port!(PptbReg)).unwrap().prio_x_buff()
}

const UNUSED: Buffer = (false, 0, 0, 0);

fn pause(hca: &Hca, priorities: u8) {
    let mut request = of_port!(PfccReg);
    request.set_prio_mask_tx(0xff);
    request.set_prio_mask_rx(0xff);
    request.set_pfctx(priorities);
    request.set_pfcrx(priorities);
    hca.write_register(PFCC, &request).unwrap();
}

fn owner(hca: &Hca) -> u8 {
    hca.read_register(PFCC, &of_port!(PfccReg)).unwrap().buf_ownership()
}

#[test]
fn the_port_buffers_follow_flow_control_until_the_driver_sets_them() {
    with_hca(|hca| {
        let lossy = (false, 2047, 0, 0);
        assert_eq!((owner(hca), buffers_of_priorities(hca)), (FIRMWARE, 0));
        assert_eq!(
            buffers(hca),
            [lossy, UNUSED, UNUSED, UNUSED, UNUSED, UNUSED, UNUSED, UNUSED]
        );
        // Priority 3 without loss.
        pause(hca, 1 << 3);
        assert_eq!(buffers(hca)[..3], [(false, 1023, 0, 0), (true, 1023, 580, 508), UNUSED]);
        assert_eq!(buffers_of_priorities(hca), 0x1000);
        pause(hca, 0xff);
        assert_eq!(buffers(hca)[..2], [(true, 2047, 1604, 1532), UNUSED]);
        assert_eq!(buffers_of_priorities(hca), 0);
        pause(hca, 0);
        assert_eq!(buffers(hca)[0], lossy);
        let mut global = of_port!(PfccReg);
        global.set_pptx(true);
        hca.write_register(PFCC, &global).unwrap();
        assert!(buffers(hca)[0].0, "all priorities are paused");
        assert_eq!(owner(hca), FIRMWARE);

        let mut map = of_port!(PptbReg);
        map.set_pm(1 << 5);
        map.set_prio_x_buff(0x7777_7777);
        hca.write_register(PPTB, &map).unwrap();
        assert_eq!((owner(hca), buffers_of_priorities(hca)), (DRIVER, 0x0070_0000));
        let before = buffers(hca);
        pause(hca, 1);
        assert_eq!(buffers(hca), before);
    });
}

fn port_buffers(of: &[(usize, Buffer)]) -> PbmcReg {
    let mut register = of_port!(PbmcReg);
    for (index, buffer) in register.buffer_mut().chunks_exact_mut(8).enumerate() {
        let buffer = BufferxReg::mut_from_bytes(buffer).unwrap();
        let (lossless, size, xoff, xon) = of
            .iter()
            .find(|(of, _)| *of == index)
            .map_or(UNUSED, |(_, buffer)| *buffer);
        buffer.set_lossy(!lossless);
        buffer.set_size(size);
        buffer.set_xoff_threshold(xoff);
        buffer.set_xon_threshold(xon);
    }
    register
}

#[test]
fn the_driver_sets_the_port_buffers_within_their_total() {
    with_hca(|hca| {
        hca.write_register(
            PBMC,
            &port_buffers(&[(0, (false, 1000, 0, 0)), (7, (true, 1047, 600, 500))]),
        )
        .unwrap();
        assert_eq!(owner(hca), DRIVER);
        let now = buffers(hca);
        assert_eq!(
            (now[0], now[1], now[7]),
            ((false, 1000, 0, 0), UNUSED, (true, 1047, 600, 500))
        );
        for wrong in [
            port_buffers(&[(0, (false, 1000, 0, 0)), (7, (true, 1048, 600, 500))]),
            port_buffers(&[(0, (false, 0xffff, 0, 0)), (1, (false, 0xffff, 0, 0))]),
            port_buffers(&[(0, (true, 1000, 1001, 500))]),
            port_buffers(&[(0, (true, 1000, 400, 401))]),
            PbmcReg::default(),
        ] {
            is_refused(hca, PBMC, &wrong);
        }
        let mut map = of_port!(PptbReg);
        map.set_pm(0xff);
        map.set_prio_x_buff(0x0800_0000);
        is_refused(hca, PPTB, &map);
        map.set_prio_x_buff(0x7000_0000);
        map.set_mm(1);
        is_refused(hca, PPTB, &map);
        map.set_mm(0);
        hca.write_register(PPTB, &map).unwrap();
        assert_eq!((buffers_of_priorities(hca), buffers(hca)), (0x7000_0000, now));
    });
}

#[test]
fn the_shared_buffer_has_a_pool_with_loss_and_one_without() {
    with_hca(|hca| {
        let pool = |dir, number| {
            let mut request = SbprReg::default();
            request.set_dir(dir);
            request.set_pool(number);
            request
        };
        let size = |dir, number| hca.read_register(SBPR, &pool(dir, number)).unwrap().size();
        // Lossy pool of frames to the wire, lossless pool of frames from it.
        assert_eq!((size(1, 0), size(0, 1)), (1536, 512));
        let mut wanted = pool(0, 1);
        wanted.set_size(700);
        wanted.set_mode(1);
        hca.write_register(SBPR, &wanted).unwrap();
        assert_eq!((size(1, 0), size(0, 1)), (1536, 700));
        wanted.set_mode(2);
        is_refused(hca, SBPR, &wanted);
        wanted.set_mode(1);
        wanted.set_size(4096);
        is_refused(hca, SBPR, &wanted);
        for wrong in [pool(2, 0), pool(0, 2)] {
            refused(hca.read_register(SBPR, &wrong), Status::BadParameter);
        }
        let mut descriptors = pool(0, 0);
        descriptors.set_desc(true);
        refused(hca.read_register(SBPR, &descriptors), Status::BadParameter);
        assert_eq!(size(0, 1), 700);

        let mut share = of_port!(SbcmReg);
        share.set_pg_buff(7);
        share.set_pool(1);
        share.set_max_buff(13);
        hca.write_register(SBCM, &share).unwrap();
        let read = hca.read_register(SBCM, &share).unwrap();
        assert_eq!(
            (read.pool(), read.max_buff(), read.infi_max(), read.pg_buff()),
            (1, 13, false, 7)
        );
        let refuse = |change: fn(&mut SbcmReg)| {
            let mut wrong = share.clone();
            change(&mut wrong);
            is_refused(hca, SBCM, &wrong);
        };
        refuse(|wrong| wrong.set_pool(2));
        refuse(|wrong| wrong.set_pg_buff(8));
        refuse(|wrong| wrong.set_dir(3));
        refuse(|wrong| wrong.set_min_buff(4096));
        refuse(|wrong| wrong.set_local_port(0));
    });
}

#[test]
fn a_reset_forgets_the_port_buffers() {
    over_a_reset(
        |hca| {
            hca.write_register(PBMC, &port_buffers(&[(3, (false, 5, 0, 0))]))
                .unwrap();
            assert_eq!(owner(hca), DRIVER);
        },
        |hca| assert_eq!((owner(hca), buffers(hca)[0]), (FIRMWARE, (false, 2047, 0, 0))),
    );
}
