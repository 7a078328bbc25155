//! The move queue: requests whose data is copied from the memory of the guest to a slab.
//!
//! A request is answered under the lock of the queue under which it is taken, so that a stop of the device finds no
//! move in progress. The copy takes no longer than one of the largest DMB.

use std::ops::Deref;

use vhost_daemon::vring::{Memory, Vring};
use vhost_user_backend::VringT;
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryBackend, GuestMemoryMmap};

use super::virtqueue::{Chain, descriptor, next_chain, return_chain, signal};
use crate::abi::{MOVE_HEAD, MOVE_QUEUE};
use crate::connection::Outcome;
use crate::fabric::Destination;
use crate::mover::{ExecuteMove, MoveRequest};
use crate::slab_view::WORDS_MAX;
use crate::stats::GuestStats;

/// Maximum number of readable descriptors of a move. The data of one need not be contiguous in guest memory: a DMB of
/// 1 MiB is 256 pages.
const MAX_DESCRIPTORS: usize = 512;

/// A range of guest memory.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    address: GuestAddress,
    length: usize,
}

/// Takes the next move and answers it with the status that `execute` returns, unless the queue has been stopped, or
/// stopped and restarted: then `current` returns false. Returns nothing if there is none. `segments` is scratch.
pub fn serve_move(
    vring: &Vring,
    memory: &Memory,
    stats: &GuestStats,
    segments: &mut Vec<Segment>,
    current: &dyn Fn() -> bool,
    execute: &mut ExecuteMove<'_>,
) -> Option<Outcome> {
    let mut state = vring.get_mut();
    if !state.get_queue().ready() || !current() {
        return None;
    }
    let chain = next_chain(&mut state, memory, MOVE_QUEUE, stats)?;
    let guard = memory.memory();
    let guest: &GuestMemoryMmap = guard.deref();
    let head = match read_segments(&chain, segments) {
        true => take_head(guest, segments),
        false => None,
    };
    let head = head.ok_or_else(|| descriptor(&chain));
    let request = MoveRequest {
        head,
        length: segments.iter().map(|segment| segment.length as u64).sum(),
    };
    let status = execute(&request, &mut |destination| copy(guest, segments, destination));
    return_chain(&mut state, memory, chain, &[status as u8]);
    let interrupt = signal(vring, &mut state, memory);
    Some(Outcome::Written { interrupt })
}

/// Reads the readable descriptors of a chain, once. Returns false if there are too many.
fn read_segments(chain: &Chain, segments: &mut Vec<Segment>) -> bool {
    segments.clear();
    let readable = chain.clone().readable().take(MAX_DESCRIPTORS + 1);
    segments.extend(readable.map(|descriptor| Segment {
        address: descriptor.addr(),
        length: descriptor.len() as usize,
    }));
    segments.len() <= MAX_DESCRIPTORS
}

/// Reads the bytes before the data, and leaves the segments of the data.
fn take_head(guest: &GuestMemoryMmap, segments: &mut [Segment]) -> Option<[u8; MOVE_HEAD]> {
    let mut head = [0; MOVE_HEAD];
    let mut read = 0;
    for segment in segments {
        let part = segment.length.min(MOVE_HEAD - read);
        guest.read_slice(&mut head[read..read + part], segment.address).ok()?;
        segment.address = GuestAddress(segment.address.0.checked_add(part as u64)?);
        segment.length -= part;
        read += part;
        if read == MOVE_HEAD {
            return Some(head);
        }
    }
    None
}

/// Copies the data to its destination. Returns false if it cannot be read; a part of it may have been written.
fn copy(guest: &GuestMemoryMmap, segments: &[Segment], destination: &Destination) -> bool {
    let view = &destination.view;
    if destination.length <= WORDS_MAX as u64 {
        let mut bytes = [0; WORDS_MAX];
        let bytes = &mut bytes[..destination.length as usize];
        if !gather(guest, segments, bytes) {
            return false;
        }
        if view.write_words(destination.offset, bytes) {
            return true;
        }
        let range = view.range(destination.offset, destination.length);
        return range.is_some_and(|range| {
            range.copy_from(bytes);
            true
        });
    }
    let mut at = destination.offset;
    segments.iter().all(|segment| {
        guest.get_slices(segment.address, segment.length).all(|from| {
            let Ok(from) = from else { return false };
            let range = view.range(at, from.len() as u64);
            at += from.len() as u64;
            range.is_some_and(|range| {
                from.copy_to_volatile_slice(range);
                true
            })
        })
    })
}

fn gather(guest: &GuestMemoryMmap, segments: &[Segment], bytes: &mut [u8]) -> bool {
    let mut rest = bytes;
    for segment in segments {
        let Some((part, after)) = rest.split_at_mut_checked(segment.length) else {
            return false;
        };
        if guest.read_slice(part, segment.address).is_err() {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}
