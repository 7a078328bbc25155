//! Arbitrary requests to the device by the test module `ism_probe`, which replaces the driver.

use std::path::PathBuf;
use std::process::Command;

use guest_harness::{Guest, Image, Result, target_dir, workspace_dir};

use crate::fixture::{Fixture, Kernel};

const FILES: &str = "/sys/kernel/debug/ism_probe";

/// Builds the module for the kernel of the guests.
pub fn module(kernel: Kernel) -> Result<PathBuf> {
    let image = match kernel {
        Kernel::Normal => Image::load()?,
        Kernel::Debug => Image::load_debug()?,
    };
    let build = workspace_dir().join("guest-tests/driver/ism_probe/build");
    let out = target_dir()
        .join("guest-tests")
        .join(format!("ism_probe-{}", image.kernel_release));
    let built = Command::new(&build)
        .args(&image.kernel_build)
        .arg(&out)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", build.display()));
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Ok(out.join("ism_probe.ko"))
}

/// A control request.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Device-readable bytes.
    pub bytes: Vec<u8>,
    /// Length of the device-writable part.
    pub room: usize,
    /// Maximum length of a descriptor; 0 for no limit.
    pub segment: usize,
}

impl Request {
    /// Builds a request with room for the longest answer.
    pub fn new((class, cmd): (u8, u8), body: &[u8]) -> Self {
        Self {
            bytes: [&[class, cmd], body].concat(),
            room: 64,
            segment: 0,
        }
    }

    pub fn room(mut self, room: usize) -> Self {
        self.room = room;
        self
    }

    pub fn segment(mut self, segment: usize) -> Self {
        self.segment = segment;
        self
    }
}

/// Answer of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Used length.
    pub used: usize,
    /// Bytes written by the device.
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn status(&self) -> Option<u8> {
        self.bytes.first().copied()
    }
}

/// The module loaded in a guest.
#[derive(Debug)]
pub struct Probe<'a> {
    fixture: &'a Fixture,
    guest: &'a Guest,
}

impl<'a> Probe<'a> {
    /// Unloads the driver and loads the module.
    pub fn load(fixture: &'a Fixture, index: usize) -> Result<Self> {
        fixture.unload_driver(index)?;
        let guest = fixture.guest(index);
        guest
            .run(
                "mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug; insmod /host/ism_probe.ko",
            )?
            .check()?;
        guest.run(&format!("test -e {FILES}/request"))?.check()?;
        Ok(Self { fixture, guest })
    }

    /// Unloads the module and reloads the driver.
    pub fn unload(self) -> Result<()> {
        self.guest.run("rmmod ism_probe")?.check()?;
        self.fixture.load_driver(self.guest.index())
    }

    /// Sends requests one after the other; asserts that each is answered within its room.
    pub fn ask(&self, requests: &[Request]) -> Result<Vec<Answer>> {
        let lines: String = requests
            .iter()
            .map(|request| format!("{} {} {}\n", request.segment, request.room, hex(&request.bytes)))
            .collect();
        self.guest.put_bytes(lines.as_bytes(), "/tmp/requests", 0o600)?;
        let script = format!(
            "set -e; while read -r request; do echo \"$request\" > {FILES}/request; read -r answer < {FILES}/request; \
             echo \"$answer\"; done < /tmp/requests"
        );
        let run = self
            .guest
            .shell(&script)
            .called("ask the device")
            .timeout(self.fixture.seconds(60));
        let out = run.run()?.check()?;
        let answers: Vec<Answer> = out.stdout.lines().map(answer).collect();
        assert_eq!(answers.len(), requests.len(), "answers: {out}");
        for (request, answer) in requests.iter().zip(&answers) {
            assert!(answer.used <= request.room, "{request:02x?}: {answer:02x?}");
            assert_eq!(answer.bytes.len(), answer.used, "{request:02x?}: {answer:02x?}");
        }
        Ok(answers)
    }

    /// Sends one request.
    pub fn ask_one(&self, request: Request) -> Result<Answer> {
        Ok(self.ask(&[request])?.remove(0))
    }

    /// Sets bytes of the doorbell area, each with a notification.
    pub fn ring(&self, offsets: impl IntoIterator<Item = u64>) -> Result<()> {
        let offsets: Vec<String> = offsets.into_iter().map(|offset| offset.to_string()).collect();
        let script = format!(
            "for at in {}; do echo $at > {FILES}/ring || exit; done",
            offsets.join(" ")
        );
        self.guest.run(&script)?.check().map(drop)
    }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn answer(line: &str) -> Answer {
    let (used, text) = line.split_once(' ').unwrap_or((line, ""));
    let bytes = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).expect("text");
        u8::from_str_radix(pair, 16).expect("hexadecimal")
    });
    Answer {
        used: used.parse().expect("a number"),
        bytes: bytes.collect(),
    }
}
