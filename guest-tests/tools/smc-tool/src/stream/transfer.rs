//! Moving the data of a workload.
//!
//! A blocking write to an SMC socket may return short: once the buffer is full it returns what it has written (net/smc/
//! smc_tx.c). So every write is in a loop.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::net::SendFlags;

use crate::data::{Check, Digest, Hasher, Mismatch, Pattern};

/// How a connection ended.
#[derive(Debug)]
pub enum End {
    /// The peer closed it.
    Eof,
    /// Nothing happened in time.
    TimedOut,
    /// The kernel reported an error.
    Failed(io::Error),
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eof => formatter.write_str("end of file"),
            Self::TimedOut => formatter.write_str("timed out"),
            Self::Failed(error) => write!(formatter, "{error}"),
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        // The time-outs of a socket end a call with EAGAIN.
        if error.kind() == io::ErrorKind::WouldBlock {
            Self::TimedOut
        } else {
            Self::Failed(error)
        }
    }
}

/// A transfer ended too early.
#[derive(Debug, thiserror::Error)]
#[error("{operation} at offset {offset}: {end}")]
pub struct TransferError {
    /// `read` or `write`.
    pub operation: &'static str,
    /// Bytes moved before.
    pub offset: u64,
    /// How it ended.
    pub end: End,
}

/// Ends a transfer early from another thread, and lets it watch the progress.
#[derive(Debug, Default)]
pub struct Stop {
    asked: AtomicBool,
    bytes: AtomicU64,
}

impl Stop {
    /// Asks the transfer to end before its next read or write.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to end.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Bytes moved so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A connection written by the system call alone. The C library's way to it (cancellation points) takes longer than all the
/// rest a program does for a small message.
#[derive(Debug, Clone, Copy)]
pub struct Direct<'a>(pub &'a TcpStream);

impl Write for Direct<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes all bytes. `offset` is where they are in the stream.
///
/// # Errors
///
/// Fails when the connection ends or nothing can be written in time.
#[inline]
pub fn write_all(mut stream: impl Write, mut bytes: &[u8], offset: u64) -> Result<(), TransferError> {
    let length = bytes.len();
    while !bytes.is_empty() {
        let end = match stream.write(bytes) {
            Ok(0) => End::Eof,
            Ok(written) => {
                bytes = &bytes[written..];
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error.into(),
        };
        return Err(TransferError {
            operation: "write",
            offset: offset + (length - bytes.len()) as u64,
            end,
        });
    }
    Ok(())
}

/// Reads at least one byte.
///
/// # Errors
///
/// Fails when the connection ends or nothing comes in time.
pub fn read_some(mut stream: impl Read, buffer: &mut [u8], offset: u64) -> Result<usize, TransferError> {
    let end = loop {
        match stream.read(buffer) {
            Ok(0) => break End::Eof,
            Ok(length) => return Ok(length),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break error.into(),
        }
    };
    Err(TransferError {
        operation: "read",
        offset,
        end,
    })
}

/// Fills the buffer.
///
/// # Errors
///
/// Fails when the connection ends before or nothing comes in time.
pub fn read_exact(mut stream: impl Read, buffer: &mut [u8], offset: u64) -> Result<(), TransferError> {
    let mut filled = 0;
    while filled < buffer.len() {
        filled += read_some(&mut stream, &mut buffer[filled..], offset + filled as u64)?;
    }
    Ok(())
}

/// What a transfer is made of.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// The data.
    pub pattern: Pattern,
    /// Bytes of the whole; `u64::MAX` never ends.
    pub total: u64,
    /// Bytes of one read or write.
    pub block: usize,
    /// How to check.
    pub check: Check,
}

/// Sends the data, and returns its digest.
///
/// # Errors
///
/// Fails when the connection ends or nothing can be written in time.
pub fn send(mut stream: impl Write, transfer: &Transfer, stop: &Stop) -> Result<Digest, TransferError> {
    let mut block = vec![0; transfer.block];
    transfer.pattern.fill(0, &mut block);
    let mut hasher = Hasher::new(transfer.check);
    let mut offset = 0;
    while offset < transfer.total && !stop.is_asked() {
        let length = block
            .len()
            .min(usize::try_from(transfer.total - offset).unwrap_or(usize::MAX));
        let bytes = &mut block[..length];
        if transfer.check != Check::None {
            transfer.pattern.fill(offset, bytes);
            hasher.update(bytes);
        }
        write_all(&mut stream, bytes, offset)?;
        offset += length as u64;
        stop.bytes.store(offset, Ordering::Relaxed);
    }
    Ok(hasher.digest())
}

