//! Steps common to the workloads: the request before the data, the reply after it.

use std::net::{Shutdown, TcpStream};
use std::thread;

use super::WorkloadError;
use crate::data::Digest;
use crate::stream::{Receipt, Stop, Transfer, TransferError, read_exact, receive, send, write_all};
use crate::wire::{REPLY_LENGTH, Reply, Request};

/// Requests a workload.
pub(super) fn begin(stream: &TcpStream, request: &Request) -> Result<(), TransferError> {
    write_all(stream, &request.encode(), 0)
}

/// Reads the server's reply, and checks it.
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

/// Parameters of the upward direction.
pub(super) fn upward(request: &Request) -> Transfer {
    Transfer {
        pattern: request.upward(),
        total: request.total,
        block: request.block,
        check: request.check,
    }
}

/// Parameters of the downward direction.
pub(super) fn downward(request: &Request) -> Transfer {
    Transfer {
        pattern: request.downward(),
        ..upward(request)
    }
}

/// Sends and receives simultaneously; the sender runs in a separate thread.
///
/// An error in one direction shuts the connection down, which ends the other direction too.
pub(super) fn both_ways(
    stream: &TcpStream,
    request: &Request,
    stop: [&Stop; 2],
    stack: usize,
) -> Result<(Digest, Receipt), WorkloadError> {
    let [stop_send, stop_receive] = stop;
    let end = || {
        stop_send.ask();
        // The connection may be gone already.
        let _ = stream.shutdown(Shutdown::Both);
    };
    thread::scope(|scope| {
        let sender = thread::Builder::new()
            .stack_size(stack)
            .spawn_scoped(scope, || {
                send(stream, &upward(request), stop_send).inspect_err(|_| end())
            })
            .map_err(WorkloadError::system("start a thread"))?;
        let receipt = receive_all(stream, request, stop_receive);
        if receipt.is_err() {
            end();
        }
        let Ok(sent) = sender.join() else {
            return Err(WorkloadError::Options("the sending thread panicked"));
        };
        let receipt = receipt?;
        Ok((sent?, receipt))
    })
}

/// Receives the data of the downward direction; wrong data is an error.
fn receive_all(stream: &TcpStream, request: &Request, stop: &Stop) -> Result<Receipt, WorkloadError> {
    let receipt = receive(stream, &downward(request), stop)?;
    let Some(mismatch) = receipt.mismatch else {
        return Ok(receipt);
    };
    // A server that finds wrong data in an unlimited transfer ends its own data with a reply.
    Err(match reply_in(stream, receipt).and_then(|reply| reply.mismatch) {
        Some(mismatch) => WorkloadError::Sent(mismatch),
        None => WorkloadError::Received(mismatch),
    })
}

/// Reads the reply that the last bytes of an unlimited transfer begin, if they do.
fn reply_in(stream: &TcpStream, receipt: Receipt) -> Option<Reply> {
    let mut bytes = [0; REPLY_LENGTH];
    let known = receipt.rest.len().min(REPLY_LENGTH);
    bytes[..known].copy_from_slice(&receipt.rest[..known]);
    if receipt.rest.is_empty() || !Reply::may_start_with(&bytes[..known]) {
        return None;
    }
    read_exact(stream, &mut bytes[known..], receipt.bytes).ok()?;
    Reply::decode(bytes).ok()
}
