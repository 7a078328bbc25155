//! An RDMA device on a booted adapter (`mlx5_ib/main.c`).

use std::sync::Arc;

use mlx5_prm::access_reg::PaosReg;
use mlx5_prm::domain::{AllocXrcdIn, AllocXrcdOut, DeallocXrcdIn, DeallocXrcdOut};
use mlx5_prm::opcode::Opcode;
use mlx5_prm::vport::{ModifyNicVportContextIn, ModifyNicVportContextOut, SetRoceAddressIn, SetRoceAddressOut};
use vhost_nic::net::Switch;

use super::command::Result;
use super::completion_queue::{CompletionQueue, Shape};
use super::event_queue::EventQueue;
use super::hca::Hca;
use super::machine::Machine;
use super::netdev::PAOS;
use super::region::{Region, Rights};
use super::transport::{alloc_pd, dealloc_pd};

/// `MLX5_ROCE_VERSION_2` as the address table has it, and IPv4 (`MLX5_ROCE_L3_TYPE_IPV4`).
const ROCE_V2: u8 = 2;
const IPV4: u8 = 0;
/// The index of the only address in the table.
pub const GID_INDEX: u8 = 3;

/// An RDMA device.
pub struct Node {
    /// The adapter.
    pub hca: Arc<Hca>,
    /// Its address as a GID.
    pub gid: [u8; 16],
    /// Its MAC address.
    pub mac: [u8; 6],
    /// A protection domain.
    pub pd: u32,
    events: EventQueue,
}

impl Node {
    /// Boots the `number`th guest of `switch` and gives it an IPv4 address.
    pub fn open(switch: &Arc<Switch>, number: u8) -> Self {
        Self::with(Machine::new(switch, number), number)
    }

    /// Boots a guest and gives it the `number`th IPv4 address.
    pub fn with(machine: Machine, number: u8) -> Self {
        let machine = Arc::new(machine);
        let hca = Arc::new(Hca::boot(&machine));
        let mut input = ModifyNicVportContextIn::default();
        input.field_select_mut().set_roce_en(true);
        input.nic_vport_context_mut().set_roce_en(true);
        hca.commands
            .call::<_, ModifyNicVportContextOut>(Opcode::MODIFY_NIC_VPORT_CONTEXT, &input)
            .unwrap();
        let mac = machine.mac;
        let mut input = SetRoceAddressIn::default();
        input.set_roce_address_index(GID_INDEX.into());
        let entry = input.roce_address_mut();
        entry.source_l3_address_mut()[12..].copy_from_slice(&[10, 0, 0, number]);
        entry.set_source_mac_47_32(u16::from_be_bytes([mac[0], mac[1]]));
        entry.set_source_mac_31_0(u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]));
        entry.set_roce_l3_type(IPV4);
        entry.set_roce_version(ROCE_V2);
        hca.commands
            .call::<_, SetRoceAddressOut>(Opcode::SET_ROCE_ADDRESS, &input)
            .unwrap();
        let mut register = PaosReg::default();
        register.set_local_port(1);
        register.set_admin_status(1);
        register.set_ase(true);
        hca.write_register(PAOS, &register).unwrap();
        let pd = alloc_pd(&hca).unwrap();
        let events = EventQueue::create(&machine, &hca.commands, hca.uar, 1, 6, 0).unwrap();
        events.update(true);
        Self {
            hca,
            gid: gid(number),
            mac,
            pd,
            events,
        }
    }

    /// A completion queue.
    pub fn completion_queue(&self, log_size: u8, large: bool) -> CompletionQueue {
        let shape = Shape {
            large,
            ..Shape::plain(log_size)
        };
        CompletionQueue::create(&self.hca, self.events.number, shape).unwrap()
    }

    /// Memory with all rights.
    pub fn region(&self, length: u64) -> Region {
        Region::create(&self.hca, self.pd, length, Rights::ALL).unwrap()
    }

    /// Undoes [`Node::open`]; nothing may be left.
    #[track_caller]
    pub fn close(self) {
        self.events.destroy(&self.hca.commands).unwrap();
        dealloc_pd(&self.hca, self.pd).unwrap();
        Arc::into_inner(self.hca).unwrap().shutdown();
    }
}

/// The address of the `number`th guest of a switch as a GID.
pub fn gid(number: u8) -> [u8; 16] {
    let mut gid = [0; 16];
    gid[10..12].copy_from_slice(&[0xff; 2]);
    gid[12..].copy_from_slice(&[10, 0, 0, number]);
    gid
}

/// Allocates an XRC domain.
pub fn alloc_xrcd(hca: &Hca) -> Result<u32> {
    hca.commands
        .call(Opcode::ALLOC_XRCD, &AllocXrcdIn::default())
        .map(|output: AllocXrcdOut| output.xrcd())
}

/// Frees it.
pub fn dealloc_xrcd(hca: &Hca, xrcd: u32) -> Result<()> {
    let mut input = DeallocXrcdIn::default();
    input.set_xrcd(xrcd);
    hca.commands
        .call::<_, DeallocXrcdOut>(Opcode::DEALLOC_XRCD, &input)
        .map(drop)
}
