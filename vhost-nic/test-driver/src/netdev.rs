//! A network interface on a booted adapter (`core/en_main.c`, `core/en_fs.c`).

use std::collections::BTreeSet;
use std::sync::Arc;

use mlx5_prm::access_reg::{PaosReg, PmtuReg};
use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::Cqe;
use mlx5_prm::steering::FteMatchParam;
use mlx5_prm::vport::*;

use crate::command::Result;
use crate::cq::{self, CompletionQueue};
use crate::cqe_session::MiniFormat;
use crate::domain::*;
use crate::eq::EventQueue;
use crate::hca::Hca;
use crate::memory::Block;
use crate::mkey::{create_mkey, destroy_mkey};
use crate::rq::{self, ReceiveQueue};
use crate::sq::{Request, SendQueue, state};
use crate::steering::{Table, To, destination, outer};
use crate::tis_tir_rqt::*;
use crate::wait::{BRIEF, await_some};

/// Register for ACCESS_REG: port MTU (`MLX5_REG_PMTU`).
pub const PMTU: u16 = 0x5003;
/// Register for ACCESS_REG: administrative and operational status of the port (`MLX5_REG_PAOS`).
pub const PAOS: u16 = 0x5006;
/// `admin_status` of PAOS (`MLX5_PORT_UP`, `MLX5_PORT_DOWN`).
const PORT_UP: u8 = 1;
const PORT_DOWN: u8 = 2;
/// Levels of the flow tables (`MLX5E_L2_FT_LEVEL`, `MLX5E_TTC_FT_LEVEL`).
const L2_LEVEL: u8 = 56;
const TTC_LEVEL: u8 = 57;
/// Flow indices in the L2 table: single addresses, all multicast, promiscuous.
const L2_SINGLE: std::ops::RangeInclusive<u32> = 0..=61;
const L2_GROUPS: u32 = 62;
const L2_EVERYTHING: u32 = 63;
/// Hash fields: source and destination address (`MLX5_HASH_IP`).
pub const ADDRESSES: u32 = 0b11;
/// Hash fields: addresses and L4 ports (`MLX5_HASH_IP_L4PORTS`).
pub const ADDRESSES_AND_PORTS: u32 = 0b1111;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Ether type for local experiments (IEEE 802).
const LOCAL_EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

/// Properties of an interface.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of channels.
    pub channels: usize,
    /// Log2 of the entries of completion queues.
    pub log_cq: u8,
    /// Whether completions have 128 bytes.
    pub large_cqes: bool,
    /// Content of mini CQEs, if receive completions may be compressed.
    pub compression: Option<MiniFormat>,
    /// Whether overruns of receive CQs are ignored.
    pub overrun_ignored: bool,
    /// Log2 of the basic blocks of send queues.
    pub log_sq: u8,
    /// Log2 of the WQEs of receive queues.
    pub log_rq: u8,
    /// Bytes of each data segment of a receive WQE.
    pub parts: Vec<u32>,
    /// VLAN stripping disable (`vsd`).
    pub keep_vlan: bool,
    /// Toeplitz key.
    pub hash_key: [u8; 40],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            channels: 1,
            log_cq: 7,
            large_cqes: false,
            compression: None,
            overrun_ignored: false,
            log_sq: 6,
            log_rq: 6,
            parts: vec![2048],
            keep_vlan: true,
            hash_key: std::array::from_fn(|index| (index as u8).wrapping_mul(37) ^ 0x6d),
        }
    }
}

/// A channel: queues with a common completion vector.
pub struct Channel {
    /// Completion EQ.
    pub events: EventQueue,
    /// CQ of the send queue.
    pub send_cq: CompletionQueue,
    /// Send queue.
    pub sq: SendQueue,
    /// CQ of the receive queue.
    pub receive_cq: CompletionQueue,
    /// Receive queue.
    pub rq: ReceiveQueue,
}

/// A received frame and its completion.
#[derive(Debug, Clone)]
pub struct Received {
    /// Frame.
    pub frame: Vec<u8>,
    /// Completion.
    pub cqe: Cqe,
}

