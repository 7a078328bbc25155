//! The harness's end of the conversation with a guest's agent.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use guest_agent::frame::{Decoder, Frame, FrameError, MAX_PAYLOAD, PREAMBLE};
use guest_agent::{CHUNK, Exit, Hello, PutRequest, Reply, Request, SpawnRequest, WINDOW};

use crate::deadline::Deadline;
use crate::error::{Doing, Error, Result};
use crate::sync::{lock, wait_for};

/// How much of a command's output is kept; what comes after is received and forgotten.
const OUTPUT_LIMIT: usize = 64 * 1024 * 1024;

/// Longest request that is not data, less room for its envelope.
const REQUEST_LIMIT: usize = MAX_PAYLOAD / 2;

/// A connection to an agent, kept across reboots of the guest.
#[derive(Debug)]
pub struct Control {
    shared: Arc<Shared>,
    stream: UnixStream,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    outgoing: Sender<Vec<u8>>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// Number of the attach request whose answer is awaited or was accepted.
    nonce: u64,
    session: Option<Session>,
    next_channel: u32,
    channels: HashMap<u32, ChannelState>,
    /// What the agent had to say about the connection itself.
    reports: Vec<String>,
}

#[derive(Debug, Clone)]
struct Session {
    epoch: u32,
    hello: Hello,
}

/// What has come in on a channel.
#[derive(Debug, Default)]
pub(crate) struct ChannelState {
    /// The command's process, once it runs.
    pub(crate) pid: Option<u32>,
    /// Its output, or a file's content.
    pub(crate) stdout: Vec<u8>,
    /// Its error output.
    pub(crate) stderr: Vec<u8>,
    /// How much of `stdout` has been read as lines.
    pub(crate) lines_at: usize,
    /// How it ended.
    pub(crate) end: Option<End>,
    credit: usize,
}

/// How a channel ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The command ended.
    Exit(Exit),
    /// The file is complete, with this many bytes.
    Done(u64),
    /// The agent said no.
    Refused(String),
    /// The guest or the connection is gone.
    Lost(String),
}

/// One command or transfer; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Channel {
    shared: Arc<Shared>,
    epoch: u32,
    number: u32,
}

