//! Management registers and counters, as `devlink` reads and writes them.

use mlx5_prm::command::Status;
use mlx5_prm::management_reg::{McamAccessReg, McamReg, McqiReg, McqiVersion, McqsReg, MfrlReg};
use mlx5_prm::nv_config::{MnvdaReg, NvGlobalPciCap, NvSwOffloadConf};
use mlx5_prm::opcode::Opcode;
use mlx5_prm::vnic_env::{QueryVnicEnvIn, QueryVnicEnvOut};
use mlx5_test_driver::command::CommandError;
use mlx5_test_driver::hca::{Hca, access_register};
use mlx5_test_driver::netdev::Options;
use zerocopy::{FromBytes, IntoBytes};

use crate::commands::refused;
use crate::frames::plain;
use crate::lan::{Lan, shut, with_hca};

/// `MLX5_REG_*` (driver.h).
const MNVDA: u16 = 0x9024;
const MFRL: u16 = 0x9028;
const MCQS: u16 = 0x9060;
const MCQI: u16 = 0x9061;
const MCAM: u16 = 0x907f;
/// Offset of the firmware's version in the initialization segment.
const FW_REV: u64 = 0;
const FW_SUBMINOR: u64 = 4;
/// Configuration items of class 0: offloads, and capabilities of PCI functions.
const SW_OFFLOAD_CONF: u32 = 0x10a;
const GLOBAL_PCI_CAP: u32 = 0x81;
/// Access modes of MNVDA.
const NEXT: u8 = 0;
const CURRENT: u8 = 1;

#[test]
fn the_capability_mask_names_the_registers_there_are() {
    with_hca(|hca| {
        let mut request = McamReg::default();
        let mcam = hca.read_register(MCAM, &request).unwrap();
        let registers = mcam.access_regs();
        assert!(registers.mcqi() && registers.mcqs() && registers.mfrl());
        assert!(!registers.mtmp() && !registers.mtutc());
        assert!(!registers.mrtc() && !registers.mpir() && registers.tracer_registers() == 0);
        let features = mcam.enhanced_features();
        assert!(features.mcia_32dwords() && !features.pci_status_and_power() && !features.pcie_performance_group());
        for group in 1..4 {
            request.set_access_reg_group(group);
            let mcam = hca.read_register(MCAM, &request).unwrap();
            assert_eq!(mcam.access_regs(), &McamAccessReg::default());
        }
        request.set_access_reg_group(4);
        refused(hca.read_register(MCAM, &request), Status::BadParameter);
    });
}

#[test]
fn the_boot_image_has_the_version_of_the_segment() {
    with_hca(|hca| {
        let image = hca.read_register(MCQS, &McqsReg::default()).unwrap();
        assert_eq!(
            (
                image.identifier(),
                image.last_index_flag(),
                image.component_update_state()
            ),
            (1, true, 0)
        );
        let mut request = McqiReg::default();
        request.set_info_type(1);
        request.set_data_size(size_of::<McqiVersion>() as u16);
        let read = |request: &McqiReg| {
            let mut bytes = request.as_bytes().to_vec();
            bytes.resize(size_of::<McqiReg>() + size_of::<McqiVersion>(), 0);
            access_register(&hca.commands, MCQI, false, &bytes)
        };
        let reply = read(&request).unwrap();
        let (header, data) = McqiReg::read_from_prefix(&reply).unwrap();
        assert_eq!(usize::from(header.data_size()), size_of::<McqiVersion>());
        let version = McqiVersion::read_from_prefix(data).unwrap().0;
        let (rev, subminor) = (hca.machine.read(FW_REV), hca.machine.read(FW_SUBMINOR) & 0xffff);
        assert_eq!(version.version(), (rev & 0xff) << 24 | (rev >> 16) << 16 | subminor);
        let text = &version.version_string()[..version.version_string_length().into()];
        let (major, minor) = (rev & 0xffff, rev >> 16);
        assert_eq!(
            std::str::from_utf8(text).unwrap(),
            format!("{major}.{minor}.{subminor:04}")
        );
        // A part of it, and what lies behind its end.
        request.set_offset(4);
        request.set_data_size(4);
        let part = |request: &McqiReg| {
            let reply = read(request).unwrap();
            let (header, data) = McqiReg::read_from_prefix(&reply).unwrap();
            let (data, rest) = data.split_at(header.data_size().into());
            assert!(rest.iter().all(|&byte| byte == 0));
            data.to_vec()
        };
        assert_eq!(part(&request), version.version().to_be_bytes());
        for offset in [size_of::<McqiVersion>() as u32, u32::MAX] {
            request.set_offset(offset);
            assert!(part(&request).is_empty());
        }
        request.set_info_type(9);
        refused(read(&request), Status::BadParameter);
        let mut other = McqsReg::default();
        other.set_component_index(1);
        refused(hca.read_register(MCQS, &other), Status::BadParameter);
        refused(hca.write_register(MCQS, &McqsReg::default()), Status::BadParameter);
    });
}

#[test]
fn new_firmware_takes_a_reboot() {
    with_hca(|hca| {
        assert_eq!(
            hca.read_register(MFRL, &MfrlReg::default()).unwrap().reset_level(),
            1 << 6
        );
        let mut reset = MfrlReg::default();
        reset.set_reset_level(1 << 3);
        reset.set_pci_sync_for_fw_update_start(true);
        refused(hca.write_register(MFRL, &reset), Status::BadParameter);
    });
}

