//! Boot and shutdown of the adapter (`core/main.c`, `core/pagealloc.c`, `core/eq.c`).

use std::collections::BTreeSet;
use std::sync::Arc;

use mlx5_prm::access_reg::{AccessRegisterIn, AccessRegisterOut};
use mlx5_prm::capability::{CmdHcaCap, QueryHcaCapIn, QueryHcaCapOut, SetHcaCapIn, SetHcaCapOut};
use mlx5_prm::domain::*;
use mlx5_prm::init_hca::*;
use mlx5_prm::layout::{Layout, get};
use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::EventType;
use parking_lot::Mutex;
use zerocopy::FromBytes;

use crate::command::{Commands, Result};
use crate::eq::EventQueue;
use crate::machine::Machine;
use crate::memory::{Block, PAGE};
use crate::wait::await_some;

/// Registers of the initialization segment (`struct mlx5_init_seg`).
const FW_REV: u64 = 0x0;
const CMDIF_REV: u64 = 0x4;
const INITIALIZING: u64 = 0x1fc;
/// The command interface revision that the driver supports (`CMD_IF_REV`).
const COMMAND_INTERFACE: u32 = 5;
/// `op_mod` of QUERY_PAGES and MANAGE_PAGES.
const BOOT_PAGES: u16 = 1;
const INIT_PAGES: u16 = 2;
const GIVE: u16 = 1;
const TAKE: u16 = 2;
/// Maximum number of pages reclaimed at once (`MAX_RECLAIM_NPAGES`).
const MAX_RECLAIM: u32 = 768;
/// Capability group (`MLX5_CAP_GENERAL`), and mode of the query (`HCA_CAP_OPMOD_GET_CUR`).
pub const GENERAL: u16 = 0;
const CURRENT: u16 = 1;
/// Register for ACCESS_REG (`MLX5_REG_HOST_ENDIANNESS`).
const HOST_ENDIANNESS: u16 = 0x7004;
/// Vector of all event queues except those for completions.
pub const ASYNC_VECTOR: u16 = 0;
/// Event types of the driver's asynchronous event queue (observed with Linux).
const ASYNC_EVENTS: u64 = 0x1f_02be;

/// A booted adapter.
pub struct Hca {
    /// The machine that it is in.
    pub machine: Arc<Machine>,
    /// Command queue.
    pub commands: Commands,
    /// The driver's UAR page.
    pub uar: u32,
    /// General capabilities in effect.
    pub capabilities: CmdHcaCap,
    /// Asynchronous events of queues and the port.
    pub events: Mutex<EventQueue>,
    page_events: Mutex<EventQueue>,
    pages: Mutex<Vec<Block>>,
}

impl Hca {
    /// Boots the adapter as `mlx5_core` does in probe.
    pub fn boot(machine: &Arc<Machine>) -> Self {
        assert_eq!(
            machine.read(INITIALIZING) >> 31,
            0,
            "the firmware is still initializing"
        );
        assert_eq!(machine.read(CMDIF_REV) >> 16, COMMAND_INTERFACE);
        assert_ne!(machine.read(FW_REV), u32::MAX);
        let commands = Commands::new(Arc::clone(machine));
        commands
            .call::<_, EnableHcaOut>(Opcode::ENABLE_HCA, &EnableHcaIn::default())
            .unwrap();
        let issi: QueryIssiOut = commands.call(Opcode::QUERY_ISSI, &QueryIssiIn::default()).unwrap();
        assert_ne!(
            issi.supported_issi_dw0() & 1 << 1,
            0,
            "the firmware does not support ISSI 1"
        );
        let mut input = SetIssiIn::default();
        input.set_current_issi(1);
        commands.call::<_, SetIssiOut>(Opcode::SET_ISSI, &input).unwrap();
        let pages = Mutex::new(Vec::new());
        give_pages(machine, &commands, &pages, BOOT_PAGES);
        access_register(&commands, HOST_ENDIANNESS, true, &[0; 16]).unwrap();
        let capabilities = set_capabilities(&commands);
        give_pages(machine, &commands, &pages, INIT_PAGES);
        commands
            .call::<_, InitHcaOut>(Opcode::INIT_HCA, &InitHcaIn::default())
            .unwrap();
        let mut input = SetDriverVersionIn::default();
        input.driver_version_mut()[..15].copy_from_slice(b"Test,mlx5,1.0.0");
        commands
            .call::<_, SetDriverVersionOut>(Opcode::SET_DRIVER_VERSION, &input)
            .unwrap();
        let adapter: QueryAdapterOut = commands
            .call(Opcode::QUERY_ADAPTER, &QueryAdapterIn::default())
            .unwrap();
        assert_eq!(adapter.query_adapter_struct().ieee_vendor_id(), 0x2c9);
        let uar = alloc_uar(&commands).unwrap();
        let eq = |log_size, mask| {
            let queue = EventQueue::create(machine, &commands, uar, ASYNC_VECTOR, log_size, mask).unwrap();
            queue.update(true);
            queue
        };
        commands.use_events(Some(eq(5, EventType::Command.bit())));
        let events = Mutex::new(eq(8, ASYNC_EVENTS));
        let page_events = Mutex::new(eq(4, EventType::PageRequest.bit()));
        Self {
            machine: Arc::clone(machine),
            commands,
            uar,
            capabilities,
            events,
            page_events,
            pages,
        }
    }