/// A network interface.
pub struct Netdev {
    /// Adapter.
    pub hca: Arc<Hca>,
    /// Protection domain.
    pub pd: u32,
    /// Memory key for all of memory.
    pub key: u32,
    /// Queue counter set.
    pub counters: u8,
    /// Transport domain.
    pub transport_domain: u32,
    /// TIS of the send queues.
    pub tisn: u32,
    /// Channels.
    pub channels: Vec<Channel>,
    /// RQT of all receive queues.
    pub rqtn: u32,
    /// Direct TIR of every channel.
    pub direct: Vec<u32>,
    /// RSS TIRs, by hash fields.
    pub spread: Vec<(HashFields, u32)>,
    /// Flow table of destination MAC addresses.
    pub l2: Table,
    l2_groups: [u32; 3],
    l2_entries: BTreeSet<u32>,
    ttc: Table,
    ttc_groups: Vec<u32>,
    ttc_entries: u32,
    hash_key: [u8; 40],
}

impl Netdev {
    /// Creates an interface and brings it up, as `mlx5e` does.
    pub fn open(hca: &Arc<Hca>, options: &Options) -> Self {
        let pd = alloc_pd(hca).unwrap();
        let transport_domain = alloc_transport_domain(hca).unwrap();
        let key = create_mkey(hca, pd).unwrap();
        let tisn = create_tis(hca, transport_domain).unwrap();
        let counters = alloc_queue_counters(hca).unwrap();
        let channels: Vec<Channel> = (0..options.channels)
            .map(|index| Channel::open(hca, index as u16 + 1, pd, key, tisn, counters, options).unwrap())
            .collect();
        let queues: Vec<u32> = channels.iter().map(|channel| channel.rq.number).collect();
        let rqtn = create_rqt(hca, &queues).unwrap();
        let direct = queues
            .iter()
            .map(|&rqn| create_direct_tir(hca, transport_domain, rqn).unwrap())
            .collect();
        let spread = hash_fields()
            .into_iter()
            .map(|fields| {
                (
                    fields,
                    create_rss_tir(hca, transport_domain, rqtn, &options.hash_key, fields).unwrap(),
                )
            })
            .collect();
        // The last table first, as in the driver.
        let ttc = Table::create(hca, TTC_LEVEL, 4).unwrap();
        let l2 = Table::create(hca, L2_LEVEL, 6).unwrap();
        l2.set_root(hca).unwrap();
        let l2_groups = [
            l2.create_group(hca, L2_SINGLE, &destination([0xff; 6])).unwrap(),
            l2.create_group(hca, L2_GROUPS..=L2_GROUPS, &destination([1, 0, 0, 0, 0, 0]))
                .unwrap(),
            l2.create_group(hca, L2_EVERYTHING..=L2_EVERYTHING, &FteMatchParam::default())
                .unwrap(),
        ];
        let mut netdev = Self {
            hca: Arc::clone(hca),
            pd,
            key,
            counters,
            transport_domain,
            tisn,
            channels,
            rqtn,
            direct,
            spread,
            l2,
            l2_groups,
            l2_entries: BTreeSet::new(),
            ttc,
            ttc_groups: Vec::new(),
            ttc_entries: 0,
            hash_key: options.hash_key,
        };
        netdev.fill_ttc();
        netdev.listen(0, hca.machine.mac);
        netdev.listen(1, [0xff; 6]);
        netdev.set_mac_list(&[hca.machine.mac]).unwrap();
        netdev.set_port(true).unwrap();
        netdev
    }

    /// Closes the interface and shuts its adapter down.
    #[track_caller]
    pub fn shut_down(self) {
        let hca = Arc::clone(&self.hca);
        self.close();
        Arc::into_inner(hca).expect("the adapter has other users").shutdown();
    }

    /// Sends a frame of this byte to a peer, and compares what arrives.
    #[track_caller]
    pub fn send_to(&mut self, peer: &mut Netdev, filler: u8) {
        let mut frame = vec![filler; 1000];
        frame[..6].copy_from_slice(&peer.hca.machine.mac);
        frame[6..12].copy_from_slice(&self.hca.machine.mac);
        frame[12..14].copy_from_slice(&LOCAL_EXPERIMENTAL);
        self.send(&frame);
        assert!(peer.receive().frame == frame, "another frame than the one sent");
    }

