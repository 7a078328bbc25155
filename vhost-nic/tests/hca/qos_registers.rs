//! Registers of quality of service, as `dcb` reads and writes them.

use mlx5_prm::access_reg::PcamReg;
use mlx5_prm::buffer_reg::SbcamReg;
use mlx5_prm::command::Status;
use mlx5_prm::layout::Layout;
use mlx5_prm::port_counters::{EthPerPrioGrpDataLayout, PpcntReg};
use mlx5_prm::qos_reg::{DcbxParam, EtsTcnConfigReg, QcamReg, QetcReg, QpdpmReg, QptsReg, QtctReg};
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::Options;
use mlx5_test_driver::wait::eventually;
use zerocopy::FromBytes;

use crate::commands::refused;
use crate::lan::{Lan, shut, with_hca};

/// `MLX5_REG_*` (driver.h).
const QPTS: u16 = 0x4002;
const QETCR: u16 = 0x4005;
const QTCT: u16 = 0x400a;
const QPDPM: u16 = 0x4013;
const QCAM: u16 = 0x4019;
const DCBX_PARAM: u16 = 0x4020;
const PPCNT: u16 = 0x5008;
const PCAM: u16 = 0x507f;
const SBCAM: u16 = 0xb01f;
/// Trust states.
const PCP: u8 = 1;
const DSCP: u8 = 2;
/// Group of classes that share no bandwidth.
const ALONE: u8 = 7;
/// Units of rates.
const NO_LIMIT: u8 = 0;
const HUNDRED_MEGABITS: u8 = 3;
const GIGABITS: u8 = 4;

/// A register of port 1.
macro_rules! of_port {
    ($register:ident) => {{
        let mut register = $register::default();
        register.set_local_port(1);
        register
    }};
}
pub(crate) use of_port;

pub fn is_refused<T: Layout>(hca: &Hca, id: u16, register: &T) {
    refused(hca.write_register(id, register), Status::BadParameter);
}

#[test]
fn the_capability_masks_name_the_registers_there_are() {
    with_hca(|hca| {
        let qcam = hca.read_register(QCAM, &QcamReg::default()).unwrap();
        // QPTS, QETCR, QTCT, QPDPM, QCAM and DCBX_PARAM.
        let registers = 1 << 0x2 | 1 << 0x5 | 1 << 0xa | 1 << 0x13 | 1 << 0x19 | 1 << 0x20;
        assert_eq!(u128::from_be_bytes(*qcam.reg_cap()), registers);
        assert_eq!(qcam.feature_cap(), &[0; 16]);
        let mut other = QcamReg::default();
        other.set_access_reg_group(1);
        refused(hca.read_register(QCAM, &other), Status::BadParameter);
        let mut other = QcamReg::default();
        other.set_feature_group(1);
        refused(hca.read_register(QCAM, &other), Status::BadParameter);

        let sbcam = hca.read_register(SBCAM, &SbcamReg::default()).unwrap();
        let registers = 1 << 0x1 | 1 << 0x2 | 1 << 0x1f;
        assert_eq!(u128::from_be_bytes(*sbcam.sb_access_reg_cap_mask()), registers);
        assert_eq!((sbcam.cap_cell_size(), sbcam.cap_num_pool_supported()), (128, 2));
        let mut other = SbcamReg::default();
        other.set_access_reg_group(1);
        refused(hca.read_register(SBCAM, &other), Status::BadParameter);

        let pcam = hca.read_register(PCAM, &PcamReg::default()).unwrap();
        assert!(pcam.regs_5000_to_507f().pbmc() && pcam.regs_5000_to_507f().pptb());
        assert!(pcam.enhanced_features().buffer_ownership() && !pcam.enhanced_features().shp_pbmc_pbsr_support());
    });
}

#[test]
fn priorities_come_from_the_tag_or_from_the_dscp() {
    with_hca(|hca| {
        let request = of_port!(QptsReg);
        let trust = || hca.read_register(QPTS, &request).unwrap().trust_state();
        assert_eq!(trust(), PCP);
        let set = |state| {
            let mut wanted = request.clone();
            wanted.set_trust_state(state);
            hca.write_register(QPTS, &wanted)
        };
        set(DSCP).unwrap();
        assert_eq!(trust(), DSCP);
        for state in [0, 3, 7] {
            refused(set(state), Status::BadParameter);
        }
        is_refused(hca, QPTS, &QptsReg::default());
        assert_eq!(trust(), DSCP);
        set(PCP).unwrap();
        assert_eq!(trust(), PCP);
    });
}

