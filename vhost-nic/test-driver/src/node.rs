//! An RDMA device on a booted adapter (`mlx5_ib/main.c`).

use std::sync::Arc;

use mlx5_prm::access_reg::PaosReg;
use mlx5_prm::opcode::Opcode;
use mlx5_prm::vport::{ModifyNicVportContextIn, ModifyNicVportContextOut, SetRoceAddressIn, SetRoceAddressOut};

use crate::cq::{CompletionQueue, Shape};
use crate::domain::{alloc_pd, dealloc_pd};
use crate::eq::EventQueue;
use crate::hca::Hca;
use crate::machine::Machine;
use crate::netdev::PAOS;
use crate::region::{Region, Rights};

/// `MLX5_ROCE_VERSION_1` and `MLX5_ROCE_VERSION_2` in the RoCE address table, and `MLX5_ROCE_L3_TYPE_IPV4`.
const ROCE_V1: u8 = 0;
const ROCE_V2: u8 = 2;
const IPV4: u8 = 0;
/// Index of the entry of RoCE v2 in the RoCE address table.
pub const GID_INDEX: u8 = 3;
/// Index of the entry of RoCE v1, the last that the table has.
pub const V1_GID_INDEX: u8 = 255;

/// An RDMA device, the only consumer of its adapter or beside a network interface.
pub struct Node {
    /// The adapter.
    pub hca: Arc<Hca>,
    /// GID, made of the IPv4 address.
    pub gid: [u8; 16],
    /// MAC address.
    pub mac: [u8; 6],
    /// Protection domain.
    pub pd: u32,
    events: EventQueue,
}

impl Node {
    /// Boots the adapter, enables RoCE with IPv4 address 10.0.0.`number`, and brings the port up.
    pub fn open(machine: Machine, number: u8) -> Self {
        let machine = Arc::new(machine);
        let hca = Arc::new(Hca::boot(&machine));
        let mut input = ModifyNicVportContextIn::default();
        input.field_select_mut().set_roce_en(true);
        input.nic_vport_context_mut().set_roce_en(true);
        hca.commands
            .call::<_, ModifyNicVportContextOut>(Opcode::MODIFY_NIC_VPORT_CONTEXT, &input)
            .unwrap();
        let mac = machine.mac;
        // RoCE v1 has no type of layer 3: the GID is that of the wire.
        for (index, version, gid) in [
            (GID_INDEX, ROCE_V2, [&[0; 12][..], &[10, 0, 0, number]].concat()),
            (V1_GID_INDEX, ROCE_V1, gid(number).to_vec()),
        ] {
            let mut input = SetRoceAddressIn::default();
            input.set_roce_address_index(index.into());
            let entry = input.roce_address_mut();
            entry.source_l3_address_mut().copy_from_slice(&gid);
            entry.set_source_mac_47_32(u16::from_be_bytes([mac[0], mac[1]]));
            entry.set_source_mac_31_0(u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]));
            entry.set_roce_l3_type(IPV4);
            entry.set_roce_version(version);
            hca.commands
                .call::<_, SetRoceAddressOut>(Opcode::SET_ROCE_ADDRESS, &input)
                .unwrap();
        }
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

    /// Creates a completion queue, with entries of 128 bytes if `large`.
    pub fn completion_queue(&self, log_size: u8, large: bool) -> CompletionQueue {
        let shape = Shape {
            large,
            ..Shape::plain(log_size)
        };
        CompletionQueue::create(&self.hca, self.events.number, shape).unwrap()
    }

    /// Registers memory with all rights.
    pub fn region(&self, length: u64) -> Region {
        Region::create(&self.hca, self.pd, length, Rights::ALL).unwrap()
    }

    /// Undoes [`Node::open`]. Panics if an object is left.
    #[track_caller]
    pub fn close(self) {
        self.events.destroy(&self.hca.commands).unwrap();
        dealloc_pd(&self.hca, self.pd).unwrap();
        Arc::into_inner(self.hca).unwrap().shutdown();
    }
}

/// GID of IPv4 address 10.0.0.`number`.
pub fn gid(number: u8) -> [u8; 16] {
    let mut gid = [0; 16];
    gid[10..12].copy_from_slice(&[0xff; 2]);
    gid[12..].copy_from_slice(&[10, 0, 0, number]);
    gid
}
