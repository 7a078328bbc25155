//! The NIC as a device under test: one `vhost-nic` daemon with its switch, one vfio-user connection per guest.

use std::env;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::daemon::Daemon;
use crate::device::{Device, Place};
use crate::error::Result;
use crate::locate::binary;
use crate::qemu::escape;

/// Name of the NIC's interface in every guest, given when the driver is loaded.
pub const NIC: &str = "nic0";

/// How a virtio-net device is connected to a port of the switch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VirtioPort {
    /// By a stream of frames (`--port stream`).
    #[default]
    Stream,
    /// By vhost-user-net (`--port vhost-user`).
    VhostUser,
}

/// Options of `vhost-nic` and of the device in the guests.
#[derive(Debug, Clone, Default)]
pub struct NicOptions {
    /// Additional arguments of the daemon.
    pub args: Vec<String>,
    /// Additional environment variables of the daemon. RUST_LOG defaults to `info` unless set here or in the
    /// environment.
    pub env: Vec<(String, String)>,
    /// Additional settings of every guest's NIC in the syntax of `--guest`, such as `id=connectx-7`.
    pub guest_settings: Vec<String>,
    /// Whether the NIC is behind a root port instead of integrated in the root complex.
    pub root_port: bool,
    /// Whether every guest is recorded, to the file of [`NicOptions::record`] in the directory of the logs.
    pub recorded: bool,
    /// Number of guests, the last ones, that have a virtio-net device at a port of the switch instead of a NIC.
    pub virtio_guests: usize,
    /// How their devices are connected to it.
    pub virtio_port: VirtioPort,
    /// The only guest that has a NIC of this daemon, and the daemon's name. All have one otherwise.
    pub alone: Option<(usize, &'static str)>,
    /// Whether every guest has a second NIC on the same switch. Its name has the suffix `-second`.
    pub second: bool,
    /// Whether QEMU waits for the daemon after each register write. For debugging only, as it hides races.
    pub no_posted_writes: bool,
}

impl NicOptions {
    /// Adds arguments for the daemon.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Selects a device id by its name in `--guest id=`.
    pub fn id(mut self, id: &str) -> Self {
        self.guest_settings.push(format!("id={id}"));
        self
    }

    /// Puts the NIC behind a root port.
    pub fn root_port(mut self) -> Self {
        self.root_port = true;
        self
    }

    /// Records every guest.
    pub fn recorded(mut self) -> Self {
        self.recorded = true;
        self
    }

    /// Gives the last `count` guests a virtio-net device at a port of the switch instead of a NIC.
    pub fn virtio_guests(mut self, count: usize) -> Self {
        self.virtio_guests = count;
        self
    }

    /// Connects the virtio-net devices by vhost-user-net.
    pub fn vhost_user_net(mut self) -> Self {
        self.virtio_port = VirtioPort::VhostUser;
        self
    }

    /// Gives every guest a second NIC on the same switch.
    pub fn second(mut self) -> Self {
        self.second = true;
        self
    }

    /// Gives one guest a NIC, of a daemon with a name of its own. For each guest there is another.
    pub fn alone(mut self, guest: usize, daemon: &'static str) -> Self {
        self.alone = Some((guest, daemon));
        self
    }

    fn serves(&self, guest: usize) -> bool {
        self.alone.is_none_or(|(only, _)| only == guest)
    }

    fn is_virtio(&self, guest: usize, place: &Place) -> bool {
        guest + self.virtio_guests >= place.guests()
    }

    /// Returns the name of the record of a guest.
    pub fn record(guest: usize) -> String {
        format!("nic-{guest}.record")
    }

    /// Returns the path of the daemon's binary.
    pub fn program() -> Result<PathBuf> {
        binary("vhost-nic", Some("VHOST_NIC"))
    }

    /// Returns the MAC address of a guest's NIC.
    pub fn mac(guest: usize) -> String {
        format!("52:54:00:00:c5:{:02x}", host_number(guest))
    }

    /// Returns the MAC address of a guest's second NIC.
    pub fn second_mac(guest: usize) -> String {
        format!("52:54:00:00:c6:{:02x}", host_number(guest))
    }

    /// Returns the IPv4 address of a guest on the NICs' network.
    pub fn address(guest: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 5, 0, host_number(guest))
    }

    /// Returns the IPv6 address of a guest on the NICs' network.
    pub fn address_v6(guest: usize) -> Ipv6Addr {
        Ipv6Addr::new(0xfd05, 0, 0, 0, 0, 0, 0, host_number(guest).into())
    }
}

fn host_number(guest: usize) -> u8 {
    u8::try_from(guest + 1).expect("a testbed has few guests")
}

fn socket(guest: usize, place: &Place) -> PathBuf {
    place.sockets().join(format!("nic-{guest}"))
}

fn second_socket(guest: usize, place: &Place) -> PathBuf {
    place.sockets().join(format!("nic-{guest}-second"))
}

impl Device for NicOptions {
    fn name(&self) -> &str {
        self.alone.map_or("vhost-nic", |(_, name)| name)
    }

