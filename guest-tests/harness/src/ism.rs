//! The virtio-ism device under test: one `vhost-ism` daemon, one vhost-user connection per guest.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::daemon::Daemon;
use crate::device::{Device, Place};
use crate::error::Result;
use crate::locate::binary;
use crate::qemu::escape;

/// Virtio device id. The drafts of the ISM device ask for 44, which is missing in a table of QEMU 11.1 and makes it
/// abort; QEMU knows 37, and no driver in the guest's kernel claims it.
const VIRTIO_ID: u32 = 37;

/// Control queue, event queue and one more.
const QUEUES: u32 = 3;

/// Size of the device configuration space, in bytes.
const CONFIG_SIZE: u32 = 96;

/// Options of `vhost-ism` and of the device in QEMU.
#[derive(Debug, Clone)]
pub struct IsmOptions {
    /// Additional arguments of the daemon.
    pub args: Vec<String>,
    /// Additional environment variables of the daemon. RUST_LOG defaults to `info` unless set here or in the
    /// environment.
    pub env: Vec<(String, String)>,
    /// Virtio device id.
    pub virtio_id: u32,
    /// Number of virtqueues offered by QEMU.
    pub queues: u32,
    /// Size of the device configuration space, in bytes.
    pub config_size: u32,
}

impl Default for IsmOptions {
    fn default() -> Self {
        Self {
            args: Vec::new(),
            env: Vec::new(),
            virtio_id: VIRTIO_ID,
            queues: QUEUES,
            config_size: CONFIG_SIZE,
        }
    }
}

impl IsmOptions {
    /// Returns the path of the daemon's binary.
    pub fn program() -> Result<PathBuf> {
        binary("vhost-ism", Some("VHOST_ISM"))
    }

    /// Adds arguments for the daemon.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }
}

fn socket(guest: usize, place: &Place) -> PathBuf {
    place.sockets().join(format!("ism-{guest}"))
}

impl Device for IsmOptions {
    fn name(&self) -> &str {
        "vhost-ism"
    }

    fn start(&self, place: &Place) -> Result<Option<Daemon>> {
        let sockets: Vec<PathBuf> = (0..place.guests()).map(|guest| socket(guest, place)).collect();
        let stats = place.sockets().join("ism-stats");
        let mut command = Command::new(Self::program()?);
        for path in &sockets {
            command.arg("--socket-path").arg(path);
        }
        command.arg("--stats-socket").arg(&stats).args(&self.args);
        if env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info");
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let log = place.logs().join("vhost-ism.log");
        Daemon::start("vhost-ism", command, &log, &sockets, Some(stats)).map(Some)
    }

    fn qemu_args(&self, guest: usize, place: &Place) -> Vec<String> {
        vec![
            "-chardev".to_owned(),
            format!("socket,id=ism,path={}", escape(&socket(guest, place))),
            "-device".to_owned(),
            format!(
                "vhost-user-test-device-pci,virtio-id={},num_vqs={},config_size={},chardev=ism",
                self.virtio_id, self.queues, self.config_size
            ),
        ]
    }
}
