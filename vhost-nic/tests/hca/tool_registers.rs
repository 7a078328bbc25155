//! Registers that the vendor's tools read: mstflint, mstconfig, mstlink.

use mlx5_prm::access_reg::{PddrReg, PddrTroubleshootingPage, PmaosReg, SltpReg};
use mlx5_prm::command::Status;
use mlx5_prm::layout::Layout;
use mlx5_prm::management_reg::{McamReg, MccReg};
use mlx5_prm::nv_config::{MnvdaReg, NvBaseMacGuid, NvBaseMacGuidCap, NvVpiLinkType};
use mlx5_prm::tool_reg::{MgirReg, MnvgcReg, MnvqcReg, MqisReg, PddrModuleInfo, PddrOperationInfoPage};
use mlx5_test_driver::hca::{Hca, access_register};
use zerocopy::IntoBytes;

use crate::commands::refused;
use crate::inspect::Inspect;
use crate::lan::with_hca;

/// `REG_ID_*` (mstflint's reg_access.c), and numbers of its register_access_table.adb.
const PMAOS: u16 = 0x5012;
const SLTP: u16 = 0x5027;
const PDDR: u16 = 0x5031;
const MGIR: u16 = 0x9020;
const MNVDA: u16 = 0x9024;
const MNVQC: u16 = 0x9030;
const MNVGC: u16 = 0x9034;
const MCC: u16 = 0x9062;
const MCDA: u16 = 0x9063;
const MQIS: u16 = 0x9064;
const MCAM: u16 = 0x907f;
/// Strings of MQIS.
const NAME: u8 = 1;
const DESCRIPTION: u8 = 2;
/// Pages of PDDR.
const OPERATION: u8 = 0;
const TROUBLESHOOTING: u8 = 1;
const MODULE: u8 = 3;