    fn start(&self, place: &Place) -> Result<Option<Daemon>> {
        let guests = (0..place.guests()).filter(|guest| self.serves(*guest));
        let sockets: Vec<(usize, PathBuf)> = guests.map(|guest| (guest, socket(guest, place))).collect();
        let stats = place.sockets().join(format!("{}-stats", self.name()));
        let mut command = Command::new(Self::program()?);
        for (guest, path) in &sockets {
            let guest = *guest;
            if self.is_virtio(guest, place) {
                let medium = match self.virtio_port {
                    VirtioPort::Stream => "stream",
                    VirtioPort::VhostUser => "vhost-user",
                };
                command.arg("--port").arg(format!("{medium}={}", path.display()));
                continue;
            }
            let mut settings = vec![format!("path={}", path.display()), format!("mac={}", Self::mac(guest))];
            if place.is_uml(guest) {
                settings.push("attach=vhost-user".to_owned());
            }
            if self.recorded {
                settings.push(format!("record={}", place.logs().join(Self::record(guest)).display()));
            }
            settings.extend(self.guest_settings.iter().cloned());
            command.arg("--guest").arg(settings.join(","));
        }
        let second = sockets.iter().filter(|_| self.second);
        let second: Vec<PathBuf> = second.map(|(guest, _)| second_socket(*guest, place)).collect();
        for ((guest, _), path) in sockets.iter().zip(&second) {
            let mac = Self::second_mac(*guest);
            command.arg("--guest").arg(format!("path={},mac={mac}", path.display()));
        }
        command.arg("--stats-socket").arg(&stats).args(&self.args);
        if env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info");
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let log = place.logs().join(format!("{}.log", self.name()));
        let sockets: Vec<PathBuf> = sockets.into_iter().map(|(_, path)| path).chain(second).collect();
        Daemon::start(self.name(), command, &log, &sockets, Some(stats)).map(Some)
    }

    fn qemu_args(&self, guest: usize, place: &Place) -> Vec<String> {
        let mut args = Vec::new();
        if !self.serves(guest) {
            return args;
        }
        if self.is_virtio(guest, place) {
            let path = escape(&socket(guest, place));
            // Without the boot ROM: nothing boots over the network.
            let device = format!("virtio-net-pci,netdev=nic,mac={},romfile=", Self::mac(guest));
            let netdev = match self.virtio_port {
                VirtioPort::Stream => format!("stream,id=nic,addr.type=unix,addr.path={path},reconnect-ms=100"),
                VirtioPort::VhostUser => {
                    let chardev = format!("socket,id=nic-port,path={path},reconnect-ms=100");
                    args.extend(["-chardev".to_owned(), chardev]);
                    "vhost-user,id=nic,chardev=nic-port".to_owned()
                }
            };
            args.extend(["-netdev".to_owned(), netdev, "-device".to_owned(), device]);
            return args;
        }
        // JSON, as the short form of -device cannot express a structured `socket`.
        let mut device = json!({
            "driver": "vfio-user-pci",
            "socket": {"type": "unix", "path": socket(guest, place)},
        });
        if self.root_port {
            args.extend(["-device", "pcie-root-port,id=nic-port,chassis=1"].map(str::to_owned));
            device["bus"] = json!("nic-port");
        }
        if self.no_posted_writes {
            device["x-no-posted-writes"] = json!(true);
        }
        args.extend(["-device".to_owned(), device.to_string()]);
        if self.second {
            device["socket"]["path"] = json!(second_socket(guest, place));
            args.extend(["-device".to_owned(), device.to_string()]);
        }
        args
    }

    fn uml_pci(&self, guest: usize, place: &Place) -> Option<PathBuf> {
        self.serves(guest).then(|| socket(guest, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            guests: 2,
            uml_guests: 0,
            logs: "/logs".into(),
            sockets: "/s".into(),
        }
    }

    #[test]
    fn each_guest_has_a_socket_of_its_own() {
        let args = NicOptions::default().qemu_args(1, &place());
        assert_eq!(args.len(), 2);
        let device: serde_json::Value = serde_json::from_str(&args[1]).unwrap();
        assert_eq!(device["socket"]["path"], "/s/nic-1");
        assert!(device.get("bus").is_none());
    }

    #[test]
    fn a_root_port_comes_before_what_is_plugged_into_it() {
        let args = NicOptions::default().root_port().qemu_args(0, &place());
        assert!(args[1].starts_with("pcie-root-port,id=nic-port"));
        assert!(args[3].contains(r#""bus":"nic-port""#), "{}", args[3]);
    }

    #[test]
    fn a_second_nic_has_a_socket_and_an_address_of_its_own() {
        let args = NicOptions::default().second().qemu_args(1, &place());
        assert_eq!(args.len(), 4);
        assert!(args[3].contains(r#""path":"/s/nic-1-second""#), "{}", args[3]);
        assert_ne!(NicOptions::second_mac(1), NicOptions::mac(1));
    }

    #[test]
    fn the_last_guests_can_have_virtio_net() {
        let options = NicOptions::default().virtio_guests(1);
        assert!(options.qemu_args(0, &place())[1].contains("vfio-user-pci"));
        let args = options.qemu_args(1, &place());
        assert_eq!(
            args[1],
            "stream,id=nic,addr.type=unix,addr.path=/s/nic-1,reconnect-ms=100"
        );
        assert_eq!(args[3], "virtio-net-pci,netdev=nic,mac=52:54:00:00:c5:02,romfile=");
    }

    #[test]
    fn virtio_net_can_be_connected_by_vhost_user() {
        let options = NicOptions::default().virtio_guests(1).vhost_user_net();
        let args = options.qemu_args(1, &place());
        assert_eq!(args[1], "socket,id=nic-port,path=/s/nic-1,reconnect-ms=100");
        assert_eq!(args[3], "vhost-user,id=nic,chardev=nic-port");
    }

    #[test]
    fn addresses_name_the_guest() {
        assert_eq!(NicOptions::mac(0), "52:54:00:00:c5:01");
        assert_eq!(NicOptions::address(2), Ipv4Addr::new(10, 5, 0, 3));
        assert_eq!(NicOptions::address_v6(1).to_string(), "fd05::2");
    }
}
