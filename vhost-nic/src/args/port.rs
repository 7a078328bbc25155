//! The value of `--port`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use vhost_daemon::parse_size;
use vhost_nic::external_port::{MAX_QUEUE_PAIRS, TapPlan, VNI_LIMIT, VXLAN_PORT, VxlanPlan};

use super::{parse_switch, set};

/// Keys that name a medium.
const MEDIA: [&str; 6] = ["stream", "dgram", "tap", "packet", "vxlan", "vhost-user"];
/// Keys of some media.
const OPTIONS: [&str; 5] = ["remote", "create", "offload", "vni", "queues"];

/// Memory for the frames that wait for a peer.
const DEFAULT_QUEUE: u64 = 64 << 20;

/// Way to the peer of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortMedium {
    /// A listening UNIX stream socket.
    Stream(PathBuf),
    /// A UNIX datagram socket, and that of the peer.
    Datagram {
        /// Socket that the daemon creates.
        local: PathBuf,
        /// Socket of the peer.
        remote: PathBuf,
    },
    /// A TAP device.
    Tap(TapPlan),
    /// A network interface of this name.
    Packet(String),
    /// A tunnel over UDP.
    Vxlan(VxlanPlan),
    /// A listening UNIX stream socket for front-ends of vhost-user-net.
    VhostUser {
        /// Socket that the daemon creates.
        socket: PathBuf,
        /// Pairs of queues.
        pairs: usize,
    },
}

/// A port of the switch whose peer is outside the daemon, as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortArg {
    /// Name, unique among guests and ports.
    pub name: String,
    /// Way to the peer.
    pub medium: PortMedium,
    /// Bytes of memory for the frames that wait for the peer.
    pub queue: u64,
}

impl FromStr for PortArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut medium, mut name, mut queue) = (None, None, None);
        let mut options = Options::new();
        for pair in text.split(',') {
            let (key, value) = pair
                .split_once('=')
                .filter(|(_, value)| !value.is_empty())
                .ok_or_else(|| format!("{pair:?} is not KEY=VALUE"))?;
            match key {
                "name" => set(&mut name, value.to_owned(), key),
                "queue" => {
                    let size = parse_size(value).map_err(|error| error.to_string())?;
                    set(&mut queue, size, key)
                }
                _ if MEDIA.contains(&key) => set(&mut medium, (key, value), "the medium"),
                _ if OPTIONS.contains(&key) => match options.insert(key, value) {
                    None => Ok(()),
                    Some(_) => Err(format!("{key} is given twice")),
                },
                _ => {
                    let keys = [&MEDIA[..], &OPTIONS, &["name", "queue"]].concat();
                    Err(format!("{key:?} is none of {}", keys.join(", ")))
                }
            }?;
        }
        let (key, value) = medium.ok_or_else(|| format!("a port needs one of {}", MEDIA.join(", ")))?;
        let (default_name, medium) = medium_of(key, value, &mut options)?;
        if let Some(option) = options.keys().next() {
            return Err(format!("{option} is not for {key}"));
        }
        Ok(Self {
            name: name.unwrap_or(default_name),
            medium,
            queue: queue.unwrap_or(DEFAULT_QUEUE),
        })
    }
}

/// Values of the keys of media.
type Options<'a> = BTreeMap<&'a str, &'a str>;

/// The medium of a key and its value, and the name of its port. Takes the options that are its own.
fn medium_of(key: &str, value: &str, options: &mut Options<'_>) -> Result<(String, PortMedium), String> {
    let medium = match key {
        "stream" => (stem(value), PortMedium::Stream(value.into())),
        "dgram" => {
            let remote = needed(options, "remote", "the peer's socket, remote=PATH")?;
            let medium = PortMedium::Datagram {
                local: value.into(),
                remote: remote.into(),
            };
            (stem(value), medium)
        }
        "tap" => {
            let create = options.remove("create").map(parse_switch).transpose()?.unwrap_or(false);
            let offload = options.remove("offload").map(parse_switch).transpose()?;
            let plan = TapPlan {
                name: value.to_owned(),
                create,
                offload: offload.unwrap_or(create),
            };
            (value.to_owned(), PortMedium::Tap(plan))
        }
        "vhost-user" => {
            let pairs = options.remove("queues").map(queue_pairs).transpose()?.unwrap_or(1);
            let socket = value.into();
            (stem(value), PortMedium::VhostUser { socket, pairs })
        }
        "packet" => (value.to_owned(), PortMedium::Packet(value.to_owned())),
        _ => {
            let plan = VxlanPlan {
                local: udp_address(value)?,
                remote: udp_address(needed(options, "remote", "the peer, remote=ADDRESS")?)?,
                vni: vni(needed(options, "vni", "vni=NUMBER")?)?,
            };
            (format!("vxlan{}", plan.vni), PortMedium::Vxlan(plan))
        }
    };
    Ok(medium)
}

fn needed<'a>(options: &mut Options<'a>, key: &str, what: &str) -> Result<&'a str, String> {
    options.remove(key).ok_or_else(|| format!("the medium needs {what}"))
}