#[test]
fn each_dscp_has_a_priority() {
    with_hca(|hca| {
        let request = of_port!(QpdpmReg);
        let priorities = || -> Vec<u8> {
            let reply = hca.read_register(QPDPM, &request).unwrap();
            let entries = reply.dscp().chunks_exact(2);
            assert!(entries.clone().all(|entry| entry[0] == 0), "no entry is enabled");
            entries.map(|entry| entry[1]).collect()
        };
        let class_selectors: Vec<u8> = (0..64).map(|dscp| dscp / 8).collect();
        assert_eq!(priorities(), class_selectors);
        // As the driver sets one: the others as read, not enabled.
        let set = |dscp: usize, priority: u8| {
            let mut wanted = hca.read_register(QPDPM, &request).unwrap();
            wanted.dscp_mut()[2 * dscp..][..2].copy_from_slice(&[0x80, priority]);
            hca.write_register(QPDPM, &wanted)
        };
        set(26, 5).unwrap();
        let mut expected = class_selectors;
        expected[26] = 5;
        assert_eq!(priorities(), expected);
        refused(set(0, 8), Status::BadParameter);
        let mut not_enabled = request.clone();
        not_enabled.dscp_mut().fill(0x0f);
        hca.write_register(QPDPM, &not_enabled).unwrap();
        is_refused(hca, QPDPM, &QpdpmReg::default());
        assert_eq!(priorities(), expected);
    });
}

#[test]
fn each_priority_has_a_traffic_class() {
    with_hca(|hca| {
        let class = |priority| {
            let mut request = QtctReg::default();
            request.set_port_number(1);
            request.set_prio(priority);
            hca.read_register(QTCT, &request).unwrap().tclass()
        };
        let all = || (0..8).map(class).collect::<Vec<_>>();
        assert_eq!(all(), [1, 0, 2, 3, 4, 5, 6, 7]);
        let mut wanted = QtctReg::default();
        wanted.set_prio(6);
        wanted.set_tclass(3);
        // The driver names no port.
        hca.write_register(QTCT, &wanted).unwrap();
        assert_eq!(all(), [1, 0, 2, 3, 4, 5, 3, 7]);
        wanted.set_port_number(2);
        is_refused(hca, QTCT, &wanted);
        assert_eq!(all(), [1, 0, 2, 3, 4, 5, 3, 7]);
    });
}

/// Returns QETCR with a change of each traffic class.
fn classes(change: impl Fn(usize, &mut EtsTcnConfigReg)) -> QetcReg {
    let mut register = QetcReg::default();
    for (index, class) in register.tc_configuration_mut().chunks_exact_mut(8).enumerate() {
        change(index, EtsTcnConfigReg::mut_from_bytes(class).unwrap());
    }
    register
}

fn groups(groups: [u8; 8]) -> QetcReg {
    classes(|index, class| {
        class.set_g(true);
        class.set_group(groups[index]);
    })
}

fn shares(shares: [u8; 8]) -> QetcReg {
    classes(|index, class| {
        class.set_b(true);
        class.set_bw_allocation(shares[index]);
    })
}

fn rates(rates: [(u8, u16); 8]) -> QetcReg {
    classes(|index, class| {
        class.set_r(true);
        class.set_max_bw_units(rates[index].0);
        class.set_max_bw_value(rates[index].1);
    })
}

/// Reads a field of each traffic class.
fn each<T>(hca: &Hca, field: impl Fn(&EtsTcnConfigReg) -> T) -> Vec<T> {
    let reply = hca.read_register(QETCR, &QetcReg::default()).unwrap();
    let classes = reply.tc_configuration().chunks_exact(8);
    classes
        .map(|class| field(EtsTcnConfigReg::ref_from_bytes(class).unwrap()))
        .collect()
}

