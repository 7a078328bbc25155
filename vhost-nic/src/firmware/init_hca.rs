//! Commands that enable, start and stop the HCA, and that give it pages.

use std::collections::VecDeque;
use std::sync::Arc;

use log::info;
use mlx5_prm::init_hca::*;
use mlx5_prm::opcode::Opcode;

use super::Firmware;
use super::command::{Commands, Input, OVER_BUDGET, Reply, Result, bad_parameter};
use crate::hca::memory_budget::{Budget, Charge, OverBudget};

pub(super) const COMMANDS: Commands = &[
    (Opcode::ENABLE_HCA, enable_hca),
    (Opcode::DISABLE_HCA, disable_hca),
    (Opcode::QUERY_ISSI, query_issi),
    (Opcode::SET_ISSI, set_issi),
    (Opcode::QUERY_PAGES, query_pages),
    (Opcode::MANAGE_PAGES, manage_pages),
    (Opcode::INIT_HCA, init_hca),
    (Opcode::TEARDOWN_HCA, teardown_hca),
    (Opcode::QUERY_ADAPTER, query_adapter),
    (Opcode::SET_DRIVER_VERSION, set_driver_version),
];

/// Supported interface steps (ISSI), a bit each: only 1.
const SUPPORTED_ISSI: u32 = 1 << 1;
/// Pages the firmware requests before its capabilities are set, and before INIT_HCA.
const BOOT_PAGES: u32 = 32;
const INIT_PAGES: u32 = 256;
/// Variants of QUERY_PAGES (`MLX5_BOOT_PAGES` and so on, core/pagealloc.c).
const QUERY_BOOT_PAGES: u16 = 1;
const QUERY_INIT_PAGES: u16 = 2;
const QUERY_REGULAR_PAGES: u16 = 3;
/// Variants of MANAGE_PAGES (`MLX5_PAGES_*`, core/pagealloc.c).
const PAGES_CANT_GIVE: u16 = 0;
const PAGES_GIVE: u16 = 1;
const PAGES_TAKE: u16 = 2;
/// IEEE OUI of the vendor.
const IEEE_VENDOR_ID: u32 = 0x2c9;
/// Parameter-set id; the driver shows it as board id.
pub(super) const PSID: &[u8; 16] = b"VHOST_NIC_000001";
/// Variants of TEARDOWN_HCA (`MLX5_TEARDOWN_HCA_IN_PROFILE_*`, mlx5_ifc.h).
const TEARDOWN_GRACEFUL: u16 = 0;
const TEARDOWN_FORCE: u16 = 1;
const TEARDOWN_FAST: u16 = 2;

/// Addresses of the pages that the driver gave. This firmware stores nothing in them, but holds them as real firmware
/// does.
#[derive(Debug)]
pub(super) struct Pages {
    addresses: VecDeque<u64>,
    charge: Charge,
}

impl Pages {
    /// Creates an empty list, charged to `budget` as it grows.
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            addresses: VecDeque::new(),
            charge: Charge::none(budget),
        }
    }

    pub(super) fn held(&self) -> usize {
        self.addresses.len()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = u64> {
        self.addresses.iter().copied()
    }

    fn give(&mut self, pages: &[[u8; 8]]) -> std::result::Result<(), OverBudget> {
        // The capacity is at most twice the length.
        self.charge
            .resize((self.held() + pages.len()) as u64 * 2 * size_of::<u64>() as u64)?;
        self.addresses
            .extend(pages.iter().map(|page| u64::from_be_bytes(*page)));
        Ok(())
    }

    fn take(&mut self, count: usize) -> Vec<u64> {
        let taken = self.addresses.drain(..count.min(self.held())).collect();
        self.addresses.shrink_to_fit();
        // Shrinking is always possible.
        let _ = self.charge.resize(self.held() as u64 * 2 * size_of::<u64>() as u64);
        taken
    }

    /// Forgets all pages.
    pub(super) fn clear(&mut self) {
        self.take(usize::MAX);
    }
}

fn enable_hca(firmware: &Firmware, _: Input<'_>) -> Result {
    firmware.capabilities.lock().reset();
    Reply::ok::<EnableHcaOut>()
}

