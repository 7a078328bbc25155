//! Templates of valid commands.

use Kind::*;
use mlx5_prm::opcode::Opcode;

/// Kinds of numbers in commands: object numbers and guest addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Uar,
    Pd,
    TransportDomain,
    Xrcd,
    Uctx,
    Eq,
    Cq,
    Mkey,
    Tis,
    Tir,
    Rqt,
    Rq,
    Sq,
    Qp,
    Rmp,
    XrcSrq,
    Counters,
    FlowTable,
    FlowGroup,
    FlowCounter,
    Page,
    Record,
}

/// Location of a number in a command: its kind, and offset and width in bits.
pub type Place = (Kind, usize, usize);

/// A valid command.
pub struct Template {
    pub opcode: Opcode,
    pub op_mod: u16,
    /// Bytes of the input without lists.
    pub length: usize,
    /// Numbers of objects it refers to.
    pub names: &'static [Place],
    /// Other fields: offset and width in bits, and value.
    pub fields: &'static [(usize, usize, u64)],
    /// Page addresses after the input.
    pub pages: usize,
    /// The number of the object it creates, in the output.
    pub makes: Option<Place>,
}

const fn plain(opcode: Opcode, length: usize, names: &'static [Place]) -> Template {
    Template {
        opcode,
        op_mod: 0,
        length,
        names,
        fields: &[],
        pages: 0,
        makes: None,
    }
}

const fn making(opcode: Opcode, kind: Kind) -> Template {
    Template {
        makes: Some((kind, 0x48, 24)),
        ..plain(opcode, 0x10, &[])
    }
}

/// Offset in bits of a field of `wq`, in the commands on RQ, SQ and RMP.
macro_rules! wq {
    ($offset:literal) => {
        0x100 + 0x180 + $offset
    };
}

