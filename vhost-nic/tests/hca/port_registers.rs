//! Registers of the port by which users set and inspect it: link modes, FEC, flow control, module, counters, LED.

use mlx5_prm::access_reg::{PcamReg, PfccReg, PmlpReg, PplmReg, PtysReg};
use mlx5_prm::command::Status;
use mlx5_prm::layout::Layout;
use mlx5_prm::management_reg::{MciaReg, MlcrReg};
use mlx5_prm::port_counters::{PhysLayerCntrs, PhysLayerStatisticalCntrs, PpcntReg};
use mlx5_test_driver::command::CommandError;
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::Options;

use crate::commands::refused;
use crate::frames::plain;
use crate::inspect::Inspect;
use crate::lan::{Lan, with_hca};

/// `MLX5_REG_*` (driver.h).
const PMLP: u16 = 0x5002;
const PTYS: u16 = 0x5004;
const PFCC: u16 = 0x5007;
const PPCNT: u16 = 0x5008;
const PPLM: u16 = 0x5023;
const PCAM: u16 = 0x507f;
const MCIA: u16 = 0x9014;
const MLCR: u16 = 0x902b;
/// FEC modes (`MLX5E_FEC_*`, core/en/port.h), a bit each.
const NO_FEC: u8 = 1 << 0;
const FIRECODE: u8 = 1 << 1;
const REED_SOLOMON: u8 = 1 << 2;
/// Groups of PPCNT.
const PHYSICAL_LAYER: u8 = 0x12;
const PHYSICAL_LAYER_STATISTICS: u8 = 0x16;

#[test]
fn the_port_names_its_connector_and_speed() {
    with_hca(|hca| {
        let mut request = PtysReg::default();
        request.set_local_port(1);
        request.set_proto_mask(1 << 2);
        let ptys = || hca.read_register(PTYS, &request).unwrap();
        assert_eq!((ptys().connector_type(), ptys().an_status()), (7, 1));
        assert_eq!(ptys().data_rate_oper(), 1000);
        hca.machine.nic().set_cable(false);
        assert_eq!((ptys().connector_type(), ptys().an_status()), (0, 0));
        assert_eq!(ptys().data_rate_oper(), 0);
        hca.machine.nic().set_cable(true);
        request.set_an_disable_admin(true);
        hca.write_register(PTYS, &request).unwrap();
        let fixed = hca.read_register(PTYS, &PtysReg::default()).unwrap();
        assert!(fixed.an_disable_admin() && fixed.an_status() == 0);
    });
}

#[test]
fn the_capability_mask_names_the_registers_there_are() {
    with_hca(|hca| {
        let pcam = hca.read_register(PCAM, &PcamReg::default()).unwrap();
        let registers = pcam.regs_5000_to_507f();
        assert!(registers.pplm() && registers.ppcnt());
        assert!(registers.pbmc() && registers.pptb() && !registers.pphcr());
        // PMTU, PTYS and PFCC; not PCAP, 0x5001.
        assert_eq!(registers.port_access_reg_cap_mask_07_to_00() & 0b1001_1010, 0b1001_1000);
        let features = pcam.enhanced_features();
        assert!(features.ptys_connector_type() && features.pfcc_mask() && features.ppcnt_statistical_group());
        assert!(!features.ptys_extended_ethernet() && !features.rx_buffer_fullness_counters());
        let mut other = PcamReg::default();
        other.set_access_reg_group(1);
        refused(hca.read_register(PCAM, &other), Status::BadParameter);
    });
}