fn item(class: u8, index: u32, access_mode: u8) -> MnvdaReg {
    let mut item = MnvdaReg::default();
    let header = item.configuration_item_header_mut();
    header.set_type_class(class);
    header.set_parameter_index(index);
    header.set_access_mode(access_mode);
    item
}

/// Returns the type of CQE compression.
fn compression(hca: &Hca, access_mode: u8) -> u8 {
    let item = hca
        .read_register(MNVDA, &item(0, SW_OFFLOAD_CONF, access_mode))
        .unwrap();
    assert_eq!(
        usize::from(item.configuration_item_header().length()),
        size_of::<NvSwOffloadConf>()
    );
    NvSwOffloadConf::ref_from_prefix(item.configuration_item_data())
        .unwrap()
        .0
        .cqe_compression()
}

pub fn compress(hca: &Hca, change: impl FnOnce(&mut NvSwOffloadConf)) -> Result<(), CommandError> {
    let mut item = item(0, SW_OFFLOAD_CONF, NEXT);
    change(
        NvSwOffloadConf::mut_from_prefix(item.configuration_item_data_mut())
            .unwrap()
            .0,
    );
    hca.write_register(MNVDA, &item)
}

#[test]
fn configuration_in_flash_takes_effect_at_a_reset() {
    let lan = Lan::new(1, &Options::default());
    let machine = lan.guests[0].hca.machine.clone();
    {
        let hca = &lan.guests[0].hca;
        assert_eq!(compression(hca, NEXT), 0);
        compress(hca, |offloads| offloads.set_cqe_compression(1)).unwrap();
        assert_eq!((compression(hca, NEXT), compression(hca, CURRENT)), (1, 0));
        refused(
            compress(hca, |offloads| offloads.set_cqe_compression(2)),
            Status::BadParameter,
        );
        refused(
            compress(hca, |offloads| offloads.set_uctx_en(true)),
            Status::BadParameter,
        );
        let functions = hca.read_register(MNVDA, &item(0, GLOBAL_PCI_CAP, NEXT)).unwrap();
        let functions = NvGlobalPciCap::ref_from_prefix(functions.configuration_item_data())
            .unwrap()
            .0;
        assert!(!functions.sriov_support());
        refused(hca.read_register(MNVDA, &item(0, 0x7ff, NEXT)), Status::BadParameter);
        hca.read_register(MNVDA, &item(3, 0x80, NEXT)).unwrap();
        refused(
            hca.read_register(MNVDA, &item(3, 1 << 18 | 0x80, NEXT)),
            Status::BadParameter,
        );
        refused(hca.write_register(MNVDA, &item(3, 0x80, NEXT)), Status::BadParameter);
    }
    lan.guests.into_iter().for_each(shut);
    machine.device().reset();
    machine.enable();
    let hca = Hca::boot(&machine);
    assert_eq!((compression(&hca, NEXT), compression(&hca, CURRENT)), (1, 1));
    hca.shutdown();
    // Another machine finds the configuration of the factory.
    machine.device().power_cycle();
    machine.enable();
    let hca = Hca::boot(&machine);
    assert_eq!((compression(&hca, NEXT), compression(&hca, CURRENT)), (0, 0));
    hca.shutdown();
}

#[test]
fn the_vnic_counts_what_went_wrong() {
    let mut lan = Lan::new(
        2,
        &Options {
            log_cq: 2,
            ..Options::default()
        },
    );
    let (a, b) = lan.pair();
    let query = |hca: &Hca, input: &QueryVnicEnvIn| -> Result<QueryVnicEnvOut, CommandError> {
        hca.commands.call(Opcode::QUERY_VNIC_ENV, input)
    };
    let counters = |hca: &Hca| query(hca, &QueryVnicEnvIn::default()).unwrap().vport_env().clone();
    let before = counters(&b.hca);
    assert_eq!((before.invalid_command(), before.cq_overrun()), (0, 0));
    refused(hca_register(&b.hca, 0x5001), Status::BadParameter);
    assert_eq!(counters(&b.hca).invalid_command(), 1);
    assert_eq!(counters(&a.hca).invalid_command(), 0, "that was another guest");
    // To nobody's address: no flow table entry matches.
    a.send(&plain(a.hca.machine.mac, [2, 0, 0, 0, 0x77, 0x77], 60));
    b.expect_silence();
    assert_eq!(counters(&b.hca).nic_receive_steering_discard(), 1);
    let channel = &mut b.channels[0];
    for _ in 0..5 {
        channel.sq.nop();
    }
    mlx5_test_driver::wait::eventually("an overrun", || counters(&b.hca).cq_overrun() == 1);
    let mut other = QueryVnicEnvIn::default();
    other.set_other_vport(true);
    other.set_vport_number(1);
    refused(query(&b.hca, &other), Status::BadParameter);
    lan.guests.into_iter().for_each(shut);
}

fn hca_register(hca: &Hca, id: u16) -> Result<Vec<u8>, CommandError> {
    access_register(&hca.commands, id, false, &[0; 16])
}
