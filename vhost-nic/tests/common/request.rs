//! Requests of queue pairs and the WQEs that ask for them (`mlx5_ib/wr.c`).

use mlx5_prm::rdma_wqe::{AddressVector, AtomicSegment, RemoteAddressSegment, XrcSegment};
use mlx5_prm::wqe::{ControlSegment, DataSegment, INVALID_LKEY, SEND_WQE_DS, WqeOpcode};
use zerocopy::IntoBytes;

/// Memory of a receive WQE: address, bytes, key.
pub type Scatter = (u64, u32, u32);

/// Data of a send WQE.
#[derive(Debug, Clone)]
pub enum Data {
    /// In memory.
    Memory(Scatter),
    /// In the WQE.
    Inline(Vec<u8>),
}

/// What a send WQE asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The opcode.
    pub opcode: WqeOpcode,
    /// Address and key at the other side.
    pub remote: Option<(u64, u32)>,
    /// Operands of an atomic: swap or add, compare.
    pub operands: Option<(u64, u64)>,
    /// The immediate or key to invalidate.
    pub immediate: u32,
    /// Its data.
    pub data: Vec<Data>,
    /// Completion, fence and solicited bits.
    pub flags: u8,
    /// The shared receive queue of the other side.
    pub xrc_srqn: Option<u32>,
    /// Where a datagram goes.
    pub to: Option<AddressVector>,
}

impl Request {
    /// A request that completes.
    pub fn new(opcode: WqeOpcode, data: Vec<Data>) -> Self {
        Self {
            opcode,
            remote: None,
            operands: None,
            immediate: 0,
            data,
            flags: ControlSegment::CQ_UPDATE,
            xrc_srqn: None,
            to: None,
        }
    }

    /// A request that names memory of the other side.
    pub fn remote(opcode: WqeOpcode, data: Vec<Data>, address: u64, key: u32) -> Self {
        Self {
            remote: Some((address, key)),
            ..Self::new(opcode, data)
        }
    }

    /// The WQE, for place `index` of the ring of queue `number`.
    pub fn wqe(&self, number: u32, index: u16) -> Vec<u8> {
        let body = self.body();
        let mut control = ControlSegment::default();
        control.opmod_idx_opcode.set(u32::from(index) << 8 | self.opcode as u32);
        let length = SEND_WQE_DS + body.len();
        control.qpn_ds.set(number << 8 | (length / SEND_WQE_DS) as u32);
        control.fm_ce_se = self.flags;
        control.immediate.set(self.immediate);
        [control.as_bytes(), &body].concat()
    }

    fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        if let Some(srqn) = self.xrc_srqn {
            let mut segment = XrcSegment::default();
            segment.xrc_srqn.set(srqn);
            body.extend_from_slice(segment.as_bytes());
        }
        if let Some(vector) = &self.to {
            body.extend_from_slice(vector.as_bytes());
        }
        if let Some((address, key)) = self.remote {
            let mut segment = RemoteAddressSegment::default();
            segment.raddr.set(address);
            segment.rkey.set(key);
            body.extend_from_slice(segment.as_bytes());
        }
        if let Some((swap_add, compare)) = self.operands {
            let mut segment = AtomicSegment::default();
            segment.swap_add.set(swap_add);
            segment.compare.set(compare);
            body.extend_from_slice(segment.as_bytes());
        }
        for part in &self.data {
            match part {
                Data::Memory(scatter) => body.extend_from_slice(&scatter_list(&[*scatter], 1)),
                Data::Inline(bytes) => {
                    let count = DataSegment::INLINE | bytes.len() as u32;
                    body.extend_from_slice(&count.to_be_bytes());
                    body.extend_from_slice(bytes);
                    body.resize(body.len().next_multiple_of(SEND_WQE_DS), 0);
                }
            }
        }
        body
    }
}

/// Data segments, and what ends a list of fewer than `room`.
pub fn scatter_list(scatter: &[Scatter], room: usize) -> Vec<u8> {
    assert!(scatter.len() <= room);
    let mut bytes = Vec::new();
    for &(address, length, key) in scatter {
        let mut segment = DataSegment::default();
        segment.byte_count.set(length);
        segment.lkey.set(key);
        segment.address.set(address);
        bytes.extend_from_slice(segment.as_bytes());
    }
    if scatter.len() < room {
        let mut end = DataSegment::default();
        end.lkey.set(INVALID_LKEY);
        bytes.extend_from_slice(end.as_bytes());
    }
    bytes
}
