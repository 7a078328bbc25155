//! Workloads of `smc-tool` between two guests, over TCP or SMC.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guest_harness::{Guest, Job, NicOptions, Testbed};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Limit on the time until a server listens.
pub const READY: Duration = Duration::from_secs(20);
/// Limit on the time of one workload.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Requested transport of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// SMC, which must result in SMC-D.
    SmcD,
    /// SMC, which must result in SMC-R.
    SmcR,
}

impl Transport {
    fn is_smc(self) -> bool {
        self != Self::Tcp
    }

    /// Command prefix that makes an unmodified program use the transport.
    pub fn wrapper(self) -> &'static str {
        match self.is_smc() {
            true => "/host/smc-tool run -- ",
            false => "",
        }
    }

    fn port(self, buffers: Buffers) -> u16 {
        match (self.is_smc(), buffers) {
            (false, _) => 5001,
            (true, Buffers::Default) => 5000,
            (true, Buffers::Large) => 5002,
        }
    }

    fn options(self, buffers: Buffers) -> &'static str {
        match (self.is_smc(), buffers) {
            (true, Buffers::Large) => "--sndbuf 1M --rcvbuf 1M",
            _ => "",
        }
    }

    fn proto(self) -> &'static str {
        match self.is_smc() {
            true => "smc",
            false => "tcp",
        }
    }

    /// The mode the kernel must report.
    fn mode(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::SmcD => "smcd",
            Self::SmcR => "smcr",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::SmcD => "SMC-D",
            Self::SmcR => "SMC-R",
        })
    }
}

/// Size of the receive buffers, which are DMBs of SMC-D and remote memory buffers of SMC-R.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffers {
    /// The kernel's defaults: 64 KiB for SMC (net.smc.rmem), autotuned for TCP.
    Default,
    /// 1 MiB for SMC, the maximum; unchanged for TCP.
    Large,
}

/// Report of `rtt`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct RoundTrips {
    pub min_us: f64,
    pub p50_us: f64,
}

/// Report of `bulk`.
#[derive(Clone, Debug, Deserialize)]
pub struct Bulk {
    pub megabytes_per_second: f64,
    pub digest_to: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Messages {
    messages_per_second: f64,
}

/// Report of `connections`.
#[derive(Clone, Debug, Deserialize)]
pub struct Connections {
    pub connections: usize,
    pub modes: Modes,
}

/// Sockets by mode, from SMC_DIAG.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Modes {
    pub smcd: usize,
    pub smcr: usize,
    pub tcp: usize,
    pub unknown: usize,
}

/// SMC counters of a guest's kernel (SMC_NETLINK_GET_STATS).
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Counted {
    pub smcd_v2: u64,
    pub smcr: u64,
    pub fallbacks: u64,
    pub handshake_errors: u64,
}

#[derive(Debug, Deserialize)]
struct Statistics {
    summary: Counted,
}

/// A client and a server in two guests.
pub struct Pair<'a> {
    pub client: &'a Guest,
    pub server: &'a Guest,
    /// The server's.
    address: Ipv4Addr,
    /// Required of SMC connections: SMC-D or SMC-R.
    smc: Transport,
    _servers: Vec<Job>,
}

impl<'a> Pair<'a> {
    /// Starts the servers in guest 1 for guest 0, for SMC-D and for TCP over virtio-net.
    pub fn over_ism(testbed: &'a Testbed) -> Result<Self> {
        let [client, server] = [0, 1].map(|index| testbed.guest(index));
        Self::start([client, server], server.addr(0), Transport::SmcD)
    }