/// All commands that vhost-nic supports, and some that it does not.
pub const TEMPLATES: &[Template] = &[
    making(Opcode::ALLOC_UAR, Uar),
    making(Opcode::ALLOC_PD, Pd),
    making(Opcode::ALLOC_TRANSPORT_DOMAIN, TransportDomain),
    making(Opcode::ALLOC_XRCD, Xrcd),
    Template {
        makes: Some((Uctx, 0x50, 16)),
        ..plain(Opcode::CREATE_UCTX, 0x40, &[])
    },
    Template {
        makes: Some((Counters, 0x58, 8)),
        ..plain(Opcode::ALLOC_Q_COUNTER, 0x10, &[])
    },
    Template {
        makes: Some((FlowCounter, 0x40, 32)),
        ..plain(Opcode::ALLOC_FLOW_COUNTER, 0x10, &[])
    },
    Template {
        fields: &[(0x80 + 0x63, 5, 4)],
        pages: 1,
        makes: Some((Eq, 0x58, 8)),
        ..plain(Opcode::CREATE_EQ, 0x110, &[(Uar, 0x80 + 0x68, 24)])
    },
    Template {
        fields: &[(0x80 + 0x63, 5, 5)],
        pages: 1,
        makes: Some((Cq, 0x48, 24)),
        ..plain(
            Opcode::CREATE_CQ,
            0x110,
            &[
                (Uar, 0x80 + 0x68, 24),
                (Eq, 0x80 + 0xa0, 32),
                (Record, 0x80 + 0x1c0, 64),
            ],
        )
    },
    Template {
        op_mod: 1,
        fields: &[(0x80 + 0x63, 5, 4)],
        pages: 1,
        ..plain(Opcode::MODIFY_CQ, 0x110, &[(Cq, 0x48, 24)])
    },
    Template {
        fields: &[(0x60, 32, 0x17)],
        ..plain(Opcode::MODIFY_CQ, 0x110, &[(Cq, 0x48, 24)])
    },
    Template {
        fields: &[(0x80 + 0x14, 2, 3), (0x80 + 0x60, 1, 1)],
        makes: Some((Mkey, 0x48, 24)),
        ..plain(Opcode::CREATE_MKEY, 0x110, &[(Pd, 0x80 + 0x68, 24)])
    },
    Template {
        fields: &[
            (0x80 + 0x14, 2, 3),
            (0x80 + 0x16, 2, 1),
            (0x80 + 0xc0, 64, 0x2000),
            (0x80 + 0x1da, 6, 12),
            (0x300, 32, 2),
        ],
        pages: 4,
        makes: Some((Mkey, 0x48, 24)),
        ..plain(Opcode::CREATE_MKEY, 0x110, &[(Pd, 0x80 + 0x68, 24)])
    },
    Template {
        makes: Some((Tis, 0x48, 24)),
        ..plain(Opcode::CREATE_TIS, 0xc0, &[(TransportDomain, 0x100 + 0x128, 24)])
    },
    Template {
        fields: &[(0x100, 4, 0), (wq!(0), 4, 1), (wq!(0x10c), 4, 6), (wq!(0x11b), 5, 4)],
        pages: 1,
        makes: Some((Rq, 0x48, 24)),
        ..plain(
            Opcode::CREATE_RQ,
            0x110,
            &[(Cq, 0x100 + 0x48, 24), (Pd, wq!(0x48), 24), (Record, wq!(0x80), 64)],
        )
    },
    Template {
        fields: &[
            (0x100 + 0x100, 16, 1),
            (wq!(0), 4, 1),
            (wq!(0x10c), 4, 6),
            (wq!(0x11b), 5, 4),
        ],
        pages: 1,
        makes: Some((Sq, 0x48, 24)),
        ..plain(
            Opcode::CREATE_SQ,
            0x110,
            &[
                (Cq, 0x100 + 0x48, 24),
                (Tis, 0x100 + 0x168, 24),
                (Pd, wq!(0x48), 24),
                (Uar, wq!(0x68), 24),
                (Record, wq!(0x80), 64),
            ],
        )
    },
    Template {
        fields: &[(0x108, 4, 1)],
        ..plain(Opcode::MODIFY_RQ, 0x110, &[(Rq, 0x48, 24)])
    },
    Template {
        fields: &[(0x108, 4, 1)],
        ..plain(Opcode::MODIFY_SQ, 0x110, &[(Sq, 0x48, 24)])
    },
    Template {
        fields: &[(0x40, 4, 1), (0x108, 4, 3)],
        ..plain(Opcode::MODIFY_RQ, 0x110, &[(Rq, 0x48, 24)])
    },
    Template {
        fields: &[(0x40, 4, 3), (0x108, 4, 0)],
        ..plain(Opcode::MODIFY_SQ, 0x110, &[(Sq, 0x48, 24)])
    },
    Template {
        fields: &[(0x108, 4, 1), (wq!(0x10c), 4, 6), (wq!(0x11b), 5, 4)],
        pages: 1,
        makes: Some((Rmp, 0x48, 24)),
        ..plain(
            Opcode::CREATE_RMP,
            0x110,
            &[(Pd, wq!(0x48), 24), (Record, wq!(0x80), 64)],
        )
    },
    Template {
        fields: &[(0x40, 4, 1), (0x108, 4, 1)],
        ..plain(Opcode::MODIFY_RMP, 0x110, &[(Rmp, 0x48, 24)])
    },
    Template {
        fields: &[(0x84, 4, 4), (0xa5, 3, 1)],
        pages: 1,
        makes: Some((XrcSrq, 0x48, 24)),
        ..plain(
            Opcode::CREATE_XRC_SRQ,
            0x110,
            &[(Xrcd, 0x80 + 0x28, 24), (Cq, 0x80 + 0x48, 24), (Pd, 0x80 + 0xc8, 24)],
        )
    },
    plain(Opcode::ARM_XRC_SRQ, 0x10, &[(XrcSrq, 0x48, 24)]),
    Template {
        fields: &[(0x100 + 0xb0, 16, 1), (0x100 + 0xd0, 16, 1)],
        makes: Some((Rqt, 0x48, 24)),
        ..plain(Opcode::CREATE_RQT, 0x114, &[(Rq, 0x110 * 8, 32)])
    },
    Template {
        fields: &[(0xbf, 1, 1), (0x100 + 0xd0, 16, 1)],
        ..plain(Opcode::MODIFY_RQT, 0x114, &[(Rqt, 0x48, 24), (Rq, 0x110 * 8, 32)])
    },
    Template {
        makes: Some((Tir, 0x48, 24)),
        ..plain(
            Opcode::CREATE_TIR,
            0x110,
            &[(Rq, 0x100 + 0xe8, 24), (TransportDomain, 0x100 + 0x128, 24)],
        )
    },
    Template {
        fields: &[(0x120, 4, 1), (0x220, 4, 2), (0x100 + 0x282, 30, 0xf)],
        makes: Some((Tir, 0x48, 24)),
        ..plain(
            Opcode::CREATE_TIR,
            0x110,
            &[(Rqt, 0x100 + 0x108, 24), (TransportDomain, 0x100 + 0x128, 24)],
        )
    },
    Template {
        fields: &[(0xbb, 1, 1), (0xbd, 1, 1)],
        ..plain(Opcode::MODIFY_TIR, 0x110, &[(Tir, 0x48, 24)])
    },
    Template {
        fields: &[(0xbf, 1, 1)],
        ..plain(Opcode::MODIFY_TIS, 0xc0, &[(Tis, 0x48, 24)])
    },
    Template {
        fields: &[(0xc0 + 0x8, 8, 58), (0xc0 + 0x18, 8, 4)],
        makes: Some((FlowTable, 0x48, 24)),
        ..plain(Opcode::CREATE_FLOW_TABLE, 0x40, &[])
    },
    Template {
        fields: &[(0x70, 16, 1)],
        ..plain(Opcode::MODIFY_FLOW_TABLE, 0x40, &[(FlowTable, 0xa8, 24)])
    },
    plain(Opcode::SET_FLOW_TABLE_ROOT, 0x40, &[(FlowTable, 0xa8, 24)]),
    Template {
        fields: &[(0x120, 32, 3)],
        makes: Some((FlowGroup, 0x48, 24)),
        ..plain(Opcode::CREATE_FLOW_GROUP, 0x400, &[(FlowTable, 0xa8, 24)])
    },
    Template {
        fields: &[(0x200 + 0x70, 16, 4), (0x200 + 0x88, 24, 1), (0x340 * 8, 8, 2)],
        ..plain(
            Opcode::SET_FLOW_TABLE_ENTRY,
            0x348,
            &[
                (FlowTable, 0xa8, 24),
                (FlowGroup, 0x200 + 0x20, 32),
                (Tir, 0x340 * 8 + 8, 24),
            ],
        )
    },
    plain(Opcode::DELETE_FLOW_TABLE_ENTRY, 0x40, &[(FlowTable, 0xa8, 24)]),
    plain(
        Opcode::DESTROY_FLOW_GROUP,
        0x40,
        &[(FlowTable, 0xa8, 24), (FlowGroup, 0xc0, 32)],
    ),
    plain(Opcode::DESTROY_FLOW_TABLE, 0x40, &[(FlowTable, 0xa8, 24)]),
    plain(Opcode::QUERY_FLOW_COUNTER, 0x20, &[(FlowCounter, 0xe0, 32)]),
    plain(Opcode::DEALLOC_FLOW_COUNTER, 0x10, &[(FlowCounter, 0x40, 32)]),
    Template {
        fields: &[(0xc0 + 0x49, 4, 4), (0xc0 + 0x4d, 3, 1), (0xc0 + 0x51, 4, 4)],
        pages: 2,
        makes: Some((Qp, 0x48, 24)),
        ..plain(
            Opcode::CREATE_QP,
            0x110,
            &[
                (Pd, 0xc0 + 0x28, 24),
                (Uar, 0xc0 + 0x68, 24),
                (Cq, 0xc0 + 0x3e8, 24),
                (Cq, 0xc0 + 0x4e8, 24),
                (Record, 0xc0 + 0x500, 64),
            ],
        )
    },
    plain(Opcode::RST2INIT_QP, 0x110, &[(Qp, 0x48, 24), (Pd, 0xc0 + 0x28, 24)]),
    plain(Opcode::INIT2RTR_QP, 0x110, &[(Qp, 0x48, 24)]),
    plain(Opcode::RTR2RTS_QP, 0x110, &[(Qp, 0x48, 24)]),
    plain(Opcode::RTS2RTS_QP, 0x110, &[(Qp, 0x48, 24)]),
    plain(Opcode::QP_2ERR, 0x10, &[(Qp, 0x48, 24)]),
    plain(Opcode::QP_2RST, 0x10, &[(Qp, 0x48, 24)]),
    plain(Opcode::ATTACH_TO_MCG, 0x20, &[(Qp, 0x48, 24)]),
    plain(Opcode::DETACH_FROM_MCG, 0x20, &[(Qp, 0x48, 24)]),
    plain(Opcode::QUERY_EQ, 0x10, &[(Eq, 0x58, 8)]),
    plain(Opcode::QUERY_CQ, 0x10, &[(Cq, 0x48, 24)]),
    plain(Opcode::QUERY_MKEY, 0x10, &[(Mkey, 0x48, 24)]),
    plain(Opcode::QUERY_TIS, 0x10, &[(Tis, 0x48, 24)]),
    plain(Opcode::QUERY_TIR, 0x10, &[(Tir, 0x48, 24)]),
    plain(Opcode::QUERY_RQT, 0x10, &[(Rqt, 0x48, 24)]),
    plain(Opcode::QUERY_RQ, 0x10, &[(Rq, 0x48, 24)]),
    plain(Opcode::QUERY_SQ, 0x10, &[(Sq, 0x48, 24)]),
    plain(Opcode::QUERY_QP, 0x10, &[(Qp, 0x48, 24)]),
    plain(Opcode::QUERY_RMP, 0x10, &[(Rmp, 0x48, 24)]),
    plain(Opcode::QUERY_XRC_SRQ, 0x10, &[(XrcSrq, 0x48, 24)]),
    plain(Opcode::QUERY_Q_COUNTER, 0x20, &[(Counters, 0xf8, 8)]),
    plain(Opcode::DESTROY_EQ, 0x10, &[(Eq, 0x58, 8)]),
    plain(Opcode::DESTROY_CQ, 0x10, &[(Cq, 0x48, 24)]),
    plain(Opcode::DESTROY_MKEY, 0x10, &[(Mkey, 0x48, 24)]),
    plain(Opcode::DESTROY_TIS, 0x10, &[(Tis, 0x48, 24)]),
    plain(Opcode::DESTROY_TIR, 0x10, &[(Tir, 0x48, 24)]),
    plain(Opcode::DESTROY_RQT, 0x10, &[(Rqt, 0x48, 24)]),
    plain(Opcode::DESTROY_RQ, 0x10, &[(Rq, 0x48, 24)]),
    plain(Opcode::DESTROY_SQ, 0x10, &[(Sq, 0x48, 24)]),
    plain(Opcode::DESTROY_QP, 0x10, &[(Qp, 0x48, 24)]),
    plain(Opcode::DESTROY_RMP, 0x10, &[(Rmp, 0x48, 24)]),
    plain(Opcode::DESTROY_XRC_SRQ, 0x10, &[(XrcSrq, 0x48, 24)]),
    plain(Opcode::DEALLOC_PD, 0x10, &[(Pd, 0x48, 24)]),
    plain(Opcode::DEALLOC_UAR, 0x10, &[(Uar, 0x48, 24)]),
    plain(Opcode::DEALLOC_XRCD, 0x10, &[(Xrcd, 0x48, 24)]),
    plain(Opcode::DEALLOC_TRANSPORT_DOMAIN, 0x10, &[(TransportDomain, 0x48, 24)]),
    plain(Opcode::DEALLOC_Q_COUNTER, 0x10, &[(Counters, 0x58, 8)]),
    plain(Opcode::DESTROY_UCTX, 0x10, &[(Uctx, 0x50, 16)]),
    plain(Opcode::QUERY_ISSI, 0x10, &[]),
    Template {
        fields: &[(0x50, 16, 1)],
        ..plain(Opcode::SET_ISSI, 0x10, &[])
    },
    Template {
        op_mod: 3,
        ..plain(Opcode::QUERY_PAGES, 0x10, &[])
    },
    Template {
        op_mod: 1,
        fields: &[(0x60, 32, 2)],
        pages: 2,
        ..plain(Opcode::MANAGE_PAGES, 0x10, &[])
    },
    Template {
        op_mod: 2,
        fields: &[(0x60, 32, 3)],
        ..plain(Opcode::MANAGE_PAGES, 0x10, &[])
    },
    plain(Opcode::QUERY_HCA_CAP, 0x10, &[]),
    plain(Opcode::SET_HCA_CAP, 0x1010, &[]),
    plain(Opcode::QUERY_ADAPTER, 0x10, &[]),
    plain(Opcode::QUERY_SPECIAL_CONTEXTS, 0x10, &[]),
    plain(Opcode::SET_DRIVER_VERSION, 0x50, &[]),
    plain(Opcode::QUERY_NIC_VPORT_CONTEXT, 0x10, &[]),
    plain(Opcode::MODIFY_NIC_VPORT_CONTEXT, 0x210, &[]),
    plain(Opcode::QUERY_VPORT_STATE, 0x10, &[]),
    plain(Opcode::QUERY_VPORT_COUNTER, 0x20, &[]),
    plain(Opcode::QUERY_HCA_VPORT_PKEY, 0x10, &[]),
    plain(Opcode::QUERY_HCA_VPORT_CONTEXT, 0x10, &[]),
    plain(Opcode::SET_ROCE_ADDRESS, 0x30, &[]),
    plain(Opcode::QUERY_ROCE_ADDRESS, 0x10, &[]),
    Template {
        op_mod: 1,
        fields: &[(0x50, 16, 0x5004)],
        ..plain(Opcode::ACCESS_REG, 0x50, &[])
    },
    Template {
        fields: &[(0x50, 16, 0x5003), (0xc0, 16, 9000)],
        ..plain(Opcode::ACCESS_REG, 0x20, &[])
    },
    Template {
        op_mod: 1,
        fields: &[(0x50, 16, 0x5008)],
        ..plain(Opcode::ACCESS_REG, 0x110, &[])
    },
    plain(Opcode::CREATE_DCT, 0x110, &[]),
    plain(Opcode::CREATE_GENERAL_OBJECT, 0x40, &[]),
];
