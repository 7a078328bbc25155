//! A network interface on a booted adapter (`core/en_main.c`, `core/en_fs.c`).

use std::collections::BTreeSet;
use std::sync::Arc;

use mlx5_prm::access_reg::{PaosReg, PmtuReg};
use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::Cqe;
use mlx5_prm::steering::FteMatchParam;
use mlx5_prm::vport::*;

use super::command::Result;
use super::completion_queue::{self, CompletionQueue};
use super::event_queue::EventQueue;
use super::hca::Hca;
use super::memory::Block;
use super::receive_queue::{self, ReceiveQueue};
use super::send_queue::{Request, SendQueue, state};
use super::steering::{Table, To, destination, outer};
use super::transport::*;

/// Registers behind ACCESS_REG.
pub const PMTU: u16 = 0x5003;
/// Port administrative and operational status.
pub const PAOS: u16 = 0x5006;
/// States of the port in PAOS.
const PORT_UP: u8 = 1;
const PORT_DOWN: u8 = 2;
/// Levels of the flow tables (`MLX5E_L2_FT_LEVEL`, `MLX5E_TTC_FT_LEVEL`).
const L2_LEVEL: u8 = 56;
const TTC_LEVEL: u8 = 57;
/// Indexes in the L2 table: single addresses, all groups, everything.
const L2_SINGLE: std::ops::RangeInclusive<u32> = 0..=61;
const L2_GROUPS: u32 = 62;
const L2_EVERYTHING: u32 = 63;
/// Hashed fields of addresses, and of addresses and ports.
pub const ADDRESSES: u32 = 0b11;
/// Addresses and ports.
pub const ADDRESSES_AND_PORTS: u32 = 0b1111;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// How an interface is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of channels.
    pub channels: usize,
    /// Log2 of the entries of completion queues.
    pub log_cq: u8,
    /// Whether completions are of 128 bytes.
    pub large_cqes: bool,
    /// Log2 of the basic blocks of send queues.
    pub log_sq: u8,
    /// Log2 of the WQEs of receive queues.
    pub log_rq: u8,
    /// Lengths in bytes of the parts of receive buffers.
    pub parts: Vec<u32>,
    /// Whether VLAN tags stay in the frames.
    pub keep_vlan: bool,
    /// The key of the receive hash.
    pub hash_key: [u8; 40],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            channels: 1,
            log_cq: 7,
            large_cqes: false,
            log_sq: 6,
            log_rq: 6,
            parts: vec![2048],
            keep_vlan: true,
            hash_key: std::array::from_fn(|index| (index as u8).wrapping_mul(37) ^ 0x6d),
        }
    }
}

/// Queues that belong together.
pub struct Channel {
    /// Its completion events.
    pub events: EventQueue,
    /// Completions of sends.
    pub send_cq: CompletionQueue,
    /// Sends.
    pub sq: SendQueue,
    /// Completions of receives.
    pub receive_cq: CompletionQueue,
    /// Receives.
    pub rq: ReceiveQueue,
}

/// A frame that came, and its completion.
#[derive(Debug, Clone)]
pub struct Received {
    /// The frame.
    pub frame: Vec<u8>,
    /// The completion.
    pub cqe: Cqe,
}

/// A network interface.
pub struct Netdev {
    /// The adapter.
    pub hca: Arc<Hca>,
    /// Its protection domain.
    pub pd: u32,
    /// The key of all memory.
    pub key: u32,
    /// Its set of queue counters.
    pub counters: u8,
    /// Its transport domain.
    pub transport_domain: u32,
    /// Where its send queues send.
    pub tisn: u32,
    /// Its channels.
    pub channels: Vec<Channel>,
    /// The table of all its receive queues.
    pub rqtn: u32,
    /// A TIR for every channel.
    pub direct: Vec<u32>,
    /// TIRs that spread, by what they hash.
    pub spread: Vec<(HashFields, u32)>,
    /// The table of addresses.
    pub l2: Table,
    l2_groups: [u32; 3],
    l2_entries: BTreeSet<u32>,
    ttc: Table,
    ttc_groups: Vec<u32>,
    ttc_entries: u32,
    hash_key: [u8; 40],
}

impl Netdev {
    /// Does what `mlx5e` does when an interface is made and brought up.
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
        // The last table first, as the driver does it.
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
        netdev.make_ttc();
        netdev.listen(0, hca.machine.mac);
        netdev.listen(1, [0xff; 6]);
        netdev.set_mac_list(&[hca.machine.mac]).unwrap();
        netdev.set_port(true).unwrap();
        netdev
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

