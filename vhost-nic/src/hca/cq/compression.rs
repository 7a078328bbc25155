//! CQE compression, basic layout: completions that differ in little are a title CQE and arrays of mini CQEs.
//!
//! A session of n completions takes their n entries of the CQ. The first entry is the title, a CQE with what they have
//! in common, and the number n in place of the byte count. The first array of mini CQEs is in the second entry, the
//! next ones are 8, 16, ... entries behind the title. The other entries stay as they are: the consumer sets their owner
//! bits (`mlx5e_decompress_cqes_start`, `mlx5e_cqes_update_owner`, core/en_rx.c; `mlx5_rx_poll_len`, mlx5_rx.c of
//! DPDK). The n-th completion has the title's WQE counter plus n, as mlx5e without stride indexes counts.

use mlx5_prm::cq::Cqc;
use mlx5_prm::queue_entry::{Cqe, CqeOpcode, MiniCqe};
use zerocopy::IntoBytes;

/// Maximum number of completions of a session (`cqe_compression_max_num`).
pub const MAX_SESSION: usize = 64;
/// Minimum number of completions of a session that takes fewer writes than they do: three, by a title and an array.
const SHORTEST_TO_SAVE: usize = 3;
/// Minimum number of completions of any session: the first array is in the second entry.
const SHORTEST: usize = 2;

/// Sessions that are compressed (`cqe_compress_str`, core/lib/nv_param.c; Documentation/networking/devlink/mlx5.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CompressionType {
    /// Sessions that save writes.
    #[default]
    Balanced,
    /// All sessions.
    Aggressive,
}

/// Content of a mini CQE besides the byte count (`mini_cqe_res_format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MiniFormat {
    Hash,
    /// `MLX5_CQE_FORMAT_CSUM`.
    Checksum,
}

impl MiniFormat {
    fn new(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Hash),
            1 => Some(Self::Checksum),
            // With a stride index: `mini_cqe_resp_stride_index`.
            _ => None,
        }
    }

    fn mini(self, cqe: &Cqe) -> MiniCqe {
        let result = match self {
            Self::Hash => cqe.rss_hash_result.to_bytes(),
            Self::Checksum => {
                let [high, low] = cqe.check_sum.to_bytes();
                [high, low, 0, 0]
            }
        };
        MiniCqe {
            result,
            byte_count: cqe.byte_count,
        }
    }
}

/// What the completions of a session have in common. The title has the hash and the checksum of the first; of the
/// others, the one that is not in the mini CQEs is lost (`mlx5e_decompress_cqe_no_hash`).
fn common(cqe: &Cqe) -> Cqe {
    let mut common = *cqe;
    common.rss_hash_result.set(0);
    common.check_sum.set(0);
    common.byte_count.set(0);
    common.timestamp.set(0);
    common.wqe_counter.set(0);
    common
}

/// Whether a completion can be one of a session: a received message in memory, without immediate and event request.
pub(super) fn is_joinable(cqe: &Cqe) -> bool {
    cqe.op_own == (CqeOpcode::ResponderSend as u8) << 4
}

/// Whether the device has the mini CQEs and the layout that a context wants, if it wants any.
pub fn is_supported(context: &Cqc) -> bool {
    !context.cqe_comp_en()
        || (MiniFormat::new(context.mini_cqe_res_format()).is_some() && context.cqe_compression_layout() == 0)
}

/// The session of a CQ: completions that are ready, and not written yet.
#[derive(Debug)]
pub(super) struct Session {
    format: MiniFormat,
    shortest: usize,
    /// Receive queue of the completions.
    queue: u32,
    /// The first completions, as they are written if the session stays too short.
    first: [Cqe; SHORTEST_TO_SAVE - 1],
    minis: [MiniCqe; MAX_SESSION],
    length: usize,
}

impl Session {
    /// An empty session of a CQ, if its context allows compression.
    pub(super) fn new(context: &Cqc, compression: CompressionType) -> Option<Box<Self>> {
        let format = MiniFormat::new(context.mini_cqe_res_format()).filter(|_| context.cqe_comp_en())?;
        Some(Box::new(Self {
            format,
            shortest: match compression {
                CompressionType::Balanced => SHORTEST_TO_SAVE,
                CompressionType::Aggressive => SHORTEST,
            },
            queue: 0,
            first: Default::default(),
            minis: [MiniCqe::default(); MAX_SESSION],
            length: 0,
        }))
    }