#[test]
fn each_speed_has_its_fec_modes() {
    with_hca(|hca| {
        let mut request = PplmReg::default();
        request.set_local_port(1);
        let pplm = || hca.read_register(PPLM, &request).unwrap();
        let all = pplm();
        assert_eq!(all.fec_override_cap_100g(), NO_FEC | REED_SOLOMON);
        assert_eq!(all.fec_override_cap_25g(), NO_FEC | FIRECODE | REED_SOLOMON);
        assert_eq!(all.fec_override_cap_10g_40g(), NO_FEC | FIRECODE);
        assert_eq!(
            (all.fec_override_admin_100g(), all.fec_mode_active()),
            (0, REED_SOLOMON.into())
        );

        let mut wanted = all.clone();
        wanted.set_fec_override_admin_100g(NO_FEC);
        wanted.set_fec_override_admin_25g(FIRECODE);
        hca.write_register(PPLM, &wanted).unwrap();
        assert_eq!(
            (pplm().fec_override_admin_100g(), pplm().fec_mode_active()),
            (NO_FEC, NO_FEC.into())
        );
        assert!(hca.machine.nic().set_partner_speed(Some(25)));
        assert_eq!(pplm().fec_mode_active(), u32::from(FIRECODE));
        assert!(hca.machine.nic().set_partner_speed(Some(40)));
        assert_eq!(pplm().fec_mode_active(), u32::from(NO_FEC));
        hca.machine.nic().set_cable(false);
        assert_eq!(pplm().fec_mode_active(), 0, "without a link there is no mode");

        // Firecode is none for 100 Gb/s, two modes are no choice, and there is no 200 Gb/s.
        let refuse = |change: fn(&mut PplmReg)| {
            let mut wrong = wanted.clone();
            change(&mut wrong);
            refused(hca.write_register(PPLM, &wrong), Status::BadParameter);
        };
        refuse(|wrong| wrong.set_fec_override_admin_100g(FIRECODE));
        refuse(|wrong| wrong.set_fec_override_admin_25g(NO_FEC | REED_SOLOMON));
        refuse(|wrong| wrong.set_fec_override_admin_200g_4x(NO_FEC.into()));
        refuse(|wrong| wrong.set_local_port(2));
        assert_eq!(pplm().fec_override_admin_25g(), FIRECODE);
    });
}

#[test]
fn flow_control_changes_under_its_masks() {
    with_hca(|hca| {
        let mut request = PfccReg::default();
        request.set_local_port(1);
        request.set_pptx(true);
        request.set_pprx(true);
        // Without a mask, the bits of the priorities stay.
        request.set_pfctx(0xff);
        hca.write_register(PFCC, &request).unwrap();
        let pfcc = || hca.read_register(PFCC, &PfccReg::default()).unwrap();
        assert_eq!(
            (pfcc().local_port(), pfcc().pptx(), pfcc().pprx(), pfcc().pfctx()),
            (1, true, true, 0)
        );
        let mut priorities = PfccReg::default();
        priorities.set_pptx_mask_n(true);
        priorities.set_pprx_mask_n(true);
        priorities.set_prio_mask_tx(0x0f);
        priorities.set_pfctx(0xaa);
        priorities.set_prio_mask_rx(0xf0);
        priorities.set_pfcrx(0xaa);
        hca.write_register(PFCC, &priorities).unwrap();
        assert_eq!((pfcc().pfctx(), pfcc().pfcrx()), (0x0a, 0xa0));
        assert!(pfcc().pptx() && pfcc().pprx(), "global pause is protected");
        let mut watermarks = priorities.clone();
        watermarks.set_critical_stall_mask(true);
        watermarks.set_device_stall_critical_watermark(100);
        watermarks.set_device_stall_minor_watermark(85);
        hca.write_register(PFCC, &watermarks).unwrap();
        assert_eq!(pfcc().device_stall_critical_watermark(), 100);
        assert_eq!(pfcc().device_stall_minor_watermark(), 0);
    });
}

/// Reads `length` bytes of the module's memory.
fn module(hca: &Hca, address: u8, offset: u16, length: u16) -> Result<(u8, Vec<u8>), CommandError> {
    let mut request = MciaReg::default();
    request.set_i2c_device_address(address);
    request.set_device_address(offset);
    request.set_size(length);
    let reply = hca.read_register(MCIA, &request)?;
    Ok((reply.status(), reply.dwords()[..length.into()].to_vec()))
}

