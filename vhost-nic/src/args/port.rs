//! The value of `--port`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use vhost_daemon::parse_size;

use super::set;

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

impl PortArg {
    /// The socket that the daemon creates.
    pub fn socket(&self) -> &Path {
        match &self.medium {
            PortMedium::Stream(path) => path,
            PortMedium::Datagram { local, .. } => local,
        }
    }
}

impl FromStr for PortArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut medium, mut remote, mut name, mut queue) = (None, None, None, None);
        for pair in text.split(',') {
            let (key, value) = pair
                .split_once('=')
                .filter(|(_, value)| !value.is_empty())
                .ok_or_else(|| format!("{pair:?} is not KEY=VALUE"))?;
            match key {
                "stream" | "dgram" => set(&mut medium, (key, value), "the medium"),
                "remote" => set(&mut remote, value, key),
                "name" => set(&mut name, value.to_owned(), key),
                "queue" => {
                    let size = parse_size(value).map_err(|error| error.to_string())?;
                    set(&mut queue, size, key)
                }
                _ => Err(format!("{key:?} is none of stream, dgram, remote, name, queue")),
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
            (Some(("dgram", _)), None) => return Err("dgram=PATH needs the peer's socket, remote=PATH".to_owned()),
            (Some(_), Some(_)) => return Err("remote=PATH is for dgram=PATH".to_owned()),
            _ => return Err("a port needs stream=PATH or dgram=PATH".to_owned()),
        };
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
        ] {
            assert!(bad.parse::<PortArg>().is_err(), "{bad:?}");
        }
    }
}