fn address(hca: &Hca) -> u64 {
    hca.machine.mac.iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

#[test]
fn the_adapter_tells_its_model_address_and_firmware() {
    with_hca(|hca| {
        let information = hca.read_register(MGIR, &MgirReg::default()).unwrap();
        assert_eq!(
            (
                information.device_id(),
                information.hw_dev_id(),
                information.num_ports()
            ),
            (0x1017, 525, 1)
        );
        let address = address(hca);
        assert_eq!(
            u64::from(information.manufacturing_base_mac_47_32()) << 32
                | u64::from(information.manufacturing_base_mac_31_0()),
            address
        );
        // As in the initialization segment.
        let (rev, subminor) = (hca.machine.read(0), hca.machine.read(4) & 0xffff);
        assert_eq!(
            (
                information.extended_major(),
                information.extended_minor(),
                information.extended_sub_minor()
            ),
            (rev & 0xffff, rev >> 16, subminor)
        );
        assert_eq!(
            (u32::from(information.major()), u32::from(information.minor())),
            (rev & 0xff, rev >> 16)
        );
        assert_eq!(information.psid(), b"VHOST_NIC_000001");
        refused(hca.write_register(MGIR, &MgirReg::default()), Status::BadParameter);
    });
}

#[test]
fn the_description_is_read_in_parts() {
    with_hca(|hca| {
        let read = |kind, offset, length| {
            let mut request = MqisReg::default();
            request.set_info_type(kind);
            request.set_read_offset(offset);
            request.set_read_length(length);
            let reply = hca.read_register(MQIS, &request).unwrap();
            let part = reply.info_string()[..reply.read_length().into()].to_vec();
            (reply.info_length(), part)
        };
        assert_eq!(read(NAME, 0, 8), (9, b"VHOST-NI".to_vec()));
        assert_eq!(read(NAME, 8, 8), (9, b"C".to_vec()));
        assert_eq!(read(NAME, 1, 2), (9, b"HO".to_vec()));
        assert_eq!(read(NAME, u16::MAX, u16::MAX), (9, Vec::new()));
        let (length, _) = read(DESCRIPTION, 0, 8);
        let text: Vec<u8> = (0..length)
            .step_by(8)
            .flat_map(|offset| read(DESCRIPTION, offset, 8).1)
            .collect();
        assert_eq!(text, b"ConnectX-5 (vhost-nic)");
        assert_eq!(read(3, 0, 8), (0, Vec::new()), "no string of the image");
        for kind in [0, 6, 0xff] {
            let mut request = MqisReg::default();
            request.set_info_type(kind);
            refused(hca.read_register(MQIS, &request), Status::BadParameter);
        }
        refused(hca.write_register(MQIS, &MqisReg::default()), Status::BadParameter);
    });
}

#[test]
fn the_firmware_is_asked_and_not_the_flash() {
    with_hca(|hca| {
        let mcam = hca.read_register(MCAM, &McamReg::default()).unwrap();
        let registers = mcam.access_regs();
        assert!(registers.mcqs() && registers.mcqi() && registers.mcc() && registers.mcda());
        let mask = u128::from_be_bytes(registers.as_bytes().try_into().unwrap());
        for id in [MGIR, MNVDA, MNVQC, MNVGC, MCC, MCDA, MQIS] {
            assert_eq!(mask >> (id - 0x9000) & 1, 1, "{id:#x}");
        }
        // An update is idle, and does not begin.
        assert_eq!(hca.read_register(MCC, &MccReg::default()).unwrap(), MccReg::default());
        let mut lock = MccReg::default();
        lock.set_instruction(1);
        refused(hca.write_register(MCC, &lock), Status::BadParameter);
        let mut other = MccReg::default();
        other.set_component_index(1);
        refused(hca.read_register(MCC, &other), Status::BadParameter);
        for write in [false, true] {
            refused(
                access_register(&hca.commands, MCDA, write, &[0; 0x90]),
                Status::BadParameter,
            );
        }
    });
}

fn item<T: Layout + Clone>(hca: &Hca, class: u8, index: u32) -> T {
    let mut request = MnvdaReg::default();
    let header = request.configuration_item_header_mut();
    header.set_type_class(class);
    header.set_parameter_index(index);
    let reply = hca.read_register(MNVDA, &request).unwrap();
    assert_eq!(usize::from(reply.configuration_item_header().length()), T::SIZE);
    T::read_from_prefix(reply.configuration_item_data()).unwrap().0
}

#[test]
fn configuration_items_tell_addresses_and_link_type() {
    with_hca(|hca| {
        let addresses: NvBaseMacGuid = item(hca, 0, 2);
        assert_eq!(addresses.base_mac(), address(hca));
        let [a, b, c, d, e, f] = hca.machine.mac;
        assert_eq!(addresses.base_guid().to_be_bytes(), [a, b, c, 0xff, 0xfe, d, e, f]);
        let numbers: NvBaseMacGuidCap = item(hca, 0, 3);
        assert_eq!(
            (numbers.num_of_allocated_macs(), numbers.num_of_allocated_guids()),
            (1, 1)
        );
        let link: NvVpiLinkType = item(hca, 2, 1 << 16 | 0x12);
        assert_eq!(link.default_link_type(), 2);
        let mut other_port = MnvdaReg::default();
        other_port.configuration_item_header_mut().set_type_class(2);
        other_port
            .configuration_item_header_mut()
            .set_parameter_index(2 << 16 | 0x12);
        refused(hca.read_register(MNVDA, &other_port), Status::BadParameter);
    });
}

#[test]
fn configuration_items_can_be_read_and_one_can_be_written() {
    with_hca(|hca| {
        let support = |class, index| {
            let mut request = MnvqcReg::default();
            request.set_type_class(class);
            request.set_parameter_index(index);
            let reply = hca.read_register(MNVQC, &request).unwrap();
            (reply.support_rd(), reply.support_wr())
        };
        for (class, index) in [(0, 2), (0, 3), (0, 0x80), (0, 0x81), (0, 0x10b), (0, 0x11d), (3, 0x80)] {
            assert_eq!(support(class, index), (true, false), "{class}, {index:#x}");
        }
        assert_eq!(support(0, 0x10a), (true, true));
        assert_eq!(support(2, 1 << 16 | 0x12), (true, false));
        for (class, index) in [
            (0, 0),
            (0, 0x7ff),
            (2, 0x12),
            (2, 2 << 16 | 0x12),
            (0x81, 0x12),
            (0xff, 0xff_ffff),
        ] {
            assert_eq!(support(class, index), (false, false), "{class}, {index:#x}");
        }
        let values = hca.read_register(MNVGC, &MnvgcReg::default()).unwrap();
        assert!(values.nvda_read_current_settings() && values.nvda_read_factory_settings());
        refused(hca.write_register(MNVQC, &MnvqcReg::default()), Status::BadParameter);
        refused(hca.write_register(MNVGC, &MnvgcReg::default()), Status::BadParameter);
    });
}

fn page<T: Layout>(hca: &Hca, number: u8) -> T {
    let mut request = PddrReg::default();
    request.set_local_port(1);
    request.set_page_select(number);
    let reply = hca.read_register(PDDR, &request).unwrap();
    assert_eq!((reply.local_port(), reply.page_select()), (1, number));
    T::read_from_prefix(reply.page_data()).unwrap().0
}

/// Reason for having no link: number and text.
fn reason(hca: &Hca) -> (u32, String) {
    let page: PddrTroubleshootingPage = page(hca, TROUBLESHOOTING);
    let text = page.status_message().split(|byte| *byte == 0).next().unwrap();
    (page.status_opcode(), String::from_utf8(text.to_vec()).unwrap())
}

#[test]
fn the_diagnostics_follow_the_link() {
    with_hca(|hca| {
        let operation = || -> PddrOperationInfoPage { page(hca, OPERATION) };
        let now = operation();
        assert_eq!(
            (now.proto_active(), now.phy_mngr_fsm_state(), now.eth_an_fsm_state()),
            (4, 3, 6)
        );
        // 100GBASE-KR4 with Reed-Solomon, number 2.
        assert_eq!(
            (now.link_active(), now.fec_mode_active(), now.loopback_mode()),
            (1 << 22, 2, 0)
        );
        assert_eq!(reason(hca), (0, "No issue was observed".to_owned()));

        hca.machine.nic().set_cable(false);
        assert_eq!((operation().phy_mngr_fsm_state(), operation().link_active()), (2, 0));
        assert_eq!(reason(hca), (1024, "Cable is unplugged".to_owned()));
        hca.machine.nic().set_cable(true);
        assert_eq!(reason(hca).0, 0);

        let mut request = PddrReg::default();
        request.set_local_port(1);
        request.set_page_select(0xff);
        refused(hca.read_register(PDDR, &request), Status::BadParameter);
        request.set_page_select(OPERATION);
        refused(hca.write_register(PDDR, &request), Status::BadParameter);
        request.set_local_port(2);
        refused(hca.read_register(PDDR, &request), Status::BadParameter);
    });
}

#[test]
fn the_module_is_the_cable_that_is_plugged_in() {
    with_hca(|hca| {
        let info: PddrModuleInfo = page(hca, MODULE);
        assert_eq!(
            (info.cable_type(), info.cable_length(), info.cable_technology()),
            (3, 1, 0xa0)
        );
        assert_eq!(
            (info.vendor_name(), info.vendor_pn()),
            (b"vhost-nic       ", b"DAC-100G-1M     ")
        );
        let serial: String = hca.machine.mac.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(info.vendor_sn(), format!("{serial:16}").as_bytes());
        let status = || hca.read_register(PMAOS, &PmaosReg::default()).unwrap().oper_status();
        assert_eq!(status(), 1);
        hca.machine.nic().set_cable(false);
        let info: PddrModuleInfo = page(hca, MODULE);
        assert_eq!((info.cable_type(), info.vendor_name()), (4, &[0; 16]));
        assert_eq!(status(), 2);
        let mut other = PmaosReg::default();
        other.set_module(1);
        refused(hca.read_register(PMAOS, &other), Status::BadParameter);
        refused(hca.write_register(PMAOS, &PmaosReg::default()), Status::BadParameter);
    });
}

#[test]
fn each_lane_has_a_transmitter() {
    with_hca(|hca| {
        let mut request = SltpReg::default();
        request.set_local_port(1);
        request.set_lane(3);
        let lane = hca.read_register(SLTP, &request).unwrap();
        assert_eq!((lane.lane(), lane.version(), lane.status()), (3, 1, 0));
        refused(hca.write_register(SLTP, &request), Status::BadParameter);
        request.set_lane(4);
        refused(hca.read_register(SLTP, &request), Status::BadParameter);
    });
}