/// What was received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// How much.
    pub bytes: u64,
    /// The first difference.
    pub mismatch: Option<Mismatch>,
    /// Digest.
    pub digest: Digest,
    /// What a transfer without limit had received from the first difference on.
    pub rest: Vec<u8>,
}

/// Receives the data and checks it.
///
/// A difference does not end a transfer of limited length, so that the peer can come to its end too. It does end one
/// without limit.
///
/// # Errors
///
/// Fails when the connection ends or nothing comes in time.
pub fn receive(mut stream: impl Read, transfer: &Transfer, stop: &Stop) -> Result<Receipt, TransferError> {
    let mut block = vec![0; transfer.block];
    let mut hasher = Hasher::new(transfer.check);
    let mut receipt = Receipt::default();
    while receipt.bytes < transfer.total && !stop.is_asked() {
        let length = block
            .len()
            .min(usize::try_from(transfer.total - receipt.bytes).unwrap_or(usize::MAX));
        let length = read_some(&mut stream, &mut block[..length], receipt.bytes)?;
        let bytes = &block[..length];
        if transfer.check != Check::None {
            hasher.update(bytes);
            if receipt.mismatch.is_none() {
                receipt.mismatch = transfer.pattern.verify(receipt.bytes, bytes).err();
            }
        }
        receipt.bytes += length as u64;
        stop.bytes.store(receipt.bytes, Ordering::Relaxed);
        if let (u64::MAX, Some(mismatch)) = (transfer.total, receipt.mismatch) {
            let after = usize::try_from(receipt.bytes - mismatch.offset).unwrap_or(usize::MAX);
            receipt.rest = bytes[bytes.len().saturating_sub(after)..].to_vec();
            break;
        }
    }
    receipt.digest = hasher.digest();
    Ok(receipt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(total: u64, check: Check) -> Transfer {
        Transfer {
            pattern: Pattern::new(3),
            total,
            block: 1000,
            check,
        }
    }

    /// Writes three bytes at most in one call.
    struct Short(Vec<u8>);

    impl Write for Short {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = bytes.len().min(3);
            self.0.extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn short_writes_lose_nothing() {
        let mut sink = Short(Vec::new());
        let transfer = transfer(4321, Check::Hash);
        let sent = send(&mut sink, &transfer, &Stop::default()).unwrap();
        let receipt = receive(&sink.0[..], &transfer, &Stop::default()).unwrap();
        assert_eq!(
            receipt,
            Receipt {
                bytes: 4321,
                digest: sent,
                ..Receipt::default()
            }
        );
        assert_ne!(sent, [0; 32]);
    }

    #[test]
    fn differences_are_reported_and_the_rest_is_read() {
        let mut bytes = vec![0; 4321];
        Pattern::new(3).fill(0, &mut bytes);
        bytes[2000] ^= 1;
        bytes[3000] ^= 1;
        let receipt = receive(&bytes[..], &transfer(4321, Check::Pattern), &Stop::default()).unwrap();
        assert_eq!((receipt.bytes, receipt.mismatch.unwrap().offset), (4321, 2000));
        let receipt = receive(&bytes[..], &transfer(u64::MAX, Check::Pattern), &Stop::default()).unwrap();
        assert_eq!(receipt.mismatch.unwrap().offset, 2000);
        assert_eq!(receipt.rest, bytes[2000..3000]);
        let receipt = receive(&bytes[..], &transfer(4321, Check::None), &Stop::default()).unwrap();
        assert_eq!(receipt.mismatch, None);
    }

    #[test]
    fn early_end_says_where() {
        let mut bytes = vec![0; 1500];
        Pattern::new(3).fill(0, &mut bytes);
        let error = receive(&bytes[..], &transfer(4321, Check::Pattern), &Stop::default()).unwrap_err();
        assert_eq!(error.to_string(), "read at offset 1500: end of file");
    }

    #[test]
    fn transfers_can_be_stopped() {
        let stop = Stop::default();
        stop.ask();
        send(io::sink(), &transfer(u64::MAX, Check::None), &stop).unwrap();
        assert_eq!(stop.bytes(), 0);
    }
}