    /// Undoes [`Netdev::open`].
    pub fn close(mut self) {
        let hca = Arc::clone(&self.hca);
        self.set_port(false).unwrap();
        for index in std::mem::take(&mut self.l2_entries) {
            self.l2.delete(&hca, index).unwrap();
        }
        self.l2_groups
            .iter()
            .for_each(|&group| self.l2.destroy_group(&hca, group).unwrap());
        self.l2.destroy(&hca).unwrap();
        (0..self.ttc_entries).for_each(|index| self.ttc.delete(&hca, index).unwrap());
        self.ttc_groups
            .iter()
            .for_each(|&group| self.ttc.destroy_group(&hca, group).unwrap());
        self.ttc.destroy(&hca).unwrap();
        self.spread
            .iter()
            .for_each(|&(_, tirn)| destroy_tir(&hca, tirn).unwrap());
        self.direct.iter().for_each(|&tirn| destroy_tir(&hca, tirn).unwrap());
        destroy_rqt(&hca, self.rqtn).unwrap();
        self.channels.iter().for_each(|channel| channel.close(&hca).unwrap());
        dealloc_queue_counters(&hca, self.counters).unwrap();
        destroy_tis(&hca, self.tisn).unwrap();
        destroy_mkey(&hca, self.key).unwrap();
        dealloc_transport_domain(&hca, self.transport_domain).unwrap();
        dealloc_pd(&hca, self.pd).unwrap();
    }

    /// Fills the table of traffic types: IP with L4 ports, other IP, and the rest to the first channel.
    fn fill_ttc(&mut self) {
        let hca = Arc::clone(&self.hca);
        let with_ports = outer(|headers| {
            headers.set_ip_version(0xf);
            headers.set_ip_protocol(0xff);
        });
        let version = outer(|headers| headers.set_ip_version(0xf));
        let groups = [
            self.ttc.create_group(&hca, 0..=3, &with_ports).unwrap(),
            self.ttc.create_group(&hca, 4..=5, &version).unwrap(),
            self.ttc.create_group(&hca, 6..=6, &FteMatchParam::default()).unwrap(),
        ];
        for (index, &(fields, tirn)) in (0..).zip(&self.spread) {
            let value = outer(|headers| {
                headers.set_ip_version(if fields.ipv6 { 6 } else { 4 });
                if fields.selected == ADDRESSES_AND_PORTS {
                    headers.set_ip_protocol(if fields.udp { UDP } else { TCP });
                }
            });
            let group = groups[usize::from(fields.selected == ADDRESSES)];
            self.ttc.forward(&hca, group, index, &value, To::Tir(tirn)).unwrap();
        }
        self.ttc
            .forward(&hca, groups[2], 6, &FteMatchParam::default(), To::Tir(self.direct[0]))
            .unwrap();
        self.ttc_groups = groups.to_vec();
        self.ttc_entries = 7;
    }

    fn set_l2(&mut self, group: usize, index: u32, value: &FteMatchParam) {
        self.l2
            .forward(&self.hca, self.l2_groups[group], index, value, To::Table(self.ttc.id))
            .unwrap();
        self.l2_entries.insert(index);
    }

    /// Receives frames to an address, by entry `index` of the L2 table.
    pub fn listen(&mut self, index: u32, mac: [u8; 6]) {
        self.set_l2(0, index, &destination(mac));
    }

    /// Receives all multicast.
    pub fn listen_to_groups(&mut self) {
        self.set_l2(1, L2_GROUPS, &destination([1, 0, 0, 0, 0, 0]));
    }

    /// Receives everything (promiscuous).
    pub fn listen_to_everything(&mut self) {
        self.set_l2(2, L2_EVERYTHING, &FteMatchParam::default());
    }

    /// Stops receiving all multicast.
    pub fn forget_groups(&mut self) {
        self.forget(L2_GROUPS);
    }

    /// Leaves promiscuous mode.
    pub fn forget_everything(&mut self) {
        self.forget(L2_EVERYTHING);
    }

    /// Deletes an entry of the L2 table.
    pub fn forget(&mut self, index: u32) {
        self.l2.delete(&self.hca, index).unwrap();
        self.l2_entries.remove(&index);
    }

