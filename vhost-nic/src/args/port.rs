//! The value of `--port`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use vhost_daemon::parse_size;
use vhost_nic::external_port::TapPlan;

use super::{parse_switch, set};

const KEYS: [&str; 8] = ["stream", "dgram", "remote", "tap", "create", "offload", "name", "queue"];

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
        let (mut remote, mut create, mut offload) = (None, None, None);
        for pair in text.split(',') {
            let (key, value) = pair
                .split_once('=')
                .filter(|(_, value)| !value.is_empty())
                .ok_or_else(|| format!("{pair:?} is not KEY=VALUE"))?;
            match key {
                "stream" | "dgram" | "tap" => set(&mut medium, (key, value), "the medium"),
                "remote" => set(&mut remote, value, key),
                "create" => parse_switch(value).and_then(|on| set(&mut create, on, key)),
                "offload" => parse_switch(value).and_then(|on| set(&mut offload, on, key)),
                "name" => set(&mut name, value.to_owned(), key),
                "queue" => {
                    let size = parse_size(value).map_err(|error| error.to_string())?;
                    set(&mut queue, size, key)
                }
                _ => Err(format!("{key:?} is none of {}", KEYS.join(", "))),
            }?;
        }
        let (default_name, medium) = match (medium, remote) {
            (Some(("stream", path)), None) => (stem(path), PortMedium::Stream(path.into())),
            (Some(("dgram", path)), Some(remote)) => {
                let medium = PortMedium::Datagram {
                    local: path.into(),
                    remote: remote.into(),
                };
                (stem(path), medium)
            }
            (Some(("tap", device)), None) => {
                let create = create.take().unwrap_or(false);
                let plan = TapPlan {
                    name: device.to_owned(),
                    create,
                    offload: offload.take().unwrap_or(create),
                };
                (device.to_owned(), PortMedium::Tap(plan))
            }
            (Some(("dgram", _)), None) => return Err("dgram=PATH needs the peer's socket, remote=PATH".to_owned()),
            (Some(_), Some(_)) => return Err("remote=PATH is for dgram=PATH".to_owned()),
            (None, _) | (Some(_), None) => return Err("a port needs stream=PATH, dgram=PATH or tap=NAME".to_owned()),
        };
        if create.is_some() || offload.is_some() {
            return Err("create and offload are for tap=NAME".to_owned());
        }
        Ok(Self {
            name: name.unwrap_or(default_name),
            medium,
            queue: queue.unwrap_or(DEFAULT_QUEUE),
        })
    }
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
        ] {
            assert!(bad.parse::<PortArg>().is_err(), "{bad:?}");
        }
    }
}