fn disable_hca(firmware: &Firmware, _: Input<'_>) -> Result {
    if !firmware.hca.object_counts().is_empty() {
        firmware.hca.report_left("DISABLE_HCA");
        firmware.hca.clear();
    }
    firmware.report_pages_left();
    firmware.forget();
    Reply::ok::<DisableHcaOut>()
}

fn query_issi(_: &Firmware, _: Input<'_>) -> Result {
    let mut output = QueryIssiOut::default();
    output.set_supported_issi_dw0(SUPPORTED_ISSI);
    Reply::new(output)
}

fn set_issi(_: &Firmware, input: Input<'_>) -> Result {
    let issi = input.fields::<SetIssiIn>()?.current_issi();
    if u32::from(issi) >= u32::BITS || SUPPORTED_ISSI & 1 << issi == 0 {
        return Err(bad_parameter("the interface step is not supported"));
    }
    Reply::ok::<SetIssiOut>()
}

fn query_pages(_: &Firmware, input: Input<'_>) -> Result {
    let mut output = QueryPagesOut::default();
    output.set_num_pages(match input.op_mod() {
        QUERY_BOOT_PAGES => BOOT_PAGES,
        QUERY_INIT_PAGES => INIT_PAGES,
        QUERY_REGULAR_PAGES => 0,
        _ => return Err(bad_parameter("unknown kind of pages")),
    });
    Reply::new(output)
}

fn manage_pages(firmware: &Firmware, input: Input<'_>) -> Result {
    let op_mod = input.op_mod();
    let (input, list) = input.with_tail::<ManagePagesIn>()?;
    let count = input.input_num_entries() as usize;
    let mut pages = firmware.pages.lock();
    let mut output = ManagePagesOut::default();
    match op_mod {
        PAGES_CANT_GIVE => Reply::new(output),
        PAGES_GIVE => {
            let (list, _) = list.as_chunks::<8>();
            let list = list
                .get(..count)
                .ok_or(bad_parameter("the list of pages is shorter than its count"))?;
            pages.give(list).map_err(|OverBudget| OVER_BUDGET)?;
            Reply::new(output)
        }
        PAGES_TAKE => {
            let taken = pages.take(count);
            let list: Vec<u8> = taken.iter().flat_map(|page| page.to_be_bytes()).collect();
            output.set_output_num_entries(taken.len() as u32);
            Reply::with_tail(output, &list)
        }
        _ => Err(bad_parameter("unknown variant of MANAGE_PAGES")),
    }
}

fn init_hca(firmware: &Firmware, _: Input<'_>) -> Result {
    firmware.hca.port.set_initialized(true);
    Reply::ok::<InitHcaOut>()
}

fn teardown_hca(firmware: &Firmware, input: Input<'_>) -> Result {
    let profile = input.fields::<TeardownHcaIn>()?.profile();
    if !matches!(profile, TEARDOWN_GRACEFUL | TEARDOWN_FORCE | TEARDOWN_FAST) {
        return Err(bad_parameter("unknown variant of TEARDOWN_HCA"));
    }
    firmware.hca.port.set_initialized(false);
    if profile != TEARDOWN_GRACEFUL {
        // The driver destroys no objects before it resets the function or the machine powers off.
        firmware.hca.clear();
    }
    Reply::ok::<TeardownHcaOut>()
}

fn query_adapter(_: &Firmware, _: Input<'_>) -> Result {
    let mut output = QueryAdapterOut::default();
    let adapter = output.query_adapter_struct_mut();
    adapter.set_ieee_vendor_id(IEEE_VENDOR_ID);
    *adapter.vsd_contd_psid_mut() = *PSID;
    Reply::new(output)
}

fn set_driver_version(_: &Firmware, input: Input<'_>) -> Result {
    let version = input.fields::<SetDriverVersionIn>()?.driver_version();
    let text: String = version
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|byte| char::from(*byte))
        .collect();
    info!("guest driver: {}", text.escape_debug());
    Reply::ok::<SetDriverVersionOut>()
}
