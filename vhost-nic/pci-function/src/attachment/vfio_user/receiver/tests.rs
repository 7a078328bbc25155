use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::*;

fn message(command: u16, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[2..4].copy_from_slice(&command.to_ne_bytes());
    bytes[4..8].copy_from_slice(&(length as u32).to_ne_bytes());
    bytes
}

fn send(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::DONTWAIT);
    assert_eq!(sent, Ok(bytes.len()));
}

/// Command, length of the payload and number of descriptors of each message.
fn receive_all(stream: &UnixStream) -> Vec<(u16, usize, usize)> {
    let (mut receiver, mut descriptors) = (Receiver::new(stream), Descriptors::default());
    let mut all = Vec::new();
    while let Some(message) = receiver.next(&mut descriptors).unwrap() {
        assert!(!descriptors.lost);
        all.push((
            message.header.command.get(),
            message.payload.len(),
            descriptors.fds.len(),
        ));
    }
    all
}

#[test]
fn a_message_across_the_end_of_the_buffer_keeps_its_descriptors_and_leaves_the_next_one_its_own() {
    for rest in 1..36 {
        let (client, server) = UnixStream::pair().unwrap();
        let fds = vec![client.as_fd(); MAX_MSG_FDS];
        // Both are sent before anything is received, and leave `rest` bytes of the buffer for the third.
        let (first, second) = (1000, BUFFER_SIZE / 2 - 1000 - rest);
        let filler = MAX_MESSAGE;
        send(&client, &message(1, first), &[]);
        send(&client, &message(2, second), &[]);
        send(&client, &message(3, filler), &[]);
        send(&client, &message(4, 36), &fds);
        send(&client, &message(5, 48), &fds[..1]);
        send(&client, &message(6, 16), &[]);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let expected = [
            (1, first - 16, 0),
            (2, second - 16, 0),
            (3, filler - 16, 0),
            (4, 20, MAX_MSG_FDS),
            (5, 32, 1),
            (6, 0, 0),
        ];
        assert_eq!(receive_all(&server), expected, "{rest}");
    }
}

#[test]
fn descriptors_with_every_piece_of_a_message_are_too_many() {
    let (client, server) = UnixStream::pair().unwrap();
    let fds = [client.as_fd(); MAX_MSG_FDS];
    let bytes = message(8, 40);
    for part in bytes.chunks(8) {
        send(&client, part, &fds);
    }
    send(&client, &message(3, 16), &fds);
    let (mut receiver, mut descriptors) = (Receiver::new(&server), Descriptors::default());
    receiver.next(&mut descriptors).unwrap().unwrap();
    assert!(descriptors.lost);
    assert_eq!(descriptors.fds.len(), 2 * MAX_MSG_FDS);
    receiver.next(&mut descriptors).unwrap().unwrap();
    assert!(!descriptors.lost);
    assert_eq!(descriptors.fds.len(), MAX_MSG_FDS);
}