impl Control {
    /// Talks to the agent at the other end of `stream`, now or once there is one.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let (outgoing, frames) = mpsc::channel::<Vec<u8>>();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            outgoing,
        });
        let clone = || stream.try_clone().doing(|| "clone a socket".to_owned());
        let (reader, mut writer) = (clone()?, clone()?);
        thread::spawn(move || {
            for frame in frames {
                if writer.write_all(&frame).is_err() {
                    break;
                }
            }
        });
        lock(&shared.state).attach(&shared.outgoing);
        let receiver = Arc::clone(&shared);
        thread::spawn(move || receiver.read_all(reader));
        Ok(Self { shared, stream })
    }

    /// Waits for an agent to answer whose boot is not `other_than`.
    pub fn wait_boot(&self, other_than: Option<&str>, timeout: Duration) -> Result<Hello> {
        let deadline = Deadline::after(timeout);
        let hello = self.wait(deadline, |state| match &state.session {
            Some(session) if other_than != Some(&session.hello.boot_id) => Some(Ok(session.hello.clone())),
            _ if state.closed => Some(Err(Error::Lost {
                what: "waiting for the guest's agent".to_owned(),
                why: CLOSED.to_owned(),
            })),
            _ => None,
        });
        hello.unwrap_or_else(|| {
            Err(deadline.missed(match other_than {
                Some(_) => "the guest's agent after a reboot",
                None => "the guest's agent",
            }))
        })
    }

    /// Who the agent is, if there is one at the moment.
    pub fn hello(&self) -> Option<Hello> {
        let state = lock(&self.shared.state);
        state.session.as_ref().map(|session| session.hello.clone())
    }

    /// What the agent has said about the connection itself: none of it should ever happen.
    pub fn reports(&self) -> Vec<String> {
        lock(&self.shared.state).reports.clone()
    }

    /// Closes the connection.
    pub(crate) fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Starts a command.
    pub(crate) fn spawn(&self, request: &SpawnRequest) -> Result<Channel> {
        let length: usize = request.argv.iter().map(String::len).sum();
        if length > REQUEST_LIMIT {
            let reason = format!("a command line of {length} bytes is too long");
            return Err(Error::Agent(reason));
        }
        self.open(Request::Spawn(request.clone()), "starting a command")
    }

    /// Writes a file in the guest.
    pub(crate) fn put(&self, mut content: impl Read, path: &str, mode: u32, timeout: Duration) -> Result<u64> {
        let deadline = Deadline::after(timeout);
        let what = format!("writing the guest's {path}");
        let channel = self.open(
            Request::Put(PutRequest {
                path: path.to_owned(),
                mode,
            }),
            &what,
        )?;
        let mut buffer = vec![0; CHUNK];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => channel.send_data(&buffer[..count], deadline, &what)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).doing(|| format!("read what to put into {path}")),
            }
        }
        channel.send(Request::End);
        channel.finish_transfer(deadline, &what).map(|state| state.1)
    }

    /// Reads a file in the guest.
    pub(crate) fn get(&self, path: &str, timeout: Duration) -> Result<Vec<u8>> {
        let what = format!("reading the guest's {path}");
        let channel = self.open(Request::Get(path.to_owned()), &what)?;
        let (content, length) = channel.finish_transfer(Deadline::after(timeout), &what)?;
        if content.len() as u64 == length {
            Ok(content)
        } else {
            Err(Error::Lost {
                what,
                why: format!("{} of {length} bytes arrived", content.len()),
            })
        }
    }

    /// Kills everything in the guest but its agent.
    pub(crate) fn kill_all(&self, timeout: Duration) -> Result<()> {
        let what = "killing all of the guest's processes";
        let channel = self.open(Request::KillAll, what)?;
        channel.finish_transfer(Deadline::after(timeout), what).map(drop)
    }

    /// Asks the guest to turn itself off; there is no answer.
    pub(crate) fn power_off(&self) -> Result<()> {
        self.open(Request::PowerOff, "turning the guest off")?.forget();
        Ok(())
    }

    fn open(&self, request: Request, what: &str) -> Result<Channel> {
        let mut state = lock(&self.shared.state);
        let Some(session) = &state.session else {
            return Err(Error::Lost {
                what: what.to_owned(),
                why: if state.closed { CLOSED } else { "there is no agent" }.to_owned(),
            });
        };
        let epoch = session.epoch;
        state.next_channel = state.next_channel.wrapping_add(1).max(1);
        let number = state.next_channel;
        state.channels.insert(
            number,
            ChannelState {
                credit: WINDOW as usize,
                ..ChannelState::default()
            },
        );
        let channel = Channel {
            shared: Arc::clone(&self.shared),
            epoch,
            number,
        };
        channel.send(request);
        Ok(channel)
    }

    fn wait<R>(&self, deadline: Deadline, look: impl FnMut(&mut State) -> Option<R>) -> Option<R> {
        wait_for(&self.shared.state, &self.shared.changed, deadline, look)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.close();
    }
}

const CLOSED: &str = "the connection to its agent has closed";
const REBOOTED: &str = "the guest has rebooted";

impl State {
    /// Begins a new session; everything of the last one is lost.
    fn attach(&mut self, outgoing: &Sender<Vec<u8>>) {
        self.nonce += 1;
        self.session = None;
        let frame = Frame {
            epoch: 0,
            channel: 0,
            body: Request::Attach(self.nonce),
        };
        // An earlier user of the connection may have left in mid-frame.
        let _ = outgoing.send(vec![0; PREAMBLE]);
        let _ = outgoing.send(frame.encode());
    }