    /// Sets the allowed unicast addresses of the vport.
    pub fn set_mac_list(&self, list: &[[u8; 6]]) -> Result<()> {
        let mut input = ModifyNicVportContextIn::default();
        input.field_select_mut().set_addresses_list(true);
        input.nic_vport_context_mut().set_allowed_list_size(list.len() as u16);
        let bytes: Vec<u8> = list.iter().flat_map(|mac| [&[0; 2][..], mac].concat()).collect();
        let (opcode, hca) = (Opcode::MODIFY_NIC_VPORT_CONTEXT, &self.hca);
        hca.commands
            .call_with::<_, ModifyNicVportContextOut>(opcode, 0, &input, &bytes, 0)
            .map(drop)
    }

    /// Sets whether the vport blocks loopback (`disable_uc_local_lb`, `disable_mc_local_lb`).
    pub fn disable_loopback(&self, disable: bool) -> Result<()> {
        let mut input = ModifyNicVportContextIn::default();
        input.field_select_mut().set_disable_uc_local_lb(true);
        input.field_select_mut().set_disable_mc_local_lb(true);
        input.nic_vport_context_mut().set_disable_uc_local_lb(disable);
        input.nic_vport_context_mut().set_disable_mc_local_lb(disable);
        let hca = &self.hca;
        hca.commands
            .call::<_, ModifyNicVportContextOut>(Opcode::MODIFY_NIC_VPORT_CONTEXT, &input)
            .map(drop)
    }

    /// Sets the administrative status of the port.
    pub fn set_port(&self, up: bool) -> Result<()> {
        let mut register = PaosReg::default();
        register.set_local_port(1);
        register.set_admin_status(if up { PORT_UP } else { PORT_DOWN });
        register.set_ase(true);
        self.hca.write_register(PAOS, &register)
    }

    /// Sets the port MTU for an interface MTU: adds Ethernet header, VLAN tag and FCS.
    pub fn set_mtu(&self, mtu: u16) -> Result<()> {
        let mut register = PmtuReg::default();
        register.set_local_port(1);
        register.set_admin_mtu(mtu + 22);
        self.hca.write_register(PMTU, &register)
    }

    /// Whether the vport reports link up.
    pub fn link_up(&self) -> bool {
        let input = QueryVportStateIn::default();
        let output: QueryVportStateOut = self.hca.commands.call(Opcode::QUERY_VPORT_STATE, &input).unwrap();
        output.state() == 1
    }

    /// Queries `out_of_buffer`: frames without a receive WQE.
    pub fn out_of_buffer(&self) -> u32 {
        let mut input = QueryQCounterIn::default();
        input.set_counter_set_id(self.counters);
        let output: QueryQCounterOut = self.hca.commands.call(Opcode::QUERY_Q_COUNTER, &input).unwrap();
        output.out_of_buffer()
    }

    /// Queries the counters of the vport.
    pub fn vport_counters(&self) -> QueryVportCounterOut {
        self.hca
            .commands
            .call(Opcode::QUERY_VPORT_COUNTER, &QueryVportCounterIn::default())
            .unwrap()
    }

    /// Allocates memory with these contents.
    pub fn place(&self, bytes: &[u8]) -> Block {
        let block = self.hca.machine.memory.allocate(bytes.len() as u64);
        block.write(0, bytes);
        block
    }

    /// Sends a frame on the first channel without offloads, and waits for its completion.
    #[track_caller]
    pub fn send(&mut self, frame: &[u8]) {
        self.send_with(frame, Request::default());
    }

    /// Sends `bytes` on the first channel with the offloads of `request`, and waits for the completion.
    #[track_caller]
    pub fn send_with(&mut self, bytes: &[u8], request: Request<'_>) -> Cqe {
        let block = self.place(bytes);
        let data = [(block.address(), bytes.len() as u32)];
        let channel = &mut self.channels[0];
        let counter = channel.sq.send(&Request { data: &data, ..request });
        let cqe = channel.send_cq.wait();
        assert_eq!(cq::error_of(&cqe), None);
        assert_eq!(cqe.wqe_counter.get(), counter);
        channel.send_cq.release();
        cqe
    }

