//! Unmodified programs over SMC: nginx in one guest, wrk in the other.

use std::time::Duration;

use anyhow::{Context, Result};
use guest_harness::Job;

use crate::workload::{Pair, Transport};

const READY: Duration = Duration::from_secs(20);
const SMALL: usize = 64;
const LARGE: usize = 256 << 10;

/// Two nginx servers, one with TCP sockets and one with SMC sockets.
pub struct Web<'a> {
    pair: &'a Pair<'a>,
    _servers: Vec<Job>,
}

fn port(transport: Transport) -> u16 {
    match transport {
        Transport::Tcp => 8081,
        Transport::SmcD | Transport::SmcR => 8080,
    }
}

impl<'a> Web<'a> {
    /// Starts both servers.
    pub fn start(pair: &'a Pair<'a>) -> Result<Self> {
        let files = format!(
            "mkdir -p /tmp/www /var/log/nginx && cd /tmp/www && head -c {SMALL} /dev/urandom > small && \
             head -c {LARGE} /dev/urandom > large"
        );
        pair.server.run(&files)?.check()?;
        let servers = pair.transports().map(|transport| {
            let port = port(transport);
            let config = format!(
                "daemon off; master_process off; pid /run/nginx-{port}.pid; error_log stderr; \
                 events {{ worker_connections 256; }} http {{ access_log off; sendfile on; keepalive_requests 1000000; \
                 server {{ listen {port}; root /tmp/www; }} }}"
            );
            let path = format!("/tmp/nginx-{port}.conf");
            pair.server.put_bytes(config.as_bytes(), &path, 0o644)?;
            let job = pair
                .server
                .spawn(&format!("exec {}nginx -c {path} 2>&1", transport.wrapper()))?;
            // Both listeners are in the TCP socket table, as an SMC socket contains a TCP socket.
            let listening = format!(
                "for i in $(seq 100); do ss -ltnH 'sport = :{port}' | grep -q . && exit 0; sleep 0.1; done; exit 1"
            );
            pair.server
                .shell(&listening)
                .timeout(READY)
                .run()?
                .check()
                .context("nginx does not listen")?;
            anyhow::Ok(job)
        });
        Ok(Self {
            pair,
            _servers: servers.into_iter().collect::<Result<_>>()?,
        })
    }

    /// Requests a file for `seconds`; returns requests per second.
    pub fn measure(&self, transport: Transport, file: &str, seconds: u32) -> Result<f64> {
        let url = format!("http://{}/{file}", self.pair.client_to(port(transport)));
        let command = format!("{}wrk -t 1 -c 4 -d {seconds}s {url}", transport.wrapper());
        let output = self.pair.client.run(&command)?.check()?;
        let requests = output
            .stdout
            .lines()
            .find_map(|line| line.trim().strip_prefix("Requests/sec:"))
            .and_then(|number| number.trim().parse::<f64>().ok())
            .with_context(|| format!("wrk printed no rate:\n{}", output.stdout))?;
        anyhow::ensure!(
            !output.stdout.contains("Non-2xx"),
            "nginx refused requests:\n{}",
            output.stdout
        );
        Ok(requests)
    }
}

/// Converts requests per second for the large file to MB/s.
pub fn large_megabytes(requests: f64) -> f64 {
    requests * LARGE as f64 / 1e6
}
