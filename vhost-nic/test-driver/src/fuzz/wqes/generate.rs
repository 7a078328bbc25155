//! WQEs, as the input chooses.

use mlx5_prm::mkey::Mkc;
use mlx5_prm::rdma_wqe::{UmrControlSegment, mkey_mask as mask};
use mlx5_prm::wqe::{ControlSegment, SEND_WQE_DS, WqeOpcode};
use zerocopy::IntoBytes;

use super::other::Other;
use super::{Guest, PEERS, Peer, REGION, SERVICES};
use crate::fuzz::choices::Choices;
use crate::mkey::ANY_QP;
use crate::qp::{Data, Q_KEY, Request, Scatter, address, service};

/// Maximum bytes of a WQE.
const MAX_WQE: usize = 63 * SEND_WQE_DS;
/// Fields of a key that a registration changes.
const REGISTERED: u64 = mask::LEN
    | mask::PAGE_SIZE
    | mask::START_ADDR
    | mask::EN_RINVAL
    | (mask::LR | mask::LW | mask::RR | mask::RW | mask::A)
    | mask::FREE;
/// Keys that were not created.
const SPECIAL_KEYS: [u32; 4] = [0x100, 0x200, 0x300, 0x400];

impl Guest {
    /// A memory key.
    fn key(&self, choices: &mut Choices<'_>, other: &Other) -> Option<u32> {
        let regions = self.regions.iter().map(|region| region.key);
        let all: Vec<u32> = regions
            .chain(self.changeable.iter().copied())
            .chain([other.open.key, other.closed.key])
            .chain(SPECIAL_KEYS)
            .collect();
        match choices.byte()? {
            // A usable one, most often.
            0..=219 => Some(self.regions[0].key),
            220..=250 => choices.one(&all),
            _ => choices.word(),
        }
    }

    /// A scatter entry, most often within the first region.
    pub fn part(&self, choices: &mut Choices<'_>, other: &Other) -> Option<Scatter> {
        let inside = choices.byte()? < 220;
        let (offset, length) = if inside {
            let length = choices.one(&[0, 1, 8, 8, 16, 63, 64, 65, 500, 1023, 1024, 1025, 5000])?;
            (choices.one(&[0, 1, 63, 4095, 4096, 8192])?, length)
        } else {
            let length = choices.one(&[0, 1, 64, 65, 1 << 16, 1 << 30, u32::MAX])?;
            (choices.one(&[0, REGION - 64, REGION - 1, REGION])?, length)
        };
        Some((self.regions[0].start + offset, length, self.key(choices, other)?))
    }

    /// The body of a UMR WQE, and the key that it changes.
    fn key_change(&self, choices: &mut Choices<'_>) -> Option<(Vec<u8>, u32)> {
        let index = usize::from(choices.byte()?) % self.changeable.len();
        let mut control = UmrControlSegment::default();
        control.flags = match choices.byte()? {
            // Most often a registration, with the list in the WQE.
            0..=119 => UmrControlSegment::INLINE,
            120..=159 => UmrControlSegment::INLINE | UmrControlSegment::CHECK_NOT_FREE,
            flags => flags,
        };
        control.xlt_octowords.set(choices.one(&[0, 1, 2, 4, 8, 9, u16::MAX])?);
        control.xlt_offset.set(choices.one(&[0, 0, 1, 7, 8, u16::MAX])?);
        let mask = choices.one(&[REGISTERED, REGISTERED, REGISTERED, mask::FREE, u64::MAX, 0])?;
        control.mkey_mask.set(mask);
        let mut context = Mkc::default();
        context.set_free(choices.byte()? >= 200);
        context.set_lr(true);
        context.set_lw(true);
        context.set_rr(true);
        context.set_rw(true);
        context.set_a(true);
        context.set_umr_en(true);
        context.set_en_rinval(true);
        context.set_pd(self.node.pd);
        context.set_qpn(ANY_QP);
        context.set_log_page_size(12);
        context.set_start_addr(self.regions[0].start);
        context.set_len(choices.one(&[4096, 8192, 1 << 16, u64::MAX])?);
        choices.damage(control.as_mut_bytes())?;
        choices.damage(context.as_mut_bytes())?;
        let mut list = Vec::new();
        if index < 2 {
            // Only pages of the region: writes to the rest of its own memory would break the test, not show a bug.
            for page in self.regions[0].pages().iter().take(8) {
                list.extend((page | 3).to_be_bytes());
            }
        } else {
            for _ in 0..4 {
                let key = choices.one(&[
                    self.regions[0].key,
                    self.changeable[0],
                    self.changeable[2],
                    self.changeable[3],
                ])?;
                let length = choices.one(&[4096_u32, 100, 0, u32::MAX])?;
                list.extend(length.to_be_bytes());
                list.extend(key.to_be_bytes());
                list.extend(self.regions[0].start.to_be_bytes());
            }
        }
        let body = [control.as_bytes(), context.as_bytes(), &list].concat();
        Some((body, self.changeable[index]))
    }