#[test]
fn a_copper_cable_is_plugged_in() {
    with_hca(|hca| {
        let mut request = PmlpReg::default();
        request.set_local_port(1);
        let lanes = hca.read_register(PMLP, &request).unwrap();
        assert_eq!((lanes.width(), lanes.lane3_module_mapping()), (4, 0x0303_0000));

        let (status, lower) = module(hca, 0x50, 0, 128).unwrap();
        assert_eq!((status, &lower[..3]), (0, &[0x11, 0x07, 0x04][..]));
        assert!(
            lower[3..].iter().all(|&byte| byte == 0),
            "a passive cable measures nothing"
        );
        let (status, upper) = module(hca, 0x50, 128, 128).unwrap();
        assert_eq!(
            (status, upper[0], upper[2], upper[19], upper[64]),
            (0, 0x11, 0x23, 0xa0, 0x0b)
        );
        let [.., m4, m5] = hca.machine.mac;
        let serial = String::from_utf8(upper[68..84].to_vec()).unwrap();
        assert!(serial.trim_end().ends_with(&format!("{m4:02X}{m5:02X}")), "{serial}");
        let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!((upper[63], upper[95]), (sum(&upper[..63]), sum(&upper[64..95])));
        // Part of it, at any offset.
        assert_eq!(module(hca, 0x50, 148, 9).unwrap(), (0, upper[20..29].to_vec()));

        assert_eq!(module(hca, 0x51, 0, 1).unwrap().0, 1, "a QSFP module has one memory");
        refused(module(hca, 0x50, 250, 7), Status::BadParameter);
        refused(module(hca, 0x50, u16::MAX, 1), Status::BadParameter);
        refused(
            module(hca, 0x50, 0, 129).map(drop).and(module(hca, 0x50, 0, u16::MAX)),
            Status::BadParameter,
        );
        hca.machine.nic().set_cable(false);
        assert_eq!(module(hca, 0x50, 0, 4).unwrap(), (3, vec![0; 4]));
    });
}

fn counters<T: Layout>(hca: &Hca, group: u8) -> T {
    let mut request = PpcntReg::default();
    request.set_local_port(1);
    request.set_grp(group);
    let reply = hca.read_register(PPCNT, &request).unwrap();
    T::read_from_prefix(reply.counter_set()).unwrap().0
}

#[test]
fn the_physical_layer_counts_lost_links_and_received_bits() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let down = |hca: &Hca| counters::<PhysLayerCntrs>(hca, PHYSICAL_LAYER).link_down_events();
    assert_eq!(down(&b.hca), 0);
    b.hca.machine.nic().set_cable(false);
    b.set_port(false).unwrap();
    b.hca.machine.nic().set_cable(true);
    b.set_port(true).unwrap();
    assert_eq!(down(&b.hca), 1, "a link that is down cannot go down");
    assert!(b.hca.machine.nic().set_partner_speed(Some(25)));
    assert_eq!(down(&b.hca), 2, "at another speed, the link comes up anew");
    let frame = plain(a.hca.machine.mac, b.hca.machine.mac, 100);
    a.send(&frame);
    assert_eq!(b.receive().frame, frame);
    let statistics: PhysLayerStatisticalCntrs = counters(&b.hca, PHYSICAL_LAYER_STATISTICS);
    assert_eq!(statistics.phy_received_bits_low(), (100 + 4) * 8);
    assert_eq!(statistics.phy_symbol_errors_low(), 0);
    lan.end();
}

#[test]
fn the_led_is_on_as_long_as_it_is_told() {
    with_hca(|hca| {
        let mut request = MlcrReg::default();
        request.set_local_port(1);
        for duration in [u16::MAX, 0] {
            request.set_beacon_duration(duration);
            hca.write_register(MLCR, &request).unwrap();
            let led = hca.read_register(MLCR, &request).unwrap();
            assert_eq!((led.beacon_duration(), led.beacon_remain()), (duration, duration));
        }
        request.set_local_port(2);
        refused(hca.write_register(MLCR, &request), Status::BadParameter);
    });
}