#[test]
fn traffic_classes_share_the_bandwidth_of_their_group() {
    with_hca(|hca| {
        let now = || {
            (
                each(hca, |class| class.group()),
                each(hca, |class| class.bw_allocation()),
            )
        };
        assert_eq!(now(), (vec![ALONE; 8], vec![100; 8]));
        // The driver sets groups, then shares.
        hca.write_register(QETCR, &groups([0, 0, 0, 1, 1, 2, 3, ALONE]))
            .unwrap();
        hca.write_register(QETCR, &shares([30, 30, 40, 99, 1, 100, 100, 100]))
            .unwrap();
        let expected = (vec![0, 0, 0, 1, 1, 2, 3, ALONE], vec![30, 30, 40, 99, 1, 100, 100, 100]);
        assert_eq!(now(), expected);
        for wrong in [
            shares([30, 30, 41, 99, 1, 100, 100, 100]),
            shares([30, 30, 39, 99, 1, 100, 100, 100]),
            shares([30, 30, 40, 99, 1, 99, 100, 100]),
            shares([30, 30, 40, 99, 1, 100, 100, 101]),
            groups([0, 0, 0, 1, 1, 2, 3, 8]),
        ] {
            is_refused(hca, QETCR, &wrong);
        }
        let mut other_port = shares([30, 30, 40, 99, 1, 100, 100, 100]);
        other_port.set_port_number(2);
        is_refused(hca, QETCR, &other_port);
        // Nothing is selected.
        hca.write_register(QETCR, &QetcReg::default()).unwrap();
        assert_eq!(now(), expected);
    });
}

#[test]
fn a_traffic_class_has_a_highest_rate() {
    with_hca(|hca| {
        let now = || each(hca, |class| (class.max_bw_units(), class.max_bw_value()));
        assert_eq!(now(), [(NO_LIMIT, 0); 8]);
        let mut wanted = [(NO_LIMIT, 0); 8];
        wanted[0] = (HUNDRED_MEGABITS, 255);
        wanted[7] = (GIGABITS, 40);
        hca.write_register(QETCR, &rates(wanted)).unwrap();
        assert_eq!(now(), wanted);
        for wrong in [
            (1, 1),
            (2, 1),
            (5, 1),
            (HUNDRED_MEGABITS, 256),
            (GIGABITS, 256),
            (GIGABITS, 0),
        ] {
            let mut rate = wanted;
            rate[3] = wrong;
            is_refused(hca, QETCR, &rates(rate));
        }
        assert_eq!(now(), wanted);
        let mut of_port = QetcReg::default();
        of_port.global_configuration_mut().set_r(true);
        of_port.global_configuration_mut().set_max_bw_units(GIGABITS);
        of_port.global_configuration_mut().set_max_bw_value(50);
        hca.write_register(QETCR, &of_port).unwrap();
        let port = hca.read_register(QETCR, &QetcReg::default()).unwrap();
        assert_eq!(
            (
                port.global_configuration().max_bw_units(),
                port.global_configuration().max_bw_value()
            ),
            (GIGABITS, 50)
        );
        assert_eq!(now(), wanted);
    });
}

#[test]
fn the_host_or_the_firmware_negotiates() {
    with_hca(|hca| {
        let mut request = DcbxParam::default();
        request.set_port_number(1);
        let read = || hca.read_register(DCBX_PARAM, &request).unwrap();
        assert_eq!((read().version_oper(), read().willing_admin()), (0, false));
        assert_eq!((read().num_of_tc_oper(), read().pfc_cap_oper()), (8, 8));
        let mut wanted = read();
        wanted.set_version_admin(3);
        wanted.set_willing_admin(true);
        hca.write_register(DCBX_PARAM, &wanted).unwrap();
        assert_eq!(
            (read().version_oper(), read().version_admin(), read().willing_admin()),
            (3, 3, true)
        );
        wanted.set_version_admin(4);
        is_refused(hca, DCBX_PARAM, &wanted);
        is_refused(hca, DCBX_PARAM, &DcbxParam::default());
        assert_eq!(read().version_oper(), 3);
    });
}

/// Frames and octets of a priority: received, sent.
fn counted(hca: &Hca, priority: u8) -> [u32; 4] {
    let mut request = of_port!(PpcntReg);
    request.set_grp(0x10);
    request.set_prio_tc(priority);
    let reply = hca.read_register(PPCNT, &request).unwrap();
    assert_eq!((reply.grp(), reply.prio_tc()), (0x10, priority));
    let counters = EthPerPrioGrpDataLayout::read_from_prefix(reply.counter_set())
        .unwrap()
        .0;
    assert_eq!(
        (
            counters.rx_pause_low(),
            counters.tx_pause_low(),
            counters.rx_discards_low()
        ),
        (0, 0, 0)
    );
    [
        counters.rx_frames_low(),
        counters.rx_octets_low(),
        counters.tx_frames_low(),
        counters.tx_octets_low(),
    ]
}

