//! Compressed sessions of completions, as mlx5e expands them (`mlx5e_decompress_cqes_start`, `core/en_rx.c`).

use mlx5_prm::queue_entry::{Cqe, MiniCqe};
use zerocopy::{FromBytes, IntoBytes};

/// Content of a mini CQE besides the byte count (`mini_cqe_res_format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MiniFormat {
    /// Receive hash, as DPDK uses it.
    Hash = 0,
    /// Checksum, as mlx5e uses it.
    Checksum = 1,
}

/// Numbers of sessions and of their completions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compressed {
    /// Sessions: title CQEs.
    pub sessions: u64,
    /// Completions.
    pub completions: u64,
}

/// A session that is consumed.
#[derive(Debug, Default)]
pub(crate) struct Session {
    format: Option<MiniFormat>,
    title: Cqe,
    count: usize,
    taken: usize,
    array: [MiniCqe; MiniCqe::ARRAY],
}

impl Session {
    /// The session of a title CQE.
    pub(crate) fn begin(format: MiniFormat, title: Cqe) -> Self {
        Self {
            format: Some(format),
            title,
            count: title.byte_count.get() as usize,
            ..Self::default()
        }
    }

    /// Completions that were not taken.
    pub(crate) fn left(&self) -> usize {
        self.count - self.taken
    }

    /// Number of the next completion, and whether it is the first of an array.
    pub(crate) fn position(&self) -> (usize, bool) {
        (self.taken, self.taken.is_multiple_of(MiniCqe::ARRAY))
    }

    /// Sets the array of the next completions, from the entry that it is in.
    pub(crate) fn set_array(&mut self, entry: &Cqe) {
        self.array = FromBytes::read_from_bytes(entry.as_bytes()).unwrap();
    }

    /// Expands the next completion. Of the values that mini CQEs lack, only the first has one.
    pub(crate) fn take(&mut self) -> Cqe {
        let mini = self.array[self.taken % MiniCqe::ARRAY];
        let mut cqe = self.title;
        cqe.op_own &= !Cqe::FORMAT;
        cqe.byte_count = mini.byte_count;
        cqe.wqe_counter
            .set(self.title.wqe_counter.get().wrapping_add(self.taken as u16));
        let [high, low, ..] = mini.result;
        match self.format {
            Some(MiniFormat::Checksum) => {
                cqe.check_sum.set(u16::from_be_bytes([high, low]));
                assert_eq!(mini.result[2..], [0; 2], "a stride index without the capability");
                if self.taken > 0 {
                    cqe.rss_hash_result.set(0);
                    cqe.rss_hash_type = 0;
                }
            }
            _ => {
                cqe.rss_hash_result.set(u32::from_be_bytes(mini.result));
                if self.taken > 0 {
                    cqe.check_sum.set(0);
                }
            }
        }
        self.taken += 1;
        cqe
    }
}