    /// Sets up SMC-R in two guests and starts the servers, for SMC-R and for TCP over the NIC.
    pub fn over_nic([client, server]: [&'a Guest; 2]) -> Result<Self> {
        client.smc_r_up()?;
        server.smc_r_up()?;
        Self::start([client, server], NicOptions::address(server.index()), Transport::SmcR)
    }

    fn start([client, server]: [&'a Guest; 2], address: Ipv4Addr, smc: Transport) -> Result<Self> {
        let kinds = [
            (Transport::Tcp, Buffers::Default),
            (smc, Buffers::Default),
            (smc, Buffers::Large),
        ];
        let servers = kinds.map(|(transport, buffers)| {
            let (port, proto, options) = (transport.port(buffers), transport.proto(), transport.options(buffers));
            let job = server.spawn(&format!(
                "exec /host/smc-tool serve --port {port} --proto {proto} {options}"
            ))?;
            job.wait_line("ready", READY)?;
            anyhow::Ok(job)
        });
        let pair = Self {
            client,
            server,
            address,
            smc,
            _servers: servers.into_iter().collect::<Result<_>>()?,
        };
        // First contact must be alone: parallel ones race in SMC, and a decline of one ends the link group of all.
        pair.round_trips(smc, 64, 10)?;
        Ok(pair)
    }

    /// TCP and SMC, in the order of the tables.
    pub fn transports(&self) -> [Transport; 2] {
        [Transport::Tcp, self.smc]
    }

    /// Runs a workload and returns its report; fails if the connection has another mode.
    pub fn run<T: DeserializeOwned>(&self, transport: Transport, buffers: Buffers, workload: &str) -> Result<T> {
        let call = Call {
            client: self.client,
            to: self.client_to(transport.port(buffers)),
            proto: transport.proto(),
            mode: transport.mode(),
        };
        call.run(&format!("{workload} {}", transport.options(buffers)))
    }

    /// Address and port of the server from the client's side.
    pub fn client_to(&self, port: u16) -> String {
        format!("{}:{port}", self.address)
    }

    /// Times round trips of `size` bytes, every byte compared.
    pub fn round_trips(&self, transport: Transport, size: usize, count: u32) -> Result<RoundTrips> {
        let workload = format!("rtt --size {size} --count {count}");
        self.run(transport, Buffers::Default, &workload)
    }

    /// Transfers `bytes` to the server in writes of 64 KiB; `check` is `hash` or `none`.
    pub fn bulk(&self, transport: Transport, buffers: Buffers, bytes: &str, check: &str) -> Result<Bulk> {
        let workload = format!("bulk --bytes {bytes} --write-size 64K --direction to --check {check}");
        let bulk: Bulk = self.run(transport, buffers, &workload)?;
        ensure!(
            check != "hash" || bulk.digest_to.is_some(),
            "the bulk transfer was not hashed"
        );
        Ok(bulk)
    }

    /// Measures one-way messages per second.
    pub fn messages(&self, transport: Transport, buffers: Buffers, size: usize, seconds: u32) -> Result<f64> {
        let workload = format!("messages --size {size} --seconds {seconds}");
        let messages: Messages = self.run(transport, buffers, &workload)?;
        Ok(messages.messages_per_second)
    }

    /// Opens `count` connections at once, transfers verified data over each and reports the mode of each.
    pub fn connections(&self, count: usize) -> Result<Connections> {
        let workload = format!("connections --count {count} --bytes-each 64K");
        self.run(self.smc, Buffers::Default, &workload)
    }

    /// Reads the SMC counters of both guests.
    pub fn counted(&self) -> Result<[Counted; 2]> {
        Ok([counted(self.client)?, counted(self.server)?])
    }
}

/// Client side of a workload.
pub struct Call<'a> {
    /// The connecting guest.
    pub client: &'a Guest,
    /// Address and port of the server.
    pub to: String,
    /// Socket protocol: `tcp` or `smc`.
    pub proto: &'static str,
    /// Required mode: `tcp`, `smcd` or `smcr`.
    pub mode: &'static str,
}

impl Call<'_> {
    /// Runs the workload and returns its report; fails if the connection has another mode.
    pub fn run<T: DeserializeOwned>(&self, workload: &str) -> Result<T> {
        let Self { to, proto, mode, .. } = self;
        let command = format!("/host/smc-tool --json {workload} --to {to} --proto {proto} --expect-mode {mode}");
        let output = self.client.shell(&command).timeout(TIMEOUT).run()?.check()?;
        serde_json::from_str(output.text()).with_context(|| format!("`{workload}` printed no valid report"))
    }
}

/// Reads the SMC counters of a guest.
pub fn counted(guest: &Guest) -> Result<Counted> {
    let output = guest.run("/host/smc-tool --json stats")?.check()?;
    Ok(serde_json::from_str::<Statistics>(output.text())?.summary)
}
