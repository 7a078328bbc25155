//! PMLP, PMAOS and MCIA: the cage of the port, and what is plugged in: a passive copper cable of one metre with QSFP28
//! ends. It carries the link modes that the port has, and no module that can be switched off or grow hot.

use mlx5_prm::access_reg::{PmaosReg, PmlpReg};
use mlx5_prm::management_reg::MciaReg;
use zerocopy::IntoBytes;

use super::{LANES, PORT, check_port, register};
use crate::firmware::Firmware;
use crate::firmware::command::{Result, bad_parameter};
use crate::frame::mac::Mac;

/// Number of the port's module.
const MODULE: u8 = 0;
/// `admin_status` and `oper_status` of PMAOS (`enum` of `MLX5_MODULE_STATUS_*`, core/events.c): plugged in, unplugged.
const ENABLED: u8 = 1;
const UNPLUGGED: u8 = 2;
/// Address of the module's memory on its bus (`MLX5_I2C_ADDR_LOW`, port.h).
const MEMORY_ADDRESS: u8 = 0x50;
/// `status` of MCIA: no memory answers at the address; no module is connected.
const NO_MEMORY: u8 = 1;
const NOT_CONNECTED: u8 = 3;

pub(super) fn pmlp(data: &[u8]) -> Result<Vec<u8>> {
    let requested: PmlpReg = register(data);
    check_port(requested.local_port())?;
    let mut reply = PmlpReg::default();
    reply.set_local_port(PORT);
    reply.set_width(LANES);
    // Receive lane, transmit lane and module (`struct mlx5_ifc_lane_2_module_mapping_bits`).
    let mapping = |lane: u32| lane << 24 | lane << 16 | u32::from(MODULE);
    reply.set_lane0_module_mapping(mapping(0));
    reply.set_lane1_module_mapping(mapping(1));
    reply.set_lane2_module_mapping(mapping(2));
    reply.set_lane3_module_mapping(mapping(3));
    Ok(reply.as_bytes().to_vec())
}

pub(super) fn pmaos(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    if write {
        return Err(bad_parameter("the module cannot be switched"));
    }
    let requested: PmaosReg = register(data);
    if requested.module() != MODULE {
        return Err(bad_parameter("the device has no such module"));
    }
    let mut reply = PmaosReg::default();
    reply.set_module(MODULE);
    reply.set_admin_status(ENABLED);
    reply.set_oper_status(if firmware.hca.port.state().cable {
        ENABLED
    } else {
        UNPLUGGED
    });
    Ok(reply.as_bytes().to_vec())
}

pub(super) fn mcia(firmware: &Firmware, data: &[u8]) -> Result<Vec<u8>> {
    let requested: MciaReg = register(data);
    if requested.module() != MODULE {
        return Err(bad_parameter("the device has no such module"));
    }
    let mut reply = requested.clone();
    reply.dwords_mut().fill(0);
    let (start, length) = (usize::from(requested.device_address()), usize::from(requested.size()));
    if length > reply.dwords().len() || start + length > MEMORY_SIZE {
        return Err(bad_parameter("the read goes beyond the module's page"));
    }
    // The memory is flat: every page is the first.
    let status = match requested.i2c_device_address() {
        _ if !firmware.hca.port.state().cable => NOT_CONNECTED,
        MEMORY_ADDRESS => {
            let memory = memory(firmware.hca.vport.read().permanent);
            reply.dwords_mut()[..length].copy_from_slice(&memory[start..start + length]);
            0
        }
        _ => NO_MEMORY,
    };
    reply.set_status(status);
    Ok(reply.as_bytes().to_vec())
}

/// Bytes of the lower and the upper page.
const MEMORY_SIZE: usize = 256;

/// Returns the memory of the end of a cable in a NIC with this MAC address, which is its serial number. Offsets and
/// values are those of SFF-8636, revision 2.10, and SFF-8024.
pub(super) fn memory(mac: Mac) -> [u8; MEMORY_SIZE] {
    let mut memory = [0; MEMORY_SIZE];
    let mut put = |offset: usize, bytes: &[u8]| memory[offset..offset + bytes.len()].copy_from_slice(bytes);
    // QSFP28, revision 2.5 to 2.7, flat memory.
    put(0, &[0x11, 0x07, 0x04]);
    // QSFP28; 1.5 W; no separable connector; an extended compliance code and 40GBASE-CR4.
    put(128, &[0x11, 0x00, 0x23, 0x88]);
    // Encoding 64B/66B; rate in byte 222.
    put(139, &[0x05, 0xff]);
    // One metre of unequalized copper.
    put(146, &[0x01, 0xa0]);
    put(148, b"vhost-nic       ");
    put(168, b"DAC-100G-1M     ");
    put(184, b"A ");
    // Attenuation in dB at 2.5, 5, 7 and 12.9 GHz.
    put(186, &[3, 4, 5, 7]);
    // 100GBASE-CR4.
    put(192, &[0x0b]);
    let serial: String = mac.0.iter().map(|byte| format!("{byte:02X}")).collect();
    put(196, format!("{serial:16}").as_bytes());
    put(212, b"260101  ");
    // 25.75 GBd per lane.
    put(222, &[0x67]);
    let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    memory[191] = sum(&memory[128..191]);
    memory[223] = sum(&memory[192..223]);
    memory
}
