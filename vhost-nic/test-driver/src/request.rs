//! Work requests of queue pairs, and their WQEs (`mlx5_ib/wr.c`).

use mlx5_prm::rdma_wqe::{AddressVector, AtomicSegment, RemoteAddressSegment, XrcSegment};
use mlx5_prm::wqe::{ControlSegment, DataSegment, INVALID_LKEY, SEND_WQE_DS, WqeOpcode};
use zerocopy::IntoBytes;

/// A scatter or gather entry: address, bytes, key.
pub type Scatter = (u64, u32, u32);

/// A data segment of a send WQE.
#[derive(Debug, Clone)]
pub enum Data {
    /// Pointer to memory.
    Memory(Scatter),
    /// Inline.
    Inline(Vec<u8>),
}

/// A work request for the send queue.
#[derive(Debug, Clone)]
pub struct Request {
    /// Opcode.
    pub opcode: WqeOpcode,
    /// Remote address and key.
    pub remote: Option<(u64, u32)>,
    /// Atomic operands: swap or add, compare.
    pub operands: Option<(u64, u64)>,
    /// Immediate, or key to invalidate.
    pub immediate: u32,
    /// Data segments.
    pub data: Vec<Data>,
    /// Completion, fence and solicited bits (`fm_ce_se`).
    pub flags: u8,
    /// Remote SRQ, for XRC.
    pub xrc_srqn: Option<u32>,
    /// Destination of a datagram.
    pub to: Option<AddressVector>,
}

impl Request {
    /// A signaled request.
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

    /// A signaled request on remote memory.
    pub fn remote(opcode: WqeOpcode, data: Vec<Data>, address: u64, key: u32) -> Self {
        Self {
            remote: Some((address, key)),
            ..Self::new(opcode, data)
        }
    }

    /// The WQE at index `index` of queue `number`.
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

/// Data segments, terminated by an invalid lkey if there are fewer than `room`.
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
