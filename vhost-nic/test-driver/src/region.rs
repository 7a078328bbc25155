//! Memory regions (`mlx5_ib/mr.c`).

use mlx5_prm::mkey::{CreateMkeyIn, CreateMkeyOut};
use mlx5_prm::opcode::Opcode;

use crate::buffer::Buffer;
use crate::command::Result;
use crate::hca::Hca;
use crate::memory::PAGE;
use crate::mkey::{ANY_QP, destroy_mkey};

/// Access rights to a region.
#[derive(Debug, Clone, Copy)]
pub struct Rights {
    /// Local write.
    pub local_write: bool,
    /// Remote read.
    pub remote_read: bool,
    /// Remote write.
    pub remote_write: bool,
    /// Remote atomic.
    pub remote_atomic: bool,
}

impl Rights {
    /// Every right.
    pub const ALL: Self = Self {
        local_write: true,
        remote_read: true,
        remote_write: true,
        remote_atomic: true,
    };
    /// Local read, which needs no right.
    pub const READ_ONLY: Self = Self {
        local_write: false,
        remote_read: false,
        remote_write: false,
        remote_atomic: false,
    };
}

/// `MLX5_MKC_ACCESS_MODE_MTT`.
const MTT: u8 = 1;
/// Read and write enable of an MTT entry (`MLX5_IB_MTT_READ`, `MLX5_IB_MTT_WRITE`).
const MTT_ACCESS: u64 = 0b11;
/// The low byte of the keys.
const VARIANT: u8 = 0xa7;
/// Virtual address of a region; the offset in its page is that of the first byte in memory.
const START: u64 = 0x7f12_3456_7000;

/// Discontiguous pages with a key that makes them contiguous.
#[derive(Debug)]
pub struct Region {
    /// lkey and rkey.
    pub key: u32,
    /// Virtual address of the first byte.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    buffer: Buffer,
}

impl Region {
    /// Allocates and registers `length` zeroed bytes, in pages of 4 KiB.
    pub fn create(hca: &Hca, pd: u32, length: u64, rights: Rights) -> Result<Self> {
        Self::in_pages(hca, pd, length, rights, PAGE)
    }

    /// Allocates and registers `length` zeroed bytes, in pages of `page` bytes.
    pub fn in_pages(hca: &Hca, pd: u32, length: u64, rights: Rights, page: u64) -> Result<Self> {
        let start = START & (page - 1);
        let buffer = Buffer::in_pages(&hca.machine.memory, length, page, start);
        let addresses = buffer.addresses();
        Self::of_pages(hca, pd, length, rights, page, buffer, &addresses)
    }

    /// Registers one page, of `page` bytes, as often as `length` bytes take.
    pub fn of_one_page(hca: &Hca, pd: u32, length: u64, page: u64) -> Result<Self> {
        let buffer = Buffer::in_pages(&hca.machine.memory, page, page, 0);
        let count = ((START & (page - 1)) + length).div_ceil(page);
        let addresses = buffer.addresses().repeat(count as usize);
        Self::of_pages(hca, pd, length, Rights::ALL, page, buffer, &addresses)
    }

    fn of_pages(
        hca: &Hca,
        pd: u32,
        length: u64,
        rights: Rights,
        page: u64,
        buffer: Buffer,
        addresses: &[u64],
    ) -> Result<Self> {
        let mut list: Vec<u8> = addresses
            .iter()
            .flat_map(|page| (page | MTT_ACCESS).to_be_bytes())
            .collect();
        list.resize(list.len().next_multiple_of(16), 0);
        let mut input = CreateMkeyIn::default();
        input.set_translations_octword_actual_size((list.len() / 16) as u32);
        let context = input.memory_key_mkey_entry_mut();
        context.set_access_mode_1_0(MTT);
        context.set_lr(true);
        context.set_lw(rights.local_write);
        context.set_rr(rights.remote_read);
        context.set_rw(rights.remote_write);
        context.set_a(rights.remote_atomic);
        // Allows remote invalidation.
        context.set_en_rinval(true);
        context.set_pd(pd);
        context.set_qpn(ANY_QP);
        context.set_mkey_7_0(VARIANT);
        context.set_start_addr(START);
        context.set_len(length);
        context.set_log_page_size(page.ilog2() as u8);
        context.set_translations_octword_size((list.len() / 16) as u32);
        let (output, _): (CreateMkeyOut, _) = hca.commands.call_with(Opcode::CREATE_MKEY, 0, &input, &list, 0)?;
        Ok(Self {
            key: output.mkey_index() << 8 | u32::from(VARIANT),
            start: START,
            length,
            buffer,
        })
    }

    /// Destroys the key in the device.
    pub fn destroy(&self, hca: &Hca) -> Result<()> {
        destroy_mkey(hca, self.key)
    }

    /// Guest addresses of the pages.
    pub fn pages(&self) -> Vec<u64> {
        self.buffer.addresses()
    }

    /// Virtual address of a byte.
    pub fn at(&self, offset: u64) -> u64 {
        self.start + offset
    }

    /// Writes bytes.
    pub fn write(&self, offset: u64, data: &[u8]) {
        assert!(
            offset + data.len() as u64 <= self.length,
            "access beyond the end of the region"
        );
        self.buffer.write(offset, data);
    }

    /// Reads bytes.
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        assert!(
            offset + length as u64 <= self.length,
            "access beyond the end of the region"
        );
        self.buffer.read(offset, length)
    }
}
