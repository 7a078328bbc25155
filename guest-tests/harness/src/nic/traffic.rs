//! Traffic between two guests by standard tools, over the network that the address belongs to.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::guest::Guest;

const READY: Duration = Duration::from_secs(30);

/// Time allowed beyond the nominal duration of a measurement.
const MARGIN: Duration = Duration::from_secs(60);

/// Next server port. Each server has its own, so that none waits for connections of another to time out.
static NEXT_PORT: AtomicU16 = AtomicU16::new(20000);

/// A client guest, a server guest and an address of the server.
#[derive(Debug, Clone, Copy)]
pub struct Flow<'a> {
    /// The connecting guest.
    pub client: &'a Guest,
    /// The listening guest.
    pub server: &'a Guest,
    /// Address of the server.
    pub to: IpAddr,
}

/// Report of `iperf3`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Iperf {
    /// Received payload, in bits per second.
    pub bits_per_second: f64,
    /// Sent payload bytes.
    pub bytes: u64,
    /// Retransmitted TCP segments.
    pub retransmits: u64,
    /// Sent UDP datagrams.
    pub packets: u64,
    /// Lost UDP datagrams.
    pub lost: u64,
}

impl<'a> Flow<'a> {
    /// Creates a flow from `client` to `server` at the address `to`.
    pub fn new(client: &'a Guest, server: &'a Guest, to: impl Into<IpAddr>) -> Self {
        let to = to.into();
        Self { client, server, to }
    }

    /// Returns a port not yet used by this process.
    pub fn next_port() -> u16 {
        NEXT_PORT.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends `count` echo requests with `size` payload bytes (at least 16, for the time stamp) without fragmentation.
    /// Fails unless all are answered; returns the round-trip times in microseconds.
    pub fn ping(&self, count: u32, size: u32) -> Result<Vec<f64>> {
        let times = self.echoes(count, size)?;
        if times.len() == count as usize {
            Ok(times)
        } else {
            let answered = times.len();
            Err(Error::Agent(format!(
                "{answered} of {count} echo requests were answered"
            )))
        }
    }

    /// The same where datagrams may be lost; returns the times of the requests that were answered.
    pub fn echoes(&self, count: u32, size: u32) -> Result<Vec<f64>> {
        // Without -w, ping waits for the last reply for two round trips only, which is too short on a busy host. With
        // -w, ping sends until `count` replies have arrived; only the first `count` requests matter.
        let script = format!("ping -n -M do -i 0.01 -w 30 -c {count} -s {size} {}", self.to);
        let ping = self.client.shell(&script).timeout(MARGIN);
        let output = ping.run()?.check()?;
        Ok(output
            .stdout
            .lines()
            .filter_map(|line| {
                let number: u32 = line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok()?;
                let milliseconds: f64 = line.split_once("time=")?.1.split(' ').next()?.parse().ok()?;
                (number <= count).then_some(milliseconds * 1000.0)
            })
            .collect())
    }

    /// Runs `iperf3` for `seconds` with additional `options` of the client.
    pub fn iperf(&self, seconds: u32, options: &str) -> Result<Iperf> {
        let port = Self::next_port();
        let server = self
            .server
            .spawn(&format!("exec iperf3 --server --one-off --forceflush --port {port}"))?;
        server.wait_line("listening", READY)?;
        let script = format!(
            "exec iperf3 --json --client {} --port {port} --time {seconds} {options}",
            self.to
        );
        let limit = Duration::from_secs(seconds.into()) + MARGIN;
        let output = self.client.shell(&script).timeout(limit).run()?.check()?;
        server.wait(READY)?.check()?;
        parse(output.text()).ok_or_else(|| Error::Agent(format!("iperf3 printed no valid report: {output}")))
    }

    /// Transfers random bytes in each direction over TCP and compares the SHA-256 of both ends.
    pub fn compare_digests(&self, mebibytes: u32) -> Result<()> {
        for (sender, receiver, push) in [(self.client, self.server, true), (self.server, self.client, false)] {
            let port = Self::next_port();
            sender
                .run(&format!("head -c {mebibytes}M /dev/urandom > /tmp/flow"))?
                .check()?;
            let (listen, connect) = match self.to {
                IpAddr::V4(to) => (format!("TCP4-LISTEN:{port}"), format!("TCP4:{to}:{port}")),
                IpAddr::V6(to) => (format!("TCP6-LISTEN:{port}"), format!("TCP6:[{to}]:{port}")),
            };
            let send = |to: &str| format!("socat -u OPEN:/tmp/flow {to}");
            let receive = |from: &str| format!("socat -u {from} STDOUT | sha256sum");
            // The listening end is the server's in both directions.
            let (listen, connect) = if push {
                (receive(&listen), send(&connect))
            } else {
                (send(&listen), receive(&connect))
            };
            let listening = self.server.spawn(&listen)?;
            let wait = format!("until ss -Hltn 'sport = :{port}' | grep -q .; do sleep 0.05; done");
            self.server.run(&wait)?.check()?;
            let connected = self.client.shell(&connect).timeout(MARGIN * 2).run()?.check()?;
            let listened = listening.wait(MARGIN)?.check()?;
            let expected = sender.run("sha256sum < /tmp/flow; rm /tmp/flow")?.check()?;
            let got = if push { &listened } else { &connected };
            if got.text() != expected.text() {
                return Err(Error::Agent(format!(
                    "{} received {}, but {} sent {}",
                    receiver.name(),
                    got.text(),
                    sender.name(),
                    expected.text()
                )));
            }
        }
        Ok(())
    }
}

fn parse(report: &str) -> Option<Iperf> {
    let report: Value = serde_json::from_str(report).ok()?;
    let end = &report["end"];
    let number = |value: &Value| value.as_u64().or_else(|| value.as_f64().map(|number| number as u64));
    // TCP has a summary per end; UDP has a combined one, and older versions have only that.
    let udp = end["sum"]["packets"].is_u64();
    let received = if udp && end["sum_received"].is_null() {
        &end["sum"]
    } else {
        &end["sum_received"]
    };
    let sent = if udp { &end["sum"] } else { &end["sum_sent"] };
    Some(Iperf {
        bits_per_second: received["bits_per_second"].as_f64()?,
        bytes: number(&sent["bytes"])?,
        retransmits: number(&sent["retransmits"]).unwrap_or(0),
        packets: number(&sent["packets"]).unwrap_or(0),
        lost: number(&end["sum"]["lost_packets"]).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tcp_report_is_read() {
        let report = r#"{"end": {"sum_sent": {"bytes": 1000, "bits_per_second": 9.5, "retransmits": 3},
            "sum_received": {"bytes": 900, "bits_per_second": 8.5}}}"#;
        let iperf = parse(report).unwrap();
        assert_eq!((iperf.bytes, iperf.retransmits, iperf.packets), (1000, 3, 0));
        assert_eq!(iperf.bits_per_second, 8.5);
    }

    #[test]
    fn a_udp_report_is_read() {
        let report = r#"{"end": {"sum": {"bytes": 5000, "bits_per_second": 7.0, "packets": 10, "lost_packets": 2},
            "sum_received": {"bytes": 4000, "bits_per_second": 6.0}}}"#;
        let iperf = parse(report).unwrap();
        assert_eq!((iperf.packets, iperf.lost, iperf.bytes), (10, 2, 5000));
        assert_eq!(iperf.bits_per_second, 6.0);
    }

    #[test]
    fn an_error_report_is_no_measurement() {
        assert_eq!(parse(r#"{"error": "unable to connect"}"#), None);
    }
}