/// An address with or without a port, which is that of VXLAN then.
fn udp_address(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>();
    let address = with_port.or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, VXLAN_PORT)));
    address.map_err(|_| format!("{text:?} is neither ADDRESS nor ADDRESS:PORT"))
}

fn queue_pairs(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|pairs| (1..=MAX_QUEUE_PAIRS).contains(pairs));
    number.ok_or_else(|| format!("queues is a number from 1 to {MAX_QUEUE_PAIRS}"))
}

fn vni(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number < VNI_LIMIT);
    number.ok_or_else(|| format!("{text:?} is no VNI, a number below {VNI_LIMIT}"))
}

/// Name of a socket's port, as that of its guest would be.
fn stem(path: &str) -> String {
    let path = Path::new(path);
    path.file_stem()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_taken() {
        let stream: PortArg = "stream=/run/b.sock".parse().unwrap();
        let expected = PortArg {
            name: "b".to_owned(),
            medium: PortMedium::Stream("/run/b.sock".into()),
            queue: 64 << 20,
        };
        assert_eq!(stream, expected);
        let datagram: PortArg = "remote=/run/q.sock,queue=1M,dgram=/run/d.sock,name=x".parse().unwrap();
        let expected = PortArg {
            name: "x".to_owned(),
            medium: PortMedium::Datagram {
                local: "/run/d.sock".into(),
                remote: "/run/q.sock".into(),
            },
            queue: 1 << 20,
        };
        assert_eq!(datagram, expected);
        let tap = |text: &str| match text.parse::<PortArg>().unwrap() {
            PortArg {
                name,
                medium: PortMedium::Tap(plan),
                ..
            } => (name, plan.name, plan.create, plan.offload),
            other => panic!("{other:?}"),
        };
        let names = |create, offload| ("tap0".to_owned(), "tap0".to_owned(), create, offload);
        assert_eq!(tap("tap=tap0"), names(false, false));
        assert_eq!(tap("tap=tap0,offload=on"), names(false, true));
        assert_eq!(tap("create=on,tap=tap0"), names(true, true));
        assert_eq!(tap("tap=tap0,create=on,offload=off"), names(true, false));
        let packet: PortArg = "packet=eth1".parse().unwrap();
        assert_eq!(
            (&*packet.name, packet.medium),
            ("eth1", PortMedium::Packet("eth1".to_owned()))
        );
        for (text, pairs) in [
            ("vhost-user=/run/v.sock,queue=2M", 1),
            ("queues=32,queue=2M,vhost-user=/run/v.sock", 32),
        ] {
            let expected = PortArg {
                name: "v".to_owned(),
                medium: PortMedium::VhostUser {
                    socket: "/run/v.sock".into(),
                    pairs,
                },
                queue: 2 << 20,
            };
            assert_eq!(text.parse(), Ok(expected));
        }
        let vxlan = |text: &str| match text.parse::<PortArg>().unwrap() {
            PortArg {
                name,
                medium: PortMedium::Vxlan(VxlanPlan { local, remote, vni }),
                ..
            } => (name, local.to_string(), remote.to_string(), vni),
            other => panic!("{other:?}"),
        };
        let expected = |name: &str, local: &str, remote: &str, vni| (name.to_owned(), local.into(), remote.into(), vni);
        assert_eq!(
            vxlan("vxlan=10.0.0.1,remote=10.0.0.2:4790,vni=16777215"),
            expected("vxlan16777215", "10.0.0.1:4789", "10.0.0.2:4790", 0xff_ffff)
        );
        assert_eq!(
            vxlan("vni=0,remote=fd00::2,name=far,vxlan=[::]:1"),
            expected("far", "[::]:1", "[fd00::2]:4789", 0)
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            "",
            "b.sock",
            "name=b",
            "stream=",
            "stream=a,stream=b",
            "stream=a,dgram=b",
            "stream=a,remote=b",
            "dgram=a",
            "stream=a,queue=much",
            "stream=a,mtu=1500",
            "stream=a,create=on",
            "tap=",
            "tap=a,stream=b",
            "tap=a,remote=b",
            "tap=a,create=yes",
            "tap=a,vni=1",
            "packet=a,offload=on",
            "vhost-user=a,remote=b",
            "vhost-user=a,stream=b",
            "vhost-user=a,queues=0",
            "vhost-user=a,queues=33",
            "stream=a,queues=2",
            "tap=a,offload=on,offload=on",
            "vxlan=10.0.0.1",
            "vxlan=10.0.0.1,remote=10.0.0.2",
            "vxlan=10.0.0.1,vni=1",
            "vxlan=host,remote=10.0.0.2,vni=1",
            "vxlan=10.0.0.1,remote=10.0.0.2:,vni=1",
            "vxlan=10.0.0.1,remote=10.0.0.2,vni=16777216",
            "vxlan=10.0.0.1,remote=10.0.0.2,vni=1,create=on",
        ] {
            assert!(bad.parse::<PortArg>().is_err(), "{bad:?}");
        }
    }
}