    pub(super) fn len(&self) -> u32 {
        self.length as u32
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    /// Whether a completion of a receive queue can be the next, in a CQ of `entries`.
    pub(super) fn takes(&self, queue: u32, cqe: &Cqe, entries: u32) -> bool {
        if self.is_empty() {
            return true;
        }
        let [title, ..] = &self.first;
        self.length < MAX_SESSION
            && self.len() < entries
            && self.queue == queue
            && title.wqe_counter.get().wrapping_add(self.length as u16) == cqe.wqe_counter.get()
            && common(title).as_bytes() == common(cqe).as_bytes()
    }

    /// Adds a completion that it [takes](Self::takes).
    pub(super) fn add(&mut self, queue: u32, cqe: &Cqe) {
        if let Some(first) = self.first.get_mut(self.length) {
            *first = *cqe;
        }
        self.minis[self.length] = self.format.mini(cqe);
        self.queue = queue;
        self.length += 1;
    }

    /// The completions to write as they are, if the session is too short to be compressed.
    pub(super) fn plain(&self) -> Option<&[Cqe]> {
        (self.length < self.shortest).then(|| &self.first[..self.length])
    }

    /// The title, with this owner bit.
    pub(super) fn title(&self, owner: u8) -> Cqe {
        let [mut title, ..] = self.first;
        title.byte_count.set(self.len());
        title.op_own |= Cqe::COMPRESSED | owner;
        title
    }

    /// The arrays, each with its distance to the title in entries. What follows the last mini CQE is zero.
    pub(super) fn arrays(&self) -> impl Iterator<Item = (u32, [MiniCqe; MiniCqe::ARRAY])> {
        let arrays = self.minis[..self.length].chunks(MiniCqe::ARRAY);
        arrays.enumerate().map(|(index, minis)| {
            let mut array = [MiniCqe::default(); MiniCqe::ARRAY];
            array[..minis.len()].copy_from_slice(minis);
            ((index * MiniCqe::ARRAY).max(1) as u32, array)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: u32 = 7;

    fn received(wqe_counter: u16) -> Cqe {
        let mut cqe = Cqe::new(CqeOpcode::ResponderSend);
        cqe.wqe_counter.set(wqe_counter);
        cqe
    }

    fn session(completions: u16) -> Box<Session> {
        let mut context = Cqc::default();
        context.set_cqe_comp_en(true);
        let mut session = Session::new(&context, CompressionType::Balanced).unwrap();
        for index in 0..completions {
            let cqe = received(0xfffe_u16.wrapping_add(index));
            assert!(session.takes(QUEUE, &cqe, 1 << 22), "{index}");
            session.add(QUEUE, &cqe);
        }
        session
    }

    #[test]
    fn a_session_takes_the_next_completion_of_its_queue() {
        let next = received(2);
        let takes = |queue: u32, cqe: &Cqe, entries: u32| session(4).takes(queue, cqe, entries);
        assert!(takes(QUEUE, &next, 8));
        assert!(!takes(QUEUE + 1, &next, 8), "of another queue");
        assert!(!takes(QUEUE, &next, 4), "there are no more entries");
        assert!(!takes(QUEUE, &received(1), 8) && !takes(QUEUE, &received(3), 8));
        assert!(!session(64).takes(QUEUE, &received(62), 1 << 22), "a full session");
        let mut tagged = next;
        tagged.vlan_info.set(5);
        assert!(!takes(QUEUE, &tagged, 8), "another title");
        let mut other = next;
        other.check_sum.set(5);
        other.rss_hash_result.set(6);
        other.byte_count.set(7);
        other.timestamp.set(8);
        assert!(takes(QUEUE, &other, 8));
    }

    #[test]
    fn plain_messages_alone_are_joined() {
        assert!(is_joinable(&received(0)));
        for bits in [Cqe::SOLICITED, Cqe::INLINE_32, Cqe::INLINE_64] {
            let mut cqe = received(0);
            cqe.op_own |= bits;
            assert!(!is_joinable(&cqe), "{bits:#x}");
        }
        for opcode in [
            CqeOpcode::Request,
            CqeOpcode::ResponderSendImmediate,
            CqeOpcode::ResponderSendInvalidate,
            CqeOpcode::ResponderError,
        ] {
            assert!(!is_joinable(&Cqe::new(opcode)), "{opcode:?}");
        }
    }

    #[test]
    fn arrays_are_in_the_second_entry_and_every_eighth() {
        let places = |count| session(count).arrays().map(|(place, _)| place).collect::<Vec<_>>();
        assert_eq!(places(3), [1]);
        assert_eq!(places(8), [1]);
        assert_eq!(places(9), [1, 8]);
        assert_eq!(places(64), [1, 8, 16, 24, 32, 40, 48, 56]);
        assert_eq!(session(2).plain().map(<[_]>::len), Some(2));
        assert!(session(3).plain().is_none());
    }
}
