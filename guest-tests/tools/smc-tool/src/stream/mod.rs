//! Connections over SMC or TCP, and data transfer over them.

mod connect;
mod listen;
mod mode;
mod protocol;
mod transfer;

pub use connect::{ConnectError, ConnectOptions, Connected, ConnectionReport, connect, open};
pub use listen::{ListenError, listen};
pub use mode::{ExpectedMode, WrongMode, inode};
pub use protocol::{Buffers, Protocol};
pub use transfer::{
    Direct, End, Receipt, Stop, Transfer, TransferError, read_exact, read_some, receive, send, write_all,
};
