//! A netlink socket: one request at a time and its answers.
//!
//! The crates of this family carry message formats only. The socket loop of `neli` would replace this file, but it runs
//! a thread per socket and waits for an answer without a time-out.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::NetlinkError;

/// Receive time-out for one answer of the kernel.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Receive buffer for one datagram. A dump of sockets asks for 32 KiB (net/smc/smc_diag.c).
const DATAGRAM: usize = 128 * 1024;

/// State of a request after one datagram.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// More datagrams follow.
    More,
    /// The request is answered.
    Complete,
}

/// A netlink socket of one protocol.
#[derive(Debug)]
pub(super) struct Transport {
    socket: Socket,
    sequence: u32,
}

impl Transport {
    /// Opens a socket of the netlink protocol with this number.
    pub(super) fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let failed = |operation| move |source| NetlinkError::Socket { operation, source };
        let mut socket = Socket::new(protocol).map_err(failed("open"))?;
        socket.bind_auto().map_err(failed("bind"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect"))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIME)).map_err(|errno| NetlinkError::Socket {
            operation: "set the time-out",
            source: errno.into(),
        })?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request and waits for its acknowledgement; returns the answers before that.
    pub(super) fn acknowledged<M>(&mut self, name: &str, message: M) -> Result<Vec<M>, NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.exchange(name, NLM_F_REQUEST | NLM_F_ACK, message)
    }

    /// Requests a whole table; returns all answers.
    pub(super) fn dump<M>(&mut self, name: &str, message: M) -> Result<Vec<M>, NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.exchange(name, NLM_F_REQUEST | NLM_F_DUMP, message)
    }

    fn exchange<M>(&mut self, name: &str, flags: u16, message: M) -> Result<Vec<M>, NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        let failed = |operation| move |source| NetlinkError::Socket { operation, source };
        self.sequence += 1;
        self.socket
            .send(&request(flags, self.sequence, message), 0)
            .map_err(failed("send"))?;
        let mut answers = Vec::new();
        let mut datagram = Vec::with_capacity(DATAGRAM);
        loop {
            datagram.clear();
            match self.socket.recv(&mut datagram, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(failed("receive"))?,
            };
            if collect(name, self.sequence, &datagram, &mut answers)? == Progress::Complete {
                return Ok(answers);
            }
        }
    }
}

/// Serializes a request with its netlink header.
fn request<M: NetlinkSerializable>(flags: u16, sequence: u32, message: M) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut buffer = vec![0; message.buffer_len()];
    message.serialize(&mut buffer);
    buffer
}

/// Appends the answers in one datagram to `answers`; skips messages with another sequence number.
fn collect<M: NetlinkDeserializable>(
    name: &str,
    sequence: u32,
    mut datagram: &[u8],
    answers: &mut Vec<M>,
) -> Result<Progress, NetlinkError> {
    let refused = |code: i32| NetlinkError::Refused {
        request: name.to_owned(),
        source: io::Error::from_raw_os_error(code.saturating_neg()),
    };
    while !datagram.is_empty() {
        let (header, payload) = NetlinkMessage::<M>::deserialize(datagram)
            .map_err(NetlinkError::malformed)?
            .into_parts();
        let length = usize::try_from(header.length)
            .map_err(NetlinkError::malformed)?
            .next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
        if header.sequence_number != sequence {
            continue;
        }
        match payload {
            NetlinkPayload::InnerMessage(answer) => answers.push(answer),
            NetlinkPayload::Done(done) if done.code < 0 => return Err(refused(done.code)),
            NetlinkPayload::Done(_) => return Ok(Progress::Complete),
            NetlinkPayload::Error(answer) => {
                return match answer.code {
                    None => Ok(Progress::Complete),
                    Some(code) => Err(refused(code.get())),
                };
            }
            NetlinkPayload::Overrun(_) => return Err(NetlinkError::malformed("data was lost")),
            _ => {}
        }
    }
    Ok(Progress::More)
}

#[cfg(test)]
mod tests {
    use super::super::diag_wire::DiagMessage;
    use super::*;

    /// Returns a netlink message as the kernel frames it.
    fn framed(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(2_u16.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(77_u32.to_ne_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn request_has_the_kernel_layout() {
        let bytes = request(NLM_F_REQUEST | NLM_F_DUMP, 5, DiagMessage(vec![1, 2, 3, 4]));
        assert_eq!(bytes, [20, 0, 0, 0, 20, 0, 1, 3, 5, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn dump_ends_with_done() {
        let mut answers: Vec<DiagMessage> = Vec::new();
        let mut datagram = framed(33, 9, &[1, 2, 3, 4, 5]);
        datagram.extend(framed(33, 8, &[9, 9, 9, 9]));
        datagram.extend(framed(33, 9, &[6]));
        assert_eq!(collect("x", 9, &datagram, &mut answers).unwrap(), Progress::More);
        let done = framed(3, 9, &0_i32.to_ne_bytes());
        assert_eq!(collect("x", 9, &done, &mut answers).unwrap(), Progress::Complete);
        assert_eq!(answers, [DiagMessage(vec![1, 2, 3, 4, 5]), DiagMessage(vec![6])]);
    }

    #[test]
    fn errors_of_the_kernel_are_reported() {
        let mut error = (-2_i32).to_ne_bytes().to_vec();
        error.extend([0; 16]);
        for datagram in [framed(2, 1, &error), framed(3, 1, &(-2_i32).to_ne_bytes())] {
            let failure = collect::<DiagMessage>("listing", 1, &datagram, &mut Vec::new()).unwrap_err();
            let NetlinkError::Refused { request, source } = failure else {
                panic!("{failure:?}")
            };
            assert_eq!(request, "listing");
            assert_eq!(source.raw_os_error(), Some(2));
        }
    }

    #[test]
    fn acknowledgement_completes() {
        let mut ack = 0_i32.to_ne_bytes().to_vec();
        ack.extend([0; 16]);
        assert_eq!(
            collect::<DiagMessage>("x", 1, &framed(2, 1, &ack), &mut Vec::new()).unwrap(),
            Progress::Complete
        );
    }

    #[test]
    fn cut_messages_are_refused() {
        let whole = framed(33, 9, &[1, 2, 3, 4]);
        for length in [10, 18] {
            assert!(collect::<DiagMessage>("x", 9, &whole[..length], &mut Vec::new()).is_err());
        }
    }
}
