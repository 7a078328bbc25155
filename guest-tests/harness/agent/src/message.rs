//! Messages of the protocol.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::frame::{BadBody, Body};

/// A message from the harness to the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Begin a session and kill the commands of an earlier one. Outside any session. [`Reply::Hello`] returns the
    /// number.
    Attach(u64),
    /// Start a command on a new channel.
    Spawn(SpawnRequest),
    /// Receive a file on a new channel; [`Request::Data`] and [`Request::End`] follow.
    Put(PutRequest),
    /// Send a file on a new channel.
    Get(String),
    /// Bytes of a command's standard input or of a file.
    Data(Vec<u8>),
    /// No more [`Request::Data`] on this channel.
    End,
    /// The agent may send this many more bytes on this channel.
    Credit(u32),
    /// Send a signal to a command's process group.
    Signal(i32),
    /// Kill the command or abort the transfer, and close the channel.
    Cancel,
    /// Kill every process of the guest but the agent; [`Reply::Done`] follows when they are gone.
    KillAll,
    /// Power off the machine.
    PowerOff,
}

/// A message from the agent to the harness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The agent has just started. Outside any session.
    Booted(Hello),
    /// A session has begun, with the epoch in this frame's header.
    Hello(Hello),
    /// The command runs with this process ID.
    Started(u32),
    /// Bytes of the command's standard output.
    Stdout(Vec<u8>),
    /// Bytes of the command's standard error.
    Stderr(Vec<u8>),
    /// The command has ended; all its output has been sent before.
    Exit(Exit),
    /// Bytes of a file.
    Data(Vec<u8>),
    /// The transfer is complete; the file has this many bytes.
    Done(u64),
    /// The harness may send this many more bytes on this channel.
    Credit(u32),
    /// The request failed and its channel is closed; on channel 0, an error of the connection itself.
    Error(String),
}

/// Identity of the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Number of the [`Request::Attach`] answered; 0 in [`Reply::Booted`].
    pub nonce: u64,
    /// Unique per boot: `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Kernel release (`uname -r`).
    pub release: String,
    /// Host name.
    pub hostname: String,
}

/// A command to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnRequest {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables to add to the agent's environment.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Working directory.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Whether standard input is a pipe fed by [`Request::Data`]; otherwise it is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
}

/// A file to write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutRequest {
    /// Path in the guest.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
}

/// End of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// Exit status.
    Code(i32),
    /// Number of the fatal signal.
    Signal(i32),
}

impl Exit {
    /// Returns whether the command exited with status 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

mod kind {
    pub(super) const ATTACH: u32 = 0x01;
    pub(super) const SPAWN: u32 = 0x02;
    pub(super) const PUT: u32 = 0x03;
    pub(super) const GET: u32 = 0x04;
    pub(super) const DATA: u32 = 0x05;
    pub(super) const END: u32 = 0x06;
    pub(super) const CREDIT: u32 = 0x07;
    pub(super) const SIGNAL: u32 = 0x08;
    pub(super) const CANCEL: u32 = 0x09;
    pub(super) const POWER_OFF: u32 = 0x0a;
    pub(super) const KILL_ALL: u32 = 0x0b;

    pub(super) const BOOTED: u32 = 0x81;
    pub(super) const HELLO: u32 = 0x82;
    pub(super) const STARTED: u32 = 0x83;
    pub(super) const STDOUT: u32 = 0x84;
    pub(super) const STDERR: u32 = 0x85;
    pub(super) const EXIT: u32 = 0x86;
    pub(super) const REPLY_DATA: u32 = 0x87;
    pub(super) const DONE: u32 = 0x88;
    pub(super) const REPLY_CREDIT: u32 = 0x89;
    pub(super) const ERROR: u32 = 0x8a;
}

impl Body for Request {
    fn kind(&self) -> u32 {
        match self {
            Self::Attach(_) => kind::ATTACH,
            Self::Spawn(_) => kind::SPAWN,
            Self::Put(_) => kind::PUT,
            Self::Get(_) => kind::GET,
            Self::Data(_) => kind::DATA,
            Self::End => kind::END,
            Self::Credit(_) => kind::CREDIT,
            Self::Signal(_) => kind::SIGNAL,
            Self::Cancel => kind::CANCEL,
            Self::PowerOff => kind::POWER_OFF,
            Self::KillAll => kind::KILL_ALL,
        }
    }

    fn payload(&self) -> Vec<u8> {
        match self {
            Self::Attach(nonce) => nonce.to_le_bytes().into(),
            Self::Spawn(request) => json(request),
            Self::Put(request) => json(request),
            Self::Get(path) => path.as_bytes().into(),
            Self::Data(data) => data.clone(),
            Self::Credit(bytes) => bytes.to_le_bytes().into(),
            Self::Signal(signal) => signal.to_le_bytes().into(),
            Self::End | Self::Cancel | Self::KillAll | Self::PowerOff => Vec::new(),
        }
    }