    fn lose_all(&mut self, why: &str) {
        for channel in self.channels.values_mut() {
            if channel.end.is_none() {
                channel.end = Some(End::Lost(why.to_owned()));
            }
        }
    }
}

impl Shared {
    fn read_all(&self, mut stream: UnixStream) {
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            decoder.push(&buffer[..count]);
            let mut state = lock(&self.state);
            while let Some(frame) = decoder.next_frame() {
                match frame {
                    Ok(frame) => self.receive(&mut state, frame),
                    Err(FrameError::Skipped(_)) if state.session.is_none() => {
                        // The rest of a frame that a reboot has cut off.
                    }
                    Err(error) => state.reports.push(error.to_string()),
                }
            }
            self.changed.notify_all();
        }
        let mut state = lock(&self.state);
        state.closed = true;
        state.session = None;
        state.lose_all(CLOSED);
        self.changed.notify_all();
    }

    fn receive(&self, state: &mut State, frame: Frame<Reply>) {
        match frame.body {
            Reply::Booted(_) => {
                state.lose_all(REBOOTED);
                state.attach(&self.outgoing);
                return;
            }
            Reply::Hello(hello) => {
                if hello.nonce == state.nonce {
                    state.session = Some(Session {
                        epoch: frame.epoch,
                        hello,
                    });
                }
                return;
            }
            _ => {}
        }
        if state.session.as_ref().map(|session| session.epoch) != Some(frame.epoch) {
            return;
        }
        if let (0, Reply::Error(report)) = (frame.channel, &frame.body) {
            state.reports.push(report.clone());
            return;
        }
        let Some(channel) = state.channels.get_mut(&frame.channel) else {
            return;
        };
        let received = match frame.body {
            Reply::Stdout(data) => {
                keep(&mut channel.stdout, &data, OUTPUT_LIMIT);
                data.len()
            }
            Reply::Stderr(data) => {
                keep(&mut channel.stderr, &data, OUTPUT_LIMIT);
                data.len()
            }
            Reply::Data(data) => {
                keep(&mut channel.stdout, &data, usize::MAX);
                data.len()
            }
            Reply::Credit(bytes) => {
                channel.credit += bytes as usize;
                0
            }
            Reply::Started(pid) => {
                channel.pid = Some(pid);
                0
            }
            Reply::Exit(exit) => {
                channel.end = Some(End::Exit(exit));
                0
            }
            Reply::Done(length) => {
                channel.end = Some(End::Done(length));
                0
            }
            Reply::Error(reason) => {
                channel.end = Some(End::Refused(reason));
                0
            }
            Reply::Booted(_) | Reply::Hello(_) => 0,
        };
        if received > 0 {
            let frame = Frame {
                epoch: frame.epoch,
                channel: frame.channel,
                body: Request::Credit(received as u32),
            };
            let _ = self.outgoing.send(frame.encode());
        }
    }
}

fn keep(buffer: &mut Vec<u8>, data: &[u8], limit: usize) {
    let room = limit.saturating_sub(buffer.len());
    buffer.extend_from_slice(&data[..data.len().min(room)]);
}

impl Channel {
    /// Sends a request on this channel.
    pub(crate) fn send(&self, body: Request) {
        let frame = Frame {
            epoch: self.epoch,
            channel: self.number,
            body,
        };
        let _ = self.shared.outgoing.send(frame.encode());
    }

    /// Sends data as the agent takes it; what it takes no more, because the channel has ended, is dropped.
    pub(crate) fn send_data(&self, data: &[u8], deadline: Deadline, what: &str) -> Result<()> {
        for piece in data.chunks(CHUNK) {
            let open = self.wait(deadline, |state| {
                if state.end.is_some() {
                    Some(false)
                } else if state.credit >= piece.len() {
                    state.credit -= piece.len();
                    Some(true)
                } else {
                    None
                }
            });
            match open {
                Some(true) => self.send(Request::Data(piece.to_vec())),
                Some(false) => return Ok(()),
                None => return Err(deadline.missed(format!("{what} to get on"))),
            }
        }
        Ok(())
    }