    /// Shuts the adapter down as `mlx5_core` does in remove. Panics if an object is left or a page does not come back.
    pub fn shutdown(self) {
        self.page_events.lock().destroy(&self.commands).unwrap();
        self.events.lock().destroy(&self.commands).unwrap();
        let command_events = self.commands.use_events(None).unwrap();
        command_events.destroy(&self.commands).unwrap();
        dealloc_uar(&self.commands, self.uar).unwrap();
        let left = self.machine.device().objects();
        assert!(left.is_empty(), "objects left: {left:?}");
        self.commands
            .call::<_, TeardownHcaOut>(Opcode::TEARDOWN_HCA, &TeardownHcaIn::default())
            .unwrap();
        self.reclaim_pages();
        self.commands
            .call::<_, DisableHcaOut>(Opcode::DISABLE_HCA, &DisableHcaIn::default())
            .unwrap();
        assert_eq!(self.machine.device().firmware_pages(), 0);
    }

    /// Reclaims all pages.
    fn reclaim_pages(&self) {
        let given: BTreeSet<u64> = self.pages.lock().iter().map(Block::address).collect();
        let mut returned = BTreeSet::new();
        while returned.len() < given.len() {
            let mut input = ManagePagesIn::default();
            input.set_input_num_entries(MAX_RECLAIM);
            let room = MAX_RECLAIM as usize * 8;
            let (output, list): (ManagePagesOut, _) = self
                .commands
                .call_with(Opcode::MANAGE_PAGES, TAKE, &input, &[], room)
                .unwrap();
            assert_ne!(output.output_num_entries(), 0, "the firmware does not return all pages");
            for page in list
                .as_chunks::<8>()
                .0
                .iter()
                .take(output.output_num_entries() as usize)
            {
                assert!(returned.insert(u64::from_be_bytes(*page)), "a page is returned twice");
            }
        }
        assert_eq!(returned, given);
        self.pages.lock().clear();
    }

    /// Reads a register with ACCESS_REG.
    pub fn read_register<T: Layout>(&self, id: u16, input: &T) -> Result<T> {
        let data = access_register(&self.commands, id, false, input.as_bytes())?;
        Ok(T::read_from_prefix(&data).unwrap().0)
    }

    /// Writes a register with ACCESS_REG.
    pub fn write_register<T: Layout>(&self, id: u16, value: &T) -> Result<()> {
        access_register(&self.commands, id, true, value.as_bytes()).map(drop)
    }

    /// Waits for a request for pages, and does not answer it.
    #[track_caller]
    pub fn wait_page_event(&self) -> mlx5_prm::queue_entry::Eqe {
        await_some("a request for pages", || {
            let mut events = self.page_events.lock();
            let event = events.poll()?;
            events.update(true);
            Some(event)
        })
    }

    /// Waits for an asynchronous event of a type, and skips others.
    #[track_caller]
    pub fn wait_event(&self, event_type: EventType) -> mlx5_prm::queue_entry::Eqe {
        await_some("an event", || {
            let mut events = self.events.lock();
            let event = events.poll()?;
            events.update(true);
            (event.event_type == event_type as u8).then_some(event)
        })
    }
}

/// Gives the firmware the pages that it requests.
fn give_pages(machine: &Arc<Machine>, commands: &Commands, pages: &Mutex<Vec<Block>>, when: u16) {
    let (output, _): (QueryPagesOut, _) = commands
        .call_with(Opcode::QUERY_PAGES, when, &QueryPagesIn::default(), &[], 0)
        .unwrap();
    let new: Vec<Block> = (0..output.num_pages()).map(|_| machine.memory.allocate(PAGE)).collect();
    let list: Vec<u8> = new.iter().flat_map(|page| page.address().to_be_bytes()).collect();
    let mut input = ManagePagesIn::default();
    input.set_input_num_entries(output.num_pages());
    commands
        .call_with::<_, ManagePagesOut>(Opcode::MANAGE_PAGES, GIVE, &input, &list, 0)
        .unwrap();
    pages.lock().extend(new);
}

/// Queries the capabilities and sets them unchanged, as the driver does.
fn set_capabilities(commands: &Commands) -> CmdHcaCap {
    let query = |which| {
        let op_mod = GENERAL << 1 | which;
        let (output, _): (QueryHcaCapOut, _) = commands
            .call_with(Opcode::QUERY_HCA_CAP, op_mod, &QueryHcaCapIn::default(), &[], 0)
            .unwrap();
        output
    };
    let current = query(CURRENT);
    let mut input = SetHcaCapIn::default();
    *input.capability_mut() = *current.capability();
    commands
        .call_with::<_, SetHcaCapOut>(Opcode::SET_HCA_CAP, GENERAL << 1, &input, &[], 0)
        .unwrap();
    let set = query(CURRENT);
    // Not the reserved bits of the outputs.
    for field in CmdHcaCap::FIELDS {
        let [set, current] = [&set, &current].map(|output| get(output.capability(), field.offset, field.width));
        assert_eq!(set, current, "{}", field.name);
    }
    CmdHcaCap::read_from_prefix(set.capability()).unwrap().0
}

/// Reads or writes a register with ACCESS_REG. Returns the register.
pub fn access_register(commands: &Commands, id: u16, write: bool, data: &[u8]) -> Result<Vec<u8>> {
    let mut input = AccessRegisterIn::default();
    input.set_register_id(id);
    let op_mod = u16::from(!write);
    let (_, data): (AccessRegisterOut, _) = commands.call_with(Opcode::ACCESS_REG, op_mod, &input, data, data.len())?;
    Ok(data)
}

/// Allocates a UAR page.
pub fn alloc_uar(commands: &Commands) -> Result<u32> {
    commands
        .call(Opcode::ALLOC_UAR, &AllocUarIn::default())
        .map(|output: AllocUarOut| output.uar())
}

/// Frees a UAR page.
pub fn dealloc_uar(commands: &Commands, uar: u32) -> Result<()> {
    let mut input = DeallocUarIn::default();
    input.set_uar(uar);
    commands.call::<_, DeallocUarOut>(Opcode::DEALLOC_UAR, &input).map(drop)
}
