//! Capabilities of this device, with the reason for each.
//!
//! Fields that are not listed are zero: the device lacks the capability. A field listed with an arbitrary-looking
//! number is a size the device really provides: those of the tables are in [`limits`], and the checks of the commands
//! agree with the others.

use mlx5_prm::capability::CmdHcaCap;
use mlx5_prm::capability_group::{
    AtomicCaps, FlowTableNicCap, FlowTablePropLayout, PerProtocolNetworkingOffloadCaps, QosCap, RoceCap,
};
use mlx5_prm::layout::{Declaration, Field, Layout};

use crate::hca::cq::MAX_SESSION;
use crate::hca::limits;

/// A group of capabilities (`enum mlx5_cap_type`, device.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub(super) enum Group {
    General = 0,
    EthernetOffloads = 1,
    Atomic = 3,
    Roce = 4,
    FlowTable = 7,
    Qos = 12,
}

/// A capability of this device.
#[derive(Debug, Clone, Copy)]
pub struct Capability {
    pub(super) group: Group,
    /// Field in the structure of its group (mlx5_ifc.h).
    pub field: &'static str,
    /// Value of the field.
    pub value: u64,
    /// Reason for the value, or its unit.
    pub reason: &'static str,
}

impl Group {
    pub(super) const ALL: [Self; 6] = [
        Self::General,
        Self::EthernetOffloads,
        Self::Atomic,
        Self::Roce,
        Self::FlowTable,
        Self::Qos,
    ];

    pub(super) fn new(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|group| *group as u16 == number)
    }

    /// Layout of the group's structure.
    pub(super) fn layout(self) -> Declaration {
        match self {
            Self::General => Declaration::of::<CmdHcaCap>(),
            Self::EthernetOffloads => Declaration::of::<PerProtocolNetworkingOffloadCaps>(),
            Self::Atomic => Declaration::of::<AtomicCaps>(),
            Self::Roce => Declaration::of::<RoceCap>(),
            Self::FlowTable => Declaration::of::<FlowTableNicCap>(),
            Self::Qos => Declaration::of::<QosCap>(),
        }
    }

    /// Returns a field by name, with its offset in the group's structure. Fields of NIC receive flow tables are named
    /// without their inner structure.
    pub(super) fn field(self, name: &str) -> Option<Field> {
        let find = |fields: &[Field], base: usize| {
            let field = fields.iter().find(|field| field.name == name)?;
            Some(Field {
                offset: field.offset + base,
                ..*field
            })
        };
        match self {
            Self::General => find(CmdHcaCap::FIELDS, 0),
            Self::EthernetOffloads => find(PerProtocolNetworkingOffloadCaps::FIELDS, 0),
            Self::Atomic => find(AtomicCaps::FIELDS, 0),
            Self::Roce => find(RoceCap::FIELDS, 0),
            Self::Qos => find(QosCap::FIELDS, 0),
            Self::FlowTable => {
                let receive = FlowTableNicCap::FIELDS
                    .iter()
                    .find(|field| field.name == "flow_table_properties_nic_receive")
                    .map_or(0, |field| field.offset);
                find(FlowTablePropLayout::FIELDS, receive)
            }
        }
    }
}

macro_rules! table {
    ($($group:ident { $($field:ident = $value:expr, $reason:literal;)* })*) => {
        pub(super) const TABLE: &[Capability] = &[$($(
            Capability { group: Group::$group, field: stringify!($field), value: $value, reason: $reason },
        )*)*];
    };
}