    fn parse(kind: u32, payload: &[u8]) -> Result<Self, BadBody> {
        Ok(match kind {
            kind::ATTACH => Self::Attach(u64::from_le_bytes(fixed(kind, payload)?)),
            kind::SPAWN => Self::Spawn(from_json(kind, payload)?),
            kind::PUT => Self::Put(from_json(kind, payload)?),
            kind::GET => Self::Get(text(kind, payload)?),
            kind::DATA => Self::Data(payload.to_vec()),
            kind::END => Self::End,
            kind::CREDIT => Self::Credit(u32::from_le_bytes(fixed(kind, payload)?)),
            kind::SIGNAL => Self::Signal(i32::from_le_bytes(fixed(kind, payload)?)),
            kind::CANCEL => Self::Cancel,
            kind::POWER_OFF => Self::PowerOff,
            kind::KILL_ALL => Self::KillAll,
            _ => return Err(BadBody::UnknownKind(kind)),
        })
    }
}

impl Body for Reply {
    fn kind(&self) -> u32 {
        match self {
            Self::Booted(_) => kind::BOOTED,
            Self::Hello(_) => kind::HELLO,
            Self::Started(_) => kind::STARTED,
            Self::Stdout(_) => kind::STDOUT,
            Self::Stderr(_) => kind::STDERR,
            Self::Exit(_) => kind::EXIT,
            Self::Data(_) => kind::REPLY_DATA,
            Self::Done(_) => kind::DONE,
            Self::Credit(_) => kind::REPLY_CREDIT,
            Self::Error(_) => kind::ERROR,
        }
    }

    fn payload(&self) -> Vec<u8> {
        match self {
            Self::Booted(hello) | Self::Hello(hello) => json(hello),
            Self::Started(pid) => pid.to_le_bytes().into(),
            Self::Stdout(data) | Self::Stderr(data) | Self::Data(data) => data.clone(),
            Self::Exit(exit) => json(exit),
            Self::Done(bytes) => bytes.to_le_bytes().into(),
            Self::Credit(bytes) => bytes.to_le_bytes().into(),
            Self::Error(message) => message.as_bytes().into(),
        }
    }

    fn parse(kind: u32, payload: &[u8]) -> Result<Self, BadBody> {
        Ok(match kind {
            kind::BOOTED => Self::Booted(from_json(kind, payload)?),
            kind::HELLO => Self::Hello(from_json(kind, payload)?),
            kind::STARTED => Self::Started(u32::from_le_bytes(fixed(kind, payload)?)),
            kind::STDOUT => Self::Stdout(payload.to_vec()),
            kind::STDERR => Self::Stderr(payload.to_vec()),
            kind::EXIT => Self::Exit(from_json(kind, payload)?),
            kind::REPLY_DATA => Self::Data(payload.to_vec()),
            kind::DONE => Self::Done(u64::from_le_bytes(fixed(kind, payload)?)),
            kind::REPLY_CREDIT => Self::Credit(u32::from_le_bytes(fixed(kind, payload)?)),
            kind::ERROR => Self::Error(text(kind, payload)?),
            _ => return Err(BadBody::UnknownKind(kind)),
        })
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain structures of strings and numbers always serialize")
}

fn from_json<T: DeserializeOwned>(kind: u32, payload: &[u8]) -> Result<T, BadBody> {
    serde_json::from_slice(payload).map_err(|error| BadBody::Malformed {
        kind,
        reason: error.to_string(),
    })
}

fn text(kind: u32, payload: &[u8]) -> Result<String, BadBody> {
    String::from_utf8(payload.to_vec()).map_err(|error| BadBody::Malformed {
        kind,
        reason: error.to_string(),
    })
}

fn fixed<const N: usize>(kind: u32, payload: &[u8]) -> Result<[u8; N], BadBody> {
    payload.try_into().map_err(|_| BadBody::Malformed {
        kind,
        reason: format!("{} bytes instead of {N}", payload.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<B: Body + PartialEq + fmt::Debug>(body: B) {
        assert_eq!(B::parse(body.kind(), &body.payload()), Ok(body));
    }

    #[test]
    fn every_request_survives_the_trip() {
        for request in [
            Request::Attach(u64::MAX),
            Request::Spawn(SpawnRequest {
                argv: vec!["sh".into(), "-c".into(), "echo \"ä\"\n".into()],
                env: vec![("A".into(), "b=c".into())],
                cwd: Some("/tmp".into()),
                stdin: true,
            }),
            Request::Put(PutRequest {
                path: "/tmp/x".into(),
                mode: 0o755,
            }),
            Request::Get("/proc/version".into()),
            Request::Data(vec![0, 255, 10]),
            Request::End,
            Request::Credit(17),
            Request::Signal(-9),
            Request::Cancel,
            Request::KillAll,
            Request::PowerOff,
        ] {
            round_trip(request);
        }
    }

    #[test]
    fn every_reply_survives_the_trip() {
        let hello = Hello {
            nonce: 3,
            boot_id: "c0ffee".into(),
            release: "7.3.4".into(),
            hostname: "a".into(),
        };
        for reply in [
            Reply::Booted(hello.clone()),
            Reply::Hello(hello),
            Reply::Started(42),
            Reply::Stdout(b"out".into()),
            Reply::Stderr(b"err".into()),
            Reply::Exit(Exit::Code(3)),
            Reply::Exit(Exit::Signal(9)),
            Reply::Data(vec![1; 40]),
            Reply::Done(1 << 40),
            Reply::Credit(9),
            Reply::Error("no such file".into()),
        ] {
            round_trip(reply);
        }
    }

    #[test]
    fn malformed_payloads_are_named() {
        assert!(matches!(
            Request::parse(kind::CREDIT, &[1, 2]),
            Err(BadBody::Malformed { .. })
        ));
        assert!(matches!(
            Request::parse(kind::SPAWN, b"{\"argv\": 3}"),
            Err(BadBody::Malformed { .. })
        ));
        assert!(matches!(
            Request::parse(kind::GET, &[0xff]),
            Err(BadBody::Malformed { .. })
        ));
        assert_eq!(Request::parse(kind::EXIT, &[]), Err(BadBody::UnknownKind(kind::EXIT)));
    }
}
