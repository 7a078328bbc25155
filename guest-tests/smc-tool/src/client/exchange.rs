//! The steps that the workloads share: the request before the data, and the reply after it.

use std::net::{Shutdown, TcpStream};
use std::thread;

use super::WorkloadError;
use crate::data::Digest;
use crate::stream::{Receipt, Stop, Transfer, TransferError, read_exact, receive, send, write_all};
use crate::wire::{REPLY_LENGTH, Reply, Request};

/// Asks for a workload.
pub(super) fn begin(stream: &TcpStream, request: &Request) -> Result<(), TransferError> {
    write_all(stream, &request.encode(), 0)
}

/// Reads what the server found, and checks it.
pub(super) fn finish(stream: &TcpStream, expected_bytes: u64) -> Result<Reply, WorkloadError> {
    let mut bytes = [0; REPLY_LENGTH];
    read_exact(stream, &mut bytes, expected_bytes)?;
    let reply = Reply::decode(bytes)?;
    if let Some(mismatch) = reply.mismatch {
        return Err(WorkloadError::Sent(mismatch));
    }
    if reply.bytes != expected_bytes {
        return Err(WorkloadError::Count {
            expected: expected_bytes,
            found: reply.bytes,
        });
    }
    Ok(reply)
}

/// The data of the upward direction.
pub(super) fn upward(request: &Request) -> Transfer {
    Transfer {
        pattern: request.upward(),
        total: request.total,
        block: request.block,
        check: request.check,
    }
}

/// The data of the downward direction.
pub(super) fn downward(request: &Request) -> Transfer {
    Transfer {
        pattern: request.downward(),
        ..upward(request)
    }
}

/// Sends and receives at the same time; the sender runs in a thread of its own.
///
/// An error in one direction shuts the connection down, so that the other direction ends too.
pub(super) fn both_ways(
    stream: &TcpStream,
    request: &Request,
    stop: [&Stop; 2],
    stack: usize,
) -> Result<(Digest, Receipt), WorkloadError> {
    let [stop_send, stop_receive] = stop;
    let closing = |failed: bool| {
        if failed {
            stop_send.ask();
            // The connection may be gone already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    };
    thread::scope(|scope| {
        let sender = thread::Builder::new()
            .stack_size(stack)
            .spawn_scoped(scope, || {
                let sent = send(stream, &upward(request), stop_send);
                closing(sent.is_err());
                sent
            })
            .map_err(WorkloadError::system("start a thread"))?;
        let receipt = receive(stream, &downward(request), stop_receive);
        let wrong = receipt.as_ref().map_or(true, |receipt| receipt.mismatch.is_some());
        closing(receipt.is_err() || (wrong && request.total == u64::MAX));
        let Ok(sent) = sender.join() else {
            return Err(WorkloadError::Options("the sending thread panicked"));
        };
        let receipt = receipt?;
        if let Some(mismatch) = receipt.mismatch {
            return Err(WorkloadError::Received(mismatch));
        }
        Ok((sent?, receipt))
    })
}