/// Builds a frame with an IPv4 header of this DSCP, behind a tag of this PCP if there is one.
fn frame(from: [u8; 6], to: [u8; 6], pcp: Option<u8>, dscp: u8, length: usize) -> Vec<u8> {
    let mut frame = [to, from].concat();
    if let Some(pcp) = pcp {
        frame.extend([0x81, 0x00, pcp << 5, 7]);
    }
    frame.extend([0x08, 0x00, 0x45, dscp << 2, 0, 40, 0, 0, 0, 0, 64, 253, 0, 0]);
    frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    frame.resize(length, 0xa5);
    frame
}

#[test]
fn frames_are_counted_by_priority() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let (from, to) = (a.hca.machine.mac, b.hca.machine.mac);
    let expect = |hca: &Hca, priority, expected: [u32; 4]| {
        eventually("the frames are counted", || counted(hca, priority) == expected);
    };
    // By the tag: priority 5, and 0 without one.
    a.send(&frame(from, to, Some(5), 26, 100));
    a.send(&frame(from, to, Some(5), 0, 200));
    a.send(&frame(from, to, None, 26, 64));
    expect(&b.hca, 5, [2, 300, 0, 0]);
    expect(&b.hca, 0, [1, 64, 0, 0]);
    expect(&a.hca, 5, [0, 0, 2, 300]);
    expect(&a.hca, 0, [0, 0, 1, 64]);
    // By the DSCP, at the end that trusts it.
    let mut trust = of_port!(QptsReg);
    trust.set_trust_state(DSCP);
    b.hca.write_register(QPTS, &trust).unwrap();
    let mut map = of_port!(QpdpmReg);
    map.dscp_mut()[2 * 46..][..2].copy_from_slice(&[0x80, 6]);
    b.hca.write_register(QPDPM, &map).unwrap();
    a.send(&frame(from, to, Some(1), 26, 70));
    a.send(&frame(from, to, Some(1), 46, 80));
    expect(&b.hca, 3, [1, 70, 0, 0]);
    expect(&b.hca, 6, [1, 80, 0, 0]);
    expect(&a.hca, 1, [0, 0, 2, 150]);
    assert_eq!((counted(&b.hca, 1), counted(&a.hca, 3)), ([0; 4], [0; 4]));
    // A frame without an IP header has priority 0 there.
    a.send(&crate::frames::plain(from, to, 90));
    expect(&b.hca, 0, [2, 154, 0, 0]);

    let mut request = of_port!(PpcntReg);
    request.set_grp(0x10);
    request.set_prio_tc(8);
    refused(a.hca.read_register(PPCNT, &request), Status::BadParameter);
    // The counters of traffic classes are those of the own port, without its number.
    for (group, pnat, expected) in [(0x11, 2, true), (0x13, 2, true), (0x11, 0, false)] {
        let mut request = PpcntReg::default();
        request.set_grp(group);
        request.set_pnat(pnat);
        request.set_prio_tc(7);
        match a.hca.read_register(PPCNT, &request) {
            Ok(reply) => assert!(expected && reply.counter_set().iter().all(|byte| *byte == 0)),
            refusal => {
                assert!(!expected, "group {group:#x}, pnat {pnat}");
                refused(refusal, Status::BadParameter);
            }
        }
    }
    lan.guests.into_iter().for_each(shut);
}

/// Has a driver do something, then resets the device and boots another driver.
pub fn over_a_reset(before: impl FnOnce(&Hca), after: impl FnOnce(&Hca)) {
    let lan = Lan::new(1, &Options::default());
    let machine = lan.guests[0].hca.machine.clone();
    before(&lan.guests[0].hca);
    lan.guests.into_iter().for_each(shut);
    machine.device().reset();
    machine.enable();
    let hca = Hca::boot(&machine);
    after(&hca);
    hca.shutdown();
}

#[test]
fn a_reset_forgets_trust_and_classes() {
    over_a_reset(
        |hca| {
            let mut dscp = of_port!(QptsReg);
            dscp.set_trust_state(DSCP);
            hca.write_register(QPTS, &dscp).unwrap();
            hca.write_register(QETCR, &groups([0; 8])).unwrap();
        },
        |hca| {
            assert_eq!(hca.read_register(QPTS, &of_port!(QptsReg)).unwrap().trust_state(), PCP);
            assert_eq!(each(hca, |class| class.group()), [ALONE; 8]);
        },
    );
}