    /// Waits until `look` finds something on this channel, or `None` at the deadline.
    pub(crate) fn wait<R>(
        &self,
        deadline: Deadline,
        mut look: impl FnMut(&mut ChannelState) -> Option<R>,
    ) -> Option<R> {
        wait_for(&self.shared.state, &self.shared.changed, deadline, |state| {
            state.channels.get_mut(&self.number).and_then(&mut look)
        })
    }

    /// Looks at what has come in.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut ChannelState) -> R) -> Option<R> {
        lock(&self.shared.state).channels.get_mut(&self.number).map(look)
    }

    /// The content and the length.
    fn finish_transfer(&self, deadline: Deadline, what: &str) -> Result<(Vec<u8>, u64)> {
        let end = self.wait(deadline, |state| {
            let end = state.end.clone()?;
            Some((std::mem::take(&mut state.stdout), end))
        });
        match end {
            Some((content, End::Done(length))) => Ok((content, length)),
            Some((_, End::Refused(reason))) => Err(Error::Agent(reason)),
            Some((_, End::Lost(why))) => Err(Error::Lost {
                what: what.to_owned(),
                why,
            }),
            Some((_, End::Exit(_))) => Err(Error::Agent("that is no transfer".to_owned())),
            None => Err(deadline.missed(format!("{what} to end"))),
        }
    }

    /// Gives the channel up without a word to the agent.
    fn forget(self) {
        lock(&self.shared.state).channels.remove(&self.number);
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let channel = lock(&self.shared.state).channels.remove(&self.number);
        if channel.is_some_and(|channel| channel.end.is_none()) {
            self.send(Request::Cancel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// Plays the agent's part.
    struct Fake {
        stream: UnixStream,
        decoder: Decoder<Request>,
        epoch: u32,
    }

    impl Fake {
        fn pair() -> (Control, Self) {
            let (ours, theirs) = UnixStream::pair().unwrap();
            theirs.set_read_timeout(Some(SOON)).unwrap();
            let fake = Self {
                stream: theirs,
                decoder: Decoder::new(),
                epoch: 10,
            };
            (Control::new(ours).unwrap(), fake)
        }

        fn next(&mut self) -> Frame<Request> {
            let mut buffer = [0; 4096];
            loop {
                if let Some(frame) = self.decoder.next_frame() {
                    return frame.unwrap();
                }
                let count = self.stream.read(&mut buffer).unwrap();
                assert!(count > 0, "the harness closed the connection");
                self.decoder.push(&buffer[..count]);
            }
        }

        fn send(&mut self, epoch: u32, channel: u32, body: Reply) {
            let frame = Frame { epoch, channel, body };
            self.stream.write_all(&frame.encode()).unwrap();
        }

        /// Says it has booted.
        fn boot(&mut self, boot_id: &str) {
            self.stream.write_all(&vec![0; PREAMBLE]).unwrap();
            self.send(0, 0, Reply::Booted(hello(0, boot_id)));
        }

        /// Answers attach requests until there is something else than credit.
        fn serve_attach(&mut self, boot_id: &str) -> Frame<Request> {
            loop {
                let frame = self.next();
                match frame.body {
                    Request::Attach(nonce) => {
                        self.epoch += 1;
                        self.send(self.epoch, 0, Reply::Hello(hello(nonce, boot_id)));
                    }
                    Request::Credit(_) => {}
                    _ => return frame,
                }
            }
        }
    }

    fn hello(nonce: u64, boot_id: &str) -> Hello {
        Hello {
            nonce,
            boot_id: boot_id.to_owned(),
            ..Hello::default()
        }
    }

    fn request() -> SpawnRequest {
        SpawnRequest {
            argv: vec!["true".into()],
            ..SpawnRequest::default()
        }
    }

    fn end(channel: &Channel) -> Option<End> {
        channel.wait(Deadline::after(SOON), |state| state.end.clone())
    }

    #[test]
    fn a_session_starts_whoever_comes_first() {
        for agent_first in [true, false] {
            let (control, mut fake) = Fake::pair();
            if agent_first {
                fake.boot("one");
            }
            let server = thread::spawn(move || {
                let spawn = fake.serve_attach("one");
                assert_eq!(spawn.epoch, fake.epoch);
                fake.send(fake.epoch - 1, spawn.channel, Reply::Exit(Exit::Code(1)));
                fake.send(fake.epoch, spawn.channel + 1, Reply::Exit(Exit::Code(2)));
                fake.send(fake.epoch, spawn.channel, Reply::Exit(Exit::Code(3)));
                fake
            });
            // The agent's greeting, when it is late, makes the harness attach once more.
            if agent_first {
                thread::sleep(Duration::from_millis(50));
            }
            assert_eq!(control.wait_boot(None, SOON).unwrap().boot_id, "one");
            let channel = control.spawn(&request()).unwrap();
            assert_eq!(end(&channel), Some(End::Exit(Exit::Code(3))));
            server.join().unwrap();
        }
    }

    #[test]
    fn a_reboot_in_mid_frame_is_noticed() {
        let (control, mut fake) = Fake::pair();
        let server = thread::spawn(move || {
            let spawn = fake.serve_attach("one");
            let frame = Frame {
                epoch: fake.epoch,
                channel: spawn.channel,
                body: Reply::Stdout(vec![b'y'; CHUNK]),
            };
            fake.stream.write_all(&frame.encode()[..1000]).unwrap();
            fake.boot("two");
            fake.serve_attach("two")
        });
        control.wait_boot(None, SOON).unwrap();
        let channel = control.spawn(&request()).unwrap();
        assert!(matches!(end(&channel), Some(End::Lost(why)) if why == REBOOTED));
        assert_eq!(control.wait_boot(Some("one"), SOON).unwrap().boot_id, "two");
        assert_eq!(control.reports(), Vec::<String>::new());
        control.spawn(&request()).unwrap();
        let frame = server.join().unwrap();
        assert!(matches!(frame.body, Request::Spawn(_)));
    }

    #[test]
    fn what_runs_is_lost_when_the_connection_closes() {
        let (control, mut fake) = Fake::pair();
        let server = thread::spawn(move || {
            fake.serve_attach("one");
        });
        control.wait_boot(None, SOON).unwrap();
        let channel = control.spawn(&request()).unwrap();
        assert!(matches!(end(&channel), Some(End::Lost(why)) if why == CLOSED));
        server.join().unwrap();
        assert!(control.spawn(&request()).is_err());
        let error = control.wait_boot(None, SOON).unwrap_err().to_string();
        assert!(error.contains(CLOSED), "{error}");
    }

    #[test]
    fn waiting_has_an_end() {
        let (control, _fake) = Fake::pair();
        let error = control.wait_boot(None, Duration::from_millis(20)).unwrap_err();
        assert!(error.to_string().contains("the guest's agent"), "{error}");
    }

    #[test]
    fn data_waits_for_credit() {
        let (control, mut fake) = Fake::pair();
        let server = thread::spawn(move || {
            let put = fake.serve_attach("one");
            assert!(matches!(put.body, Request::Put(_)));
            let mut received = 0;
            loop {
                match fake.next().body {
                    Request::Data(data) => {
                        received += data.len();
                        assert!(received <= WINDOW as usize, "more than the window");
                        if received + CHUNK > WINDOW as usize {
                            break;
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
            fake.send(fake.epoch, put.channel, Reply::Error("the disk is full".into()));
            fake
        });
        control.wait_boot(None, SOON).unwrap();
        let error = control.put(&vec![1; 1 << 20][..], "/x", 0o644, SOON).unwrap_err();
        assert!(error.to_string().contains("the disk is full"), "{error}");
        server.join().unwrap();
    }
}
