//! The driver in copy mode: moves.

use vhost_ism::abi::*;

use super::super::PATIENCE;
use super::super::memory::LOW;
use super::super::ring::{NEXT, WRITE};
use super::*;

/// Address of the head of a move in guest RAM.
const HEAD: u64 = LOW + 0x7_0000;
/// Address of the status of a move.
const STATUS: u64 = HEAD + 0x100;
/// Address of the data of a move; half a MiB follows.
pub const SOURCE: u64 = LOW + 0x8_0000;

/// A range of guest addresses.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Guest address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
}

impl TestGuest {
    /// Moves bytes into a DMB of a peer.
    #[track_caller]
    pub fn move_data(&mut self, token: Token, offset: u64, bytes: &[u8], signal: bool) -> Status {
        self.ram.write(SOURCE, bytes);
        let piece = Piece {
            addr: SOURCE,
            len: bytes.len() as u32,
        };
        self.move_pieces(token, offset, &[piece], signal)
    }

    /// Moves the bytes at these addresses into a DMB of a peer.
    #[track_caller]
    pub fn move_pieces(&mut self, token: Token, offset: u64, pieces: &[Piece], signal: bool) -> Status {
        let body = Move {
            token,
            offset: offset.into(),
            flags: if signal { MOVE_SIGNAL } else { 0 }.into(),
            index: 0.into(),
        };
        self.move_raw(&encode(CMD_MOVE, &body), pieces)
    }

    /// Submits a head and the data at these addresses to the move queue.
    #[track_caller]
    pub fn move_raw(&mut self, head: &[u8], pieces: &[Piece]) -> Status {
        self.post_move(head, pieces);
        self.take_moved()
    }

    /// Submits the same, and does not wait for the answer.
    pub fn post_move(&mut self, head: &[u8], pieces: &[Piece]) {
        self.ram.write(HEAD, head);
        self.ram.write(STATUS, &[0xee]);
        let mut table = vec![(HEAD, head.len() as u32, 0)];
        table.extend(pieces.iter().map(|piece| (piece.addr, piece.len, 0)));
        table.push((STATUS, 1, WRITE));
        let last = table.len() - 1;
        for (index, &(addr, len, flags)) in table.iter().enumerate() {
            let flags = if index < last { flags | NEXT } else { flags };
            self.doorbell.describe(index as u16, addr, len, flags, index as u16 + 1);
        }
        self.doorbell.publish(0);
    }

    /// Waits for the answer to the move that was posted last.
    #[track_caller]
    pub fn take_moved(&mut self) -> Status {
        let used = self.doorbell.wait_used(PATIENCE);
        assert_eq!(used, Some((0, 1)), "a move was not answered with one byte");
        status(self.ram.read(STATUS, 1)[0])
    }
}