table! {
    General {
        num_ports = 1, "one port, which mlx5_ib accesses unconditionally";
        port_type = 1, "Ethernet";
        vport_group_manager = 1, "the driver may set flow control of the port";
        eth_net_offloads = 1, "mlx5e needs it";
        nic_flow_table = 1, "mlx5e steers all received traffic with flow tables";
        roce = 1, "RDMA on the port";
        atomic = 1, "rdma_cm requests remote atomic access";
        xrc = 1, "mlx5_ib creates an XRC domain when it loads";
        rc = 1, "transport service";
        uc = 1, "transport service";
        ud = 1, "transport service";
        apm = 0, "no automatic path migration";
        log_max_eq = limits::LOG_MAX_EQ, "number of event queues";
        log_max_eq_sz = 22, "entries of an event queue";
        log_max_cq = limits::LOG_MAX_CQ, "number of completion queues";
        log_max_cq_sz = 22, "entries of a completion queue";
        log_max_qp = limits::LOG_MAX_QP, "number of queue pairs, send and receive queues";
        log_max_qp_sz = 15, "WQEs of a queue pair";
        log_max_srq = limits::LOG_MAX_SRQ, "number of shared receive queues";
        log_max_srq_sz = 15, "WQEs of a shared receive queue";
        log_max_mkey = limits::LOG_MAX_MKEY, "number of memory keys";
        log_max_pd = limits::LOG_MAX_PD, "number of protection domains";
        log_max_xrcd = limits::LOG_MAX_XRCD, "number of XRC domains";
        log_max_transport_domain = limits::LOG_MAX_TRANSPORT_DOMAIN, "number of transport domains";
        log_max_rq = 14, "number of receive queues";
        log_max_sq = 14, "number of send queues";
        log_max_tir = limits::LOG_MAX_TIR, "number of TIRs";
        log_max_tis = limits::LOG_MAX_TIS, "number of TISes";
        log_max_tis_per_sq = 1, "TISes of a send queue";
        log_max_rmp = limits::LOG_MAX_RMP, "number of receive memory pools";
        log_max_rqt = limits::LOG_MAX_RQT, "number of receive queue tables";
        log_max_rqt_size = 11, "RQs of an RQT";
        log_max_wq_sz = 16, "WQEs of a work queue";
        log_min_stride_sz_rq = 4, "bytes of a receive WQE";
        log_max_stride_sz_rq = 11, "bytes of a receive WQE";
        log_min_stride_sz_sq = 6, "bytes of a send WQE's basic block";
        log_max_stride_sz_sq = 6, "bytes of a send WQE's basic block";
        max_wqe_sz_sq = 1024, "bytes of a send WQE";
        max_wqe_sz_rq = 512, "bytes of a receive WQE";
        basic_cyclic_rcv_wqe = 1, "receive queues are rings of plain scatter lists";
        log_max_msg = 30, "bytes of a message";
        log_max_ra_req_qp = 4, "reads and atomics a QP has outstanding as requester";
        log_max_ra_res_qp = 4, "reads and atomics a QP has outstanding as responder";
        log_max_mrw_sz = 62, "bytes of a memory region";
        log_max_klm_list_size = 16, "entries of an indirect memory key";
        max_indirection = 4, "nesting of indirect memory keys";
        fixed_buffer_size = 1, "KSM: memory keys of ranges of equal length";
        umr_modify_entity_size_disabled = 0, "UMR may change the entity size";
        imaicl = 1, "memory windows, bound by UMR";
        max_qp_cnt = 64, "QPs of a multicast group";
        log_max_mcg = 10, "multicast groups";
        max_qp_mcg = 64, "QPs of a multicast group";
        gid_table_size = 2, "encodes 32 GIDs";
        pkey_table_size = 0, "encodes 128 partition keys";
        local_ca_ack_delay = 15, "a response takes at most 4 us << 15";
        max_tc = 8, "traffic classes";
        cqe_version = 1, "CQEs carry the user index of the queue";
        compact_address_vector = 1, "compact address vectors in UD WQEs";
        cq_oi = 1, "CQs may ignore overruns (oi)";
        cq_resize = 1, "MODIFY_CQ resizes";
        cq_moderation = 1, "events are moderated by count and period";
        cq_period_mode_modify = 1, "MODIFY_CQ changes the period mode";
        block_lb_mc = 1, "a QP may block loopback of its own multicast";
        set_deth_sqpn = 1, "QP1 may have any QP number";
        qkv = 1, "Q_Key violations are counted";
        pkv = 1, "P_Key violations are counted";
        sctr_data_cqe = 1, "the driver may request data in CQEs";
        uar_sz = 5, "MiB of UARs, log2";
        log_pg_sz = 12, "bytes of a page";
        log_bf_reg_size = 9, "bytes of a doorbell register pair";
        bf = 0, "off by default: a doorbell is one trapped store, a BlueFlame WQE eight or more";
        num_of_uars_per_page = 1, "a UAR is a page";
        driver_version = 1, "SET_DRIVER_VERSION";
        vport_counters = 1, "QUERY_VPORT_COUNTER";
        out_of_seq_cnt = 1, "queue counters";
        retransmission_q_counters = 1, "queue counters of retransmission";
        enhanced_error_q_counters = 1, "queue counters of errors";
        ports_check = 1, "PCMR";
        pcam_reg = 1, "PCAM";
        mcam_reg = 1, "MCAM";
        beacon_led = 1, "MLCR";
        qcam_reg = 1, "QCAM";
        sbcam_reg = 1, "SBCAM";
        qos = 1, "the capabilities of quality of service can be queried";
        ets = 1, "QETCR, QTCT: classes are set, not scheduled";
        dcbx = 1, "DCBX_PARAM";
        cqe_compression = 1, "completions of a burst of frames that are alike but for length and checksum or hash";
        cqe_compression_128 = 1, "the same for CQEs of 128 bytes";
        cqe_compression_max_num = MAX_SESSION as u64, "CQEs of one compressed session";
        cqe_128_always = 1, "CQEs may be padded to 128 bytes";
        nic_receive_steering_discard = 1, "QUERY_VNIC_ENV: frames that no flow table entry matched";
        vnic_env_cq_overrun = 1, "QUERY_VNIC_ENV: CQs that ran full";
        invalid_command_count = 1, "QUERY_VNIC_ENV: refused commands";
        quota_exceeded_count = 1, "QUERY_VNIC_ENV: commands refused for lack of resources";
        disable_local_lb_uc = 1, "the driver may disable unicast loopback";
        disable_local_lb_mc = 1, "the driver may disable multicast loopback";
        nic_vport_change_event = 0, "only the guest changes its vport";
        log_max_vlan_list = 12, "VLANs of the vport";
        log_max_current_mc_list = 9, "multicast addresses of the vport";
        log_max_current_uc_list = 7, "unicast addresses of the vport";
        log_max_l2_table = 10, "entries of the L2 table";
        log_max_flow_counter_bulk = 0, "flow counters are allocated one by one";
        max_flow_counter_15_0 = 0x8000, "flow counters";
        device_frequency_khz = 1_000_000, "the free-running clock counts nanoseconds";
        fast_teardown = 1, "TEARDOWN_HCA, fast, before the guest powers off";
        force_teardown = 1, "TEARDOWN_HCA, forced, before the guest powers off";
        modify_rq_counter_set_id = 1, "accepted by MODIFY_RQ";
    }
    EthernetOffloads {
        csum_cap = 1, "checksums of layers 3 and 4 in both directions";
        vlan_cap = 1, "VLAN tags are parsed, and stripped unless vsd";
        max_lso_cap = 16, "bytes of a TSO frame, log2";
        wqe_inline_mode = 2, "a WQE need not hold headers";
        rss_ind_tbl_cap = 11, "RQs of an RQT, log2";
        self_lb_en_modifiable = 1, "TIRs may block loopback";
        scatter_fcs = 0, "frames carry no FCS here";
    }
    Atomic {
        supported_atomic_req_8b_endianness_mode_1 = 1, "operands of atomics in host byte order";
        atomic_operations = 3, "compare and swap, fetch and add";
        atomic_size_qp = 8, "8 bytes";
    }
    Roce {
        l3_type = 6, "bits for IPv4 and IPv6";
        roce_version = 5, "bits for RoCE v1 and RoCE v2";
        roce_address_table_size = 256, "GIDs";
        r_roce_dest_udp_port = 4791, "UDP port of RoCE v2";
        r_roce_max_src_udp_port = 0xffff, "range Linux chooses from";
        r_roce_min_src_udp_port = 0xc000, "range Linux chooses from";
    }
    FlowTable {
        ft_support = 1, "NIC receive flow tables";
        flow_counter = 1, "entries may count";
        flow_modify_en = 1, "entries may be modified";
        modify_root = 1, "the root table may change";
        identified_miss_table_mode = 1, "tables name their miss table";
        flow_table_modify = 1, "MODIFY_FLOW_TABLE";
        ignore_flow_level = 1, "an entry may forward to a table of any level; without it Linux 6.1 warns";
        log_max_ft_size = 16, "entries of a flow table";
        max_ft_level = 64, "levels of flow tables";
        log_max_ft_num = 10, "number of flow tables";
        log_max_flow_counter = 15, "number of flow counters";
        log_max_destination = 5, "destinations of an entry";
        log_max_flow = 16, "entries of all flow tables";
    }
    Qos {
        packet_pacing = 0, "no rates of send queues";
    }
}
