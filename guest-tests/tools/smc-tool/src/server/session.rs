//! A connection of the server: workloads in sequence until the client closes it.

use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::data::Mismatch;
use crate::messages;
use crate::stream::{End, Receipt, Stop, Transfer, TransferError, read_exact, read_some, receive, send, write_all};
use crate::wire::{HELD, REQUEST_LENGTH, Reply, Request, WireError, Workload};

/// End of a session.
#[derive(Debug, Serialize)]
pub(super) struct SessionEnd {
    /// Workload in progress, or `idle`.
    pub(super) workload: String,
    /// Cause of the end.
    pub(super) how: String,
    /// Whether anything but the client's close of an idle connection ended it.
    pub(super) failed: bool,
}

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    #[error("a thread of this connection panicked")]
    Panic,
}

/// A connection being served.
#[derive(Debug)]
pub(super) struct Session<'a> {
    stream: &'a TcpStream,
}

impl<'a> Session<'a> {
    /// Creates the session of a connection.
    pub(super) fn new(stream: &'a TcpStream) -> Self {
        Self { stream }
    }

    /// Runs workloads until the connection ends, and calls `finished` after each.
    pub(super) fn run(self, finished: impl Fn(Option<Mismatch>)) -> SessionEnd {
        loop {
            let request = match self.next_request() {
                Ok(Some(request)) => request,
                Ok(None) => {
                    return SessionEnd {
                        workload: "idle".into(),
                        how: "end of file".into(),
                        failed: false,
                    };
                }
                Err(error) => {
                    return SessionEnd {
                        workload: "idle".into(),
                        how: format!("{:#}", anyhow::Error::from(error)),
                        failed: true,
                    };
                }
            };
            match self.serve(&request) {
                Ok(mismatch) => finished(mismatch),
                Err(error) => {
                    let workload = format!("{:?}", request.workload).to_lowercase();
                    let eof = matches!(
                        &error,
                        SessionError::Transfer(TransferError {
                            operation: "read",
                            end: End::Eof,
                            ..
                        })
                    );
                    // Clients end these two by closing the connection.
                    let endless = request.workload == Workload::Hold || request.total == u64::MAX;
                    return SessionEnd {
                        workload,
                        how: format!("{:#}", anyhow::Error::from(error)),
                        failed: !(eof && endless),
                    };
                }
            }
        }
    }

    /// Reads the next request; `None` when the client closed the connection instead.
    fn next_request(&self) -> Result<Option<Request>, SessionError> {
        self.limit_waits(None);
        let mut bytes = [0; REQUEST_LENGTH];
        let first = match read_some(self.stream, &mut bytes, 0) {
            Ok(length) => length,
            Err(TransferError { end: End::Eof, .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        read_exact(self.stream, &mut bytes[first..], first as u64)?;
        Ok(Some(Request::decode(bytes)?))
    }

    /// Sets the time-out of one read or write.
    fn limit_waits(&self, limit: Option<Duration>) {
        // The next read or write reports an error.
        let _ = self.stream.set_read_timeout(limit);
        let _ = self.stream.set_write_timeout(limit);
    }

    fn serve(&self, request: &Request) -> Result<Option<Mismatch>, SessionError> {
        let limit = Duration::from_millis(request.timeout_ms.into());
        self.limit_waits((!limit.is_zero()).then_some(limit));
        let stop = Stop::default();
        let upward = Transfer {
            pattern: request.upward(),
            total: request.total,
            block: request.block,
            check: request.check,
        };
        let downward = Transfer {
            pattern: request.downward(),
            ..upward
        };
        let reply = match request.workload {
            Workload::Echo => self.echo(request)?,
            Workload::Sink => received(receive(self.stream, &upward, &stop)?),
            Workload::Source => {
                let sent = send(self.stream, &downward, &stop)?;
                Reply {
                    bytes: request.total,
                    sent,
                    ..Reply::default()
                }
            }
            Workload::Duplex => self.duplex(upward, downward)?,
            Workload::Messages => {
                let bytes = messages::receive(self.stream, request.block)?;
                Reply {
                    bytes: bytes.bytes,
                    mismatch: bytes.mismatch,
                    ..Reply::default()
                }
            }
            Workload::Hold => return self.hold(),
        };
        write_all(self.stream, &reply.encode(), reply.bytes)?;
        if request.total == u64::MAX && reply.mismatch.is_some() {
            // A client that still sends must get the reply before the connection goes away.
            while read_some(self.stream, &mut [0; 4096], 0).is_ok() {}
        }
        Ok(reply.mismatch)
    }

    fn echo(&self, request: &Request) -> Result<Reply, SessionError> {
        let mut block = vec![0; request.block];
        let mut bytes = 0;
        for _ in 0..request.total {
            read_exact(self.stream, &mut block, bytes)?;
            write_all(self.stream, &block, bytes)?;
            bytes += block.len() as u64;
        }
        Ok(Reply {
            bytes,
            ..Reply::default()
        })
    }

    fn duplex(&self, upward: Transfer, downward: Transfer) -> Result<Reply, SessionError> {
        let stop = Stop::default();
        thread::scope(|scope| {
            let sender = thread::Builder::new()
                .stack_size(super::STACK)
                .spawn_scoped(scope, || self.closing_on_error(send(self.stream, &downward, &stop)))
                .map_err(SessionError::Thread)?;
            let receipt = self.closing_on_error(receive(self.stream, &upward, &stop));
            if receipt.as_ref().map_or(true, |receipt| receipt.bytes != upward.total) {
                stop.ask();
            }
            let sent = sender.join().map_err(|_| SessionError::Panic)?;
            // When both sides failed, the receiver's error says more.
            let reply = received(receipt?);
            Ok(Reply { sent: sent?, ..reply })
        })
    }

    /// Shuts the connection down on error, which ends the other direction too.
    fn closing_on_error<T>(&self, result: Result<T, TransferError>) -> Result<T, TransferError> {
        if result.is_err() {
            // The connection may be gone already.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        result
    }

    fn hold(&self) -> Result<Option<Mismatch>, SessionError> {
        write_all(self.stream, &[HELD], 0)?;
        self.limit_waits(None);
        let mut bytes = 0;
        loop {
            bytes += read_some(self.stream, &mut [0; 4096], bytes)? as u64;
        }
    }
}

fn received(receipt: Receipt) -> Reply {
    Reply {
        bytes: receipt.bytes,
        mismatch: receipt.mismatch,
        received: receipt.digest,
        ..Reply::default()
    }
}