    /// Spreads by protocol: first those with ports, then those without, then all else to the first channel.
    fn make_ttc(&mut self) {
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

    /// Takes frames to an address, by entry `index` of the table of addresses.
    pub fn listen(&mut self, index: u32, mac: [u8; 6]) {
        self.set_l2(0, index, &destination(mac));
    }

    /// Takes frames to all groups.
    pub fn listen_to_groups(&mut self) {
        self.set_l2(1, L2_GROUPS, &destination([1, 0, 0, 0, 0, 0]));
    }

    /// Takes all frames.
    pub fn listen_to_everything(&mut self) {
        self.set_l2(2, L2_EVERYTHING, &FteMatchParam::default());
    }

    /// Takes no frames to all groups any more.
    pub fn forget_groups(&mut self) {
        self.forget(L2_GROUPS);
    }

    /// Takes only frames to its own addresses again.
    pub fn forget_everything(&mut self) {
        self.forget(L2_EVERYTHING);
    }

    /// Removes an entry of the table of addresses.
    pub fn forget(&mut self, index: u32) {
        self.l2.delete(&self.hca, index).unwrap();
        self.l2_entries.remove(&index);
    }

    /// Tells the vport its unicast addresses.
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

    /// Says whether frames from the function to itself are lost.
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

    /// Switches the port on or off.
    pub fn set_port(&self, up: bool) -> Result<()> {
        let mut register = PaosReg::default();
        register.set_local_port(1);
        register.set_admin_status(if up { PORT_UP } else { PORT_DOWN });
        register.set_ase(true);
        self.hca.write_register(PAOS, &register)
    }

    /// Sets the MTU of the port: that of the interface, and the bytes of the longest header and the check sequence.
    pub fn set_mtu(&self, mtu: u16) -> Result<()> {
        let mut register = PmtuReg::default();
        register.set_local_port(1);
        register.set_admin_mtu(mtu + 22);
        self.hca.write_register(PMTU, &register)
    }

    /// Whether the vport says that the link is up.
    pub fn link_up(&self) -> bool {
        let input = QueryVportStateIn::default();
        let output: QueryVportStateOut = self.hca.commands.call(Opcode::QUERY_VPORT_STATE, &input).unwrap();
        output.state() == 1
    }

    /// Frames that found no receive WQE.
    pub fn out_of_buffer(&self) -> u32 {
        let mut input = QueryQCounterIn::default();
        input.set_counter_set_id(self.counters);
        let output: QueryQCounterOut = self.hca.commands.call(Opcode::QUERY_Q_COUNTER, &input).unwrap();
        output.out_of_buffer()
    }

    /// What the vport counted.
    pub fn vport_counters(&self) -> QueryVportCounterOut {
        self.hca
            .commands
            .call(Opcode::QUERY_VPORT_COUNTER, &QueryVportCounterIn::default())
            .unwrap()
    }

    /// Memory with these bytes in it.
    pub fn place(&self, bytes: &[u8]) -> Block {
        let block = self.hca.machine.memory.allocate(bytes.len() as u64);
        block.write(0, bytes);
        block
    }

    /// Sends a frame from memory on the first channel, as it is, and waits until it is gone.
    #[track_caller]
    pub fn send(&mut self, frame: &[u8]) {
        self.send_with(frame, Request::default());
    }

    /// Sends `bytes` from memory on the first channel with the offloads of `request`, and waits until it is gone.
    #[track_caller]
    pub fn send_with(&mut self, bytes: &[u8], request: Request<'_>) -> Cqe {
        let block = self.place(bytes);
        let data = [(block.address(), bytes.len() as u32)];
        let channel = &mut self.channels[0];
        let counter = channel.sq.send(&Request { data: &data, ..request });
        let cqe = channel.send_cq.wait();
        assert_eq!(completion_queue::error_of(&cqe), None);
        assert_eq!(cqe.wqe_counter.get(), counter);
        channel.send_cq.release();
        cqe
    }

    /// The next frame that any channel has received, and its channel.
    pub fn poll(&mut self) -> Option<(usize, Received)> {
        self.channels
            .iter_mut()
            .enumerate()
            .find_map(|(index, channel)| Some((index, channel.poll()?)))
    }

    /// Waits for a frame on any channel.
    #[track_caller]
    pub fn receive(&mut self) -> Received {
        super::await_some("a frame", || self.poll()).1
    }

    /// Checks that no frame is there or comes soon.
    #[track_caller]
    pub fn expect_silence(&mut self) {
        std::thread::sleep(super::BRIEF);
        if let Some((channel, received)) = self.poll() {
            panic!("channel {channel} received {:02x?}", received.frame);
        }
    }

    /// The key of its receive hash.
    pub fn hash_key(&self) -> &[u8; 40] {
        &self.hash_key
    }

    /// The TIR that spreads by these fields.
    pub fn spread_tir(&self, fields: HashFields) -> u32 {
        self.spread.iter().find(|(of, _)| *of == fields).unwrap().1
    }
}

impl Channel {
    fn open(hca: &Hca, vector: u16, pd: u32, key: u32, tisn: u32, counters: u8, options: &Options) -> Result<Self> {
        let events = EventQueue::create(&hca.machine, &hca.commands, hca.uar, vector, 6, 0)?;
        events.update(true);
        let shape = completion_queue::Shape {
            large: options.large_cqes,
            ..completion_queue::Shape::plain(options.log_cq)
        };
        let send_cq = CompletionQueue::create(hca, events.number, shape)?;
        let receive_cq = CompletionQueue::create(hca, events.number, shape)?;
        let sq = SendQueue::create(hca, &send_cq, Some(tisn), pd, key, options.log_sq)?;
        sq.modify(hca, state::RESET, state::READY)?;
        let shape = receive_queue::Shape {
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

    /// The next frame received. Its WQE is posted again.
    pub fn poll(&mut self) -> Option<Received> {
        let cqe = self.receive_cq.next()?;
        let frame = self.rq.take(&cqe);
        self.receive_cq.release();
        self.rq.fill();
        Some(Received { frame, cqe })
    }
}

/// What the TIRs that spread hash, in the order of the entries of the table of traffic types.
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

/// Allocates a set of queue counters.
pub fn alloc_queue_counters(hca: &Hca) -> Result<u8> {
    let input = AllocQCounterIn::default();
    hca.commands
        .call(Opcode::ALLOC_Q_COUNTER, &input)
        .map(|output: AllocQCounterOut| output.counter_set_id())
}

/// Frees a set of queue counters.
pub fn dealloc_queue_counters(hca: &Hca, id: u8) -> Result<()> {
    let mut input = DeallocQCounterIn::default();
    input.set_counter_set_id(id);
    hca.commands
        .call::<_, DeallocQCounterOut>(Opcode::DEALLOC_Q_COUNTER, &input)
        .map(drop)
}
