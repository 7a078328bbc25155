//! Transfer of a workload's data.
//!
//! A blocking write to an SMC socket may be short: once the buffer is full, it returns the number of bytes written so
//! far (net/smc/smc_tx.c). So every write is in a loop.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::net::SendFlags;

use crate::data::{Check, Digest, Hasher, Mismatch, Pattern};

/// End of a connection.
#[derive(Debug)]
pub enum End {
    /// The peer closed it.
    Eof,
    /// The time-out expired.
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
        // A call that runs into a socket's time-out returns EAGAIN.
        if error.kind() == io::ErrorKind::WouldBlock {
            Self::TimedOut
        } else {
            Self::Failed(error)
        }
    }
}

/// A transfer ended prematurely.
#[derive(Debug, thiserror::Error)]
#[error("{operation} at offset {offset}: {end}")]
pub struct TransferError {
    /// `read` or `write`.
    pub operation: &'static str,
    /// Bytes transferred before.
    pub offset: u64,
    /// End of the connection.
    pub end: End,
}

/// Stops a transfer from another thread, and reports its progress.
#[derive(Debug, Default)]
pub struct Stop {
    asked: AtomicBool,
    bytes: AtomicU64,
}

impl Stop {
    /// Requests the end of the transfer before its next read or write.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Returns whether the end was requested.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes transferred so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A connection written by a direct system call. The C library's wrapper, a cancellation point, costs more than
/// everything else a program does for a small message.
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

/// Writes all bytes. `offset` is their position in the stream.
///
/// # Errors
///
/// Fails when the connection ends or times out.
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
/// Fails when the connection ends or times out.
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
/// Fails when the connection ends before that or times out.
pub fn read_exact(mut stream: impl Read, buffer: &mut [u8], offset: u64) -> Result<(), TransferError> {
    let mut filled = 0;
    while filled < buffer.len() {
        filled += read_some(&mut stream, &mut buffer[filled..], offset + filled as u64)?;
    }
    Ok(())
}

/// Parameters of a transfer.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// Data pattern.
    pub pattern: Pattern,
    /// Total bytes; `u64::MAX` is unlimited.
    pub total: u64,
    /// Maximum size of one read or write in bytes.
    pub block: usize,
    /// Verification of the data.
    pub check: Check,
}

/// Sends the data and returns its digest.
///
/// # Errors
///
/// Fails when the connection ends or times out.
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

/// Result of receiving.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Bytes received.
    pub bytes: u64,
    /// First difference.
    pub mismatch: Option<Mismatch>,
    /// Digest of the received data.
    pub digest: Digest,
    /// Bytes that an unlimited transfer had received from the first difference on.
    pub rest: Vec<u8>,
}

/// Receives the data and verifies it.
///
/// A difference ends an unlimited transfer, but not a limited one, so that the peer can complete as well.
///
/// # Errors
///
/// Fails when the connection ends or times out.
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

    /// A sink that takes at most three bytes per call.
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
