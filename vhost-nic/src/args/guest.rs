//! The value of `--guest`.

use std::fmt;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::str::FromStr;

use vhost_nic::frame::mac::{Mac, ParseMacError};
use vhost_nic::pci::{Identity, MAX_VECTORS};

use super::{parse_switch, set};

/// Socket that a guest's VMM connects to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Socket {
    /// A socket that the daemon creates.
    Path(PathBuf),
    /// An inherited listening socket.
    Fd(RawFd),
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Fd(fd) => write!(f, "fd {fd}"),
        }
    }
}

/// Transport between a VMM and its guest's NIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// vfio-user, for QEMU.
    #[default]
    VfioUser,
    /// PCI over virtio over vhost-user, for User Mode Linux.
    VhostUser,
}

/// A guest as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestArg {
    /// Socket that the guest's VMM connects to.
    pub socket: Socket,
    /// Transport of the attachment.
    pub attach: Attach,
    /// MAC address of the NIC, if given.
    pub mac: Option<Mac>,
    /// Model that the NIC identifies as.
    pub identity: Identity,
    /// Number of MSI-X vectors, if given.
    pub vectors: Option<u16>,
    /// Whether the NIC accepts WQEs through doorbell registers.
    pub blue_flame: bool,
    /// File that the guest is recorded to, if given.
    pub record: Option<PathBuf>,
    /// Whether the NIC may send from its own MAC address only.
    pub spoof_check: bool,
    /// First numbers of queue pairs and memory keys.
    pub numbers: Numbers,
}

/// First numbers of queue pairs and memory keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    /// The lowest.
    #[default]
    Lowest,
    /// Random ones.
    Random,
    /// Random ones that are the same in every run.
    Seeded(u64),
}

impl GuestArg {
    /// Creates a guest on this socket, with defaults otherwise.
    pub fn new(socket: Socket) -> Self {
        Self {
            socket,
            attach: Attach::default(),
            mac: None,
            identity: Identity::default(),
            vectors: None,
            blue_flame: false,
            record: None,
            spoof_check: false,
            numbers: Numbers::default(),
        }
    }
}

impl FromStr for GuestArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut socket, mut attach, mut mac, mut identity) = (None, None, None, None);
        let (mut vectors, mut blue_flame, mut spoof_check, mut record) = (None, None, None, None);
        let mut numbers = None;
        for pair in text.split(',') {
            let (key, value) = pair
                .split_once('=')
                .filter(|(_, value)| !value.is_empty())
                .ok_or_else(|| format!("{pair:?} is not KEY=VALUE"))?;
            match key {
                "path" => set(&mut socket, Socket::Path(value.into()), "path or fd"),
                "fd" => set(&mut socket, Socket::Fd(parse_fd(value)?), "path or fd"),
                "attach" => set(&mut attach, parse_attach(value)?, key),
                "mac" => set(&mut mac, parse_mac(value)?, key),
                "id" => set(
                    &mut identity,
                    value.parse::<Identity>().map_err(|error| error.to_string())?,
                    key,
                ),
                "vectors" => set(&mut vectors, parse_vectors(value)?, key),
                "blue-flame" => set(&mut blue_flame, parse_switch(value)?, key),
                "spoof-check" => set(&mut spoof_check, parse_switch(value)?, key),
                "random-numbers" => set(&mut numbers, parse_numbers(value)?, key),
                "record" => set(&mut record, value.into(), key),
                _ => Err(format!(
                    "{key:?} is none of path, fd, attach, mac, id, vectors, blue-flame, spoof-check, random-numbers, \
                     record"
                )),
            }?;
        }
        Ok(Self {
            socket: socket.ok_or("a guest needs path=PATH or fd=FD")?,
            attach: attach.unwrap_or_default(),
            mac,
            identity: identity.unwrap_or_default(),
            vectors,
            blue_flame: blue_flame.unwrap_or_default(),
            record,
            spoof_check: spoof_check.unwrap_or_default(),
            numbers: numbers.unwrap_or_default(),
        })
    }
}

fn parse_fd(text: &str) -> Result<RawFd, String> {
    text.parse()
        .ok()
        .filter(|fd| *fd >= 0)
        .ok_or_else(|| format!("{text:?} is not a descriptor"))
}

fn parse_attach(text: &str) -> Result<Attach, String> {
    match text {
        "vfio-user" => Ok(Attach::VfioUser),
        "vhost-user" => Ok(Attach::VhostUser),
        _ => Err("a guest attaches over vfio-user or vhost-user".to_owned()),
    }
}

fn parse_numbers(text: &str) -> Result<Numbers, String> {
    match text {
        "on" => Ok(Numbers::Random),
        "off" => Ok(Numbers::Lowest),
        seed => seed
            .parse()
            .map(Numbers::Seeded)
            .map_err(|_| format!("{seed:?} is neither on nor off nor a seed")),
    }
}

/// Parses a number of vectors: one for events and at least one for completions, or the drivers fail to probe.
fn parse_vectors(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|n| (2..=MAX_VECTORS).contains(n))
        .ok_or_else(|| format!("a NIC has from 2 to {MAX_VECTORS} vectors"))
}

/// Parses a unicast MAC address other than zero.
fn parse_mac(text: &str) -> Result<Mac, String> {
    let mac: Mac = text.parse().map_err(|error: ParseMacError| error.to_string())?;
    if !mac.is_station() {
        return Err(format!("{text} cannot be the MAC address of a NIC"));
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_taken() {
        let text = "path=/run/a.sock,attach=vhost-user,mac=52:54:0:Aa:c5:10,id=connectx-7,vectors=33,blue-flame=on,\
                    spoof-check=on,random-numbers=7,record=a.record";
        let guest: GuestArg = text.parse().unwrap();
        let expected = GuestArg {
            socket: Socket::Path("/run/a.sock".into()),
            attach: Attach::VhostUser,
            mac: Some(Mac([0x52, 0x54, 0, 0xaa, 0xc5, 0x10])),
            identity: Identity::ConnectX7,
            vectors: Some(33),
            blue_flame: true,
            record: Some(PathBuf::from("a.record")),
            spoof_check: true,
            numbers: Numbers::Seeded(7),
        };
        assert_eq!(guest, expected);
        assert_eq!("fd=3".parse(), Ok(GuestArg::new(Socket::Fd(3))));
        for identity in Identity::ALL {
            let guest: GuestArg = format!("path=a,id={identity}").parse().unwrap();
            assert_eq!(guest.identity, identity);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            "",
            "a.sock",
            "path=",
            "attach=vfio-user",
            "path=a,fd=3",
            "path=a,path=b",
            "path=a,",
            "fd=-1",
            "path=a,attach=tcp",
            "path=a,id=connectx-9",
            "path=a,vectors=1",
            "path=a,vectors=257",
            "path=a,vectors=-2",
            "path=a,speed=100",
            "path=a,blue-flame=yes",
            "path=a,random-numbers=some",
            "path=a,mac=52:54:00:00:c5",
            "path=a,mac=52:54:00:00:c5:01:02",
            "path=a,mac=52:54:00:00:c5:+1",
            "path=a,mac=52:54:00:00:c5:",
            "path=a,mac=53:54:00:00:c5:01",
            "path=a,mac=00:00:00:00:00:00",
        ] {
            assert!(bad.parse::<GuestArg>().is_err(), "{bad:?}");
        }
    }
}