    /// Takes the next frame received on any channel, and its channel.
    pub fn poll(&mut self) -> Option<(usize, Received)> {
        self.channels
            .iter_mut()
            .enumerate()
            .find_map(|(index, channel)| Some((index, channel.poll()?)))
    }

    /// Waits for a frame on any channel.
    #[track_caller]
    pub fn receive(&mut self) -> Received {
        await_some("a frame", || self.poll()).1
    }

    /// Panics if a frame arrives within [`BRIEF`].
    #[track_caller]
    pub fn expect_silence(&mut self) {
        std::thread::sleep(BRIEF);
        if let Some((channel, received)) = self.poll() {
            panic!("channel {channel} received {:02x?}", received.frame);
        }
    }

    /// Toeplitz key.
    pub fn hash_key(&self) -> &[u8; 40] {
        &self.hash_key
    }

    /// The RSS TIR of these hash fields.
    pub fn spread_tir(&self, fields: HashFields) -> u32 {
        self.spread.iter().find(|(of, _)| *of == fields).unwrap().1
    }
}

impl Channel {
    fn open(hca: &Hca, vector: u16, pd: u32, key: u32, tisn: u32, counters: u8, options: &Options) -> Result<Self> {
        let events = EventQueue::create(&hca.machine, &hca.commands, hca.uar, vector, 6, 0)?;
        events.update(true);
        let shape = cq::Shape {
            large: options.large_cqes,
            ..cq::Shape::plain(options.log_cq)
        };
        let send_cq = CompletionQueue::create(hca, events.number, shape)?;
        let receive_shape = cq::Shape {
            compression: options.compression,
            overrun_ignored: options.overrun_ignored,
            ..shape
        };
        let receive_cq = CompletionQueue::create(hca, events.number, receive_shape)?;
        let sq = SendQueue::create(hca, &send_cq, Some(tisn), pd, key, options.log_sq)?;
        sq.modify(hca, state::RESET, state::READY)?;
        let shape = rq::Shape {
            log_size: options.log_rq,
            parts: options.parts.clone(),
            counters,
            keep_vlan: options.keep_vlan,
        };
        let mut rq = ReceiveQueue::create(hca, &receive_cq, pd, key, shape)?;
        rq.modify(hca, state::RESET, state::READY)?;
        rq.fill();
        Ok(Self {
            events,
            send_cq,
            sq,
            receive_cq,
            rq,
        })
    }

    fn close(&self, hca: &Hca) -> Result<()> {
        self.sq.destroy(hca)?;
        self.rq.destroy(hca)?;
        self.send_cq.destroy(hca)?;
        self.receive_cq.destroy(hca)?;
        self.events.destroy(&hca.commands)
    }

    /// Takes the next received frame, and reposts its WQE.
    pub fn poll(&mut self) -> Option<Received> {
        let cqe = self.receive_cq.poll()?;
        let frame = self.rq.take(&cqe);
        self.receive_cq.release();
        self.rq.fill();
        Some(Received { frame, cqe })
    }
}

/// Hash fields of the RSS TIRs, in the order of the entries of the table of traffic types.
pub fn hash_fields() -> [HashFields; 6] {
    let fields = |ipv6, udp, selected| HashFields { ipv6, udp, selected };
    [
        fields(false, false, ADDRESSES_AND_PORTS),
        fields(false, true, ADDRESSES_AND_PORTS),
        fields(true, false, ADDRESSES_AND_PORTS),
        fields(true, true, ADDRESSES_AND_PORTS),
        fields(false, false, ADDRESSES),
        fields(true, false, ADDRESSES),
    ]
}

/// Allocates a queue counter set.
pub fn alloc_queue_counters(hca: &Hca) -> Result<u8> {
    let input = AllocQCounterIn::default();
    hca.commands
        .call(Opcode::ALLOC_Q_COUNTER, &input)
        .map(|output: AllocQCounterOut| output.counter_set_id())
}

/// Frees a queue counter set.
pub fn dealloc_queue_counters(hca: &Hca, id: u8) -> Result<()> {
    let mut input = DeallocQCounterIn::default();
    input.set_counter_set_id(id);
    hca.commands
        .call::<_, DeallocQCounterOut>(Opcode::DEALLOC_Q_COUNTER, &input)
        .map(drop)
}
