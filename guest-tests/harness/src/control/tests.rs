use guest_agent::frame::{Decoder, Frame, PREAMBLE};
use guest_agent::{Exit, Reply, WINDOW};

use super::session::REBOOTED;
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

    /// Announces a boot.
    fn boot(&mut self, boot_id: &str) {
        self.stream.write_all(&vec![0; PREAMBLE]).unwrap();
        self.send(0, 0, Reply::Booted(hello(0, boot_id)));
    }

    /// Answers attach requests until another request than credit arrives.
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

/// A kernel that hangs while it boots has no agent.
#[test]
fn what_runs_is_lost_when_the_guest_is_reset() {
    let (control, mut fake) = Fake::pair();
    let server = thread::spawn(move || {
        fake.serve_attach("one");
        fake
    });
    control.wait_boot(None, SOON).unwrap();
    let channel = control.spawn(&request()).unwrap();
    control.rebooted();
    assert!(matches!(end(&channel), Some(End::Lost(why)) if why == REBOOTED));
    assert!(control.hello().is_none());
    assert!(control.spawn(&request()).is_err());
    drop(server.join().unwrap());
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