    /// A send WQE for a queue pair, valid or nearly so.
    pub fn send_wqe(&self, index: usize, choices: &mut Choices<'_>, other: &Other) -> Option<Vec<u8>> {
        let qp = &self.targets.queue_pairs[index];
        let service = SERVICES[index];
        let opcode = match choices.byte()? {
            0..=239 => choices.one(&[
                WqeOpcode::Nop,
                WqeOpcode::Send,
                WqeOpcode::SendImmediate,
                WqeOpcode::SendInvalidate,
                WqeOpcode::RdmaWrite,
                WqeOpcode::RdmaWriteImmediate,
                WqeOpcode::RdmaRead,
                WqeOpcode::AtomicCompareSwap,
                WqeOpcode::AtomicFetchAdd,
                WqeOpcode::Umr,
            ])?,
            _ => choices.one(&[WqeOpcode::AtomicMaskedFetchAdd, WqeOpcode::Lso])?,
        };
        let mut wqe = if opcode == WqeOpcode::Umr {
            let (body, key) = self.key_change(choices)?;
            let mut control = ControlSegment::default();
            control.opmod_idx_opcode.set(opcode as u32);
            let length = SEND_WQE_DS + body.len();
            control.qpn_ds.set(qp.number << 8 | (length / SEND_WQE_DS) as u32);
            control.fm_ce_se = ControlSegment::CQ_UPDATE;
            control.immediate.set(key);
            // Not damaged: the list of pages is in it.
            return Some([control.as_bytes(), &body].concat());
        } else {
            let data = match choices.byte()? {
                0..=49 => vec![Data::Inline(vec![0xa5; choices.index(300)?])],
                50..=219 => vec![Data::Memory(self.part(choices, other)?)],
                _ => {
                    let inline = Data::Inline(vec![0x5a; choices.index(30)?]);
                    vec![
                        Data::Memory(self.part(choices, other)?),
                        inline,
                        Data::Memory(self.part(choices, other)?),
                    ]
                }
            };
            let mut request = Request::new(opcode, data);
            let one_sided = !matches!(
                opcode,
                WqeOpcode::Nop | WqeOpcode::Send | WqeOpcode::SendImmediate | WqeOpcode::SendInvalidate
            );
            if one_sided {
                let start = other.open.start;
                let key = match PEERS[index] {
                    Peer::Other(_) if choices.byte()? < 200 => other.open.key,
                    _ => self.key(choices, other)?,
                };
                request.remote = Some((start + choices.one(&[0, 8, 1, 4096, REGION - 8, REGION])?, key));
            }
            if matches!(
                opcode,
                WqeOpcode::AtomicCompareSwap | WqeOpcode::AtomicFetchAdd | WqeOpcode::AtomicMaskedFetchAdd
            ) {
                request.operands = Some((1, 2));
                if choices.byte()? < 220 {
                    request.data = vec![Data::Memory((self.regions[0].at(16), 8, self.regions[0].key))];
                }
            }
            if service == service::XRC {
                request.xrc_srqn = Some(self.targets.xrc_srq_number(choices)?);
            }
            if matches!(service, service::UD | service::GSI) {
                let target = choices.one(&[qp.number, 1, 0xff_ffff, self.targets.queue_pairs[0].number])?;
                request.to = Some(address(&self.node, target, choices.one(&[Q_KEY, 1 << 31, 0])?));
            }
            request.immediate = self.key(choices, other)?;
            request.flags = choices.one(&[ControlSegment::CQ_UPDATE, ControlSegment::CQ_UPDATE, 0, 0xff, 0x80])?;
            qp.wqe(&request)
        };
        wqe.truncate(MAX_WQE);
        choices.damage(&mut wqe)?;
        Some(wqe)
    }
}
