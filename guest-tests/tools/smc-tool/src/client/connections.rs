//! Many simultaneous connections, all of which transfer verified data, and their modes while they are open.

use std::collections::{BTreeMap, HashMap};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::WorkloadError;
use super::exchange::{begin, both_ways, finish};
use crate::data::Check;
use crate::fallback_reason::FallbackReason;
use crate::netlink::sockets::{self, Mode, SmcSocket};
use crate::stream::{ConnectOptions, Protocol, Stop, inode, open};
use crate::wire::{Request, Workload};

/// Stack size of a thread; each connection has two.
const STACK: usize = 64 * 1024;

/// Size of one read or write in bytes.
const BLOCK: usize = 16 * 1024;

/// Options of the connections.
#[derive(Debug, Clone, clap::Args)]
pub struct ConnectionsOptions {
    /// Connection
    #[command(flatten)]
    pub connect: ConnectOptions,
    /// Number of connections
    #[arg(long, default_value_t = 200)]
    pub count: usize,
    /// Number of connections established in parallel
    #[arg(long, default_value_t = 8)]
    pub open_parallel: usize,
    /// Bytes in each direction on each connection (K, M)
    #[arg(long, default_value = "64K", value_parser = crate::byte_size::parse)]
    pub bytes_each: u64,
    /// Seconds to stay open after the check of the modes; then each connection transfers data once more
    #[arg(long, default_value_t = 0)]
    pub hold: u32,
    /// Report each connection, not only the counts
    #[arg(long)]
    pub each: bool,
}

/// Number of connections by mode.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ModeCounts {
    /// SMC-D.
    pub smcd: usize,
    /// SMC-R.
    pub smcr: usize,
    /// TCP, requested or after a fallback.
    pub tcp: usize,
    /// Not in the kernel's list, or a mode unknown to this program.
    pub unknown: usize,
}

/// Result for all connections.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectionsReport {
    /// Requested protocol.
    pub proto: Protocol,
    /// Number of simultaneous connections.
    pub connections: usize,
    /// Bytes transferred and verified in each direction on each connection per round.
    pub bytes_each: u64,
    /// Number of rounds of transfer.
    pub rounds: u32,
    /// Seconds to open all connections.
    pub open_seconds: f64,
    /// Seconds of the first round on all connections simultaneously.
    pub exchange_seconds: f64,
    /// Connections by mode.
    pub modes: ModeCounts,
    /// Connections that fell back to TCP.
    pub fallbacks: usize,
    /// Number of fallbacks by reason.
    pub fallback_reasons: BTreeMap<String, usize>,
    /// Number of connections by link group ID.
    pub link_groups: BTreeMap<u32, usize>,
    /// The sockets, if requested.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<SmcSocket>,
}

/// Opens the connections and transfers data on all of them.
///
/// # Errors
///
/// Fails when a connection fails, data differs, or a mode is wrong.
pub fn connections(options: &ConnectionsOptions) -> Result<ConnectionsReport, WorkloadError> {
    let start = Instant::now();
    let streams = open_all(options)?;
    let open_seconds = start.elapsed().as_secs_f64();
    let start = Instant::now();
    exchange_all(&streams, options, 0)?;
    let exchange_seconds = start.elapsed().as_secs_f64();
    let found = match options.connect.proto {
        Protocol::Smc => own_sockets(&streams)?,
        Protocol::Tcp => Vec::new(),
    };
    let mut report = ConnectionsReport {
        proto: options.connect.proto,
        connections: streams.len(),
        bytes_each: options.bytes_each,
        rounds: 1,
        open_seconds,
        exchange_seconds,
        modes: count_modes(options.connect.proto, streams.len(), &found),
        fallbacks: found.iter().filter(|socket| socket.mode == Mode::Tcp).count(),
        fallback_reasons: count(found.iter().filter_map(reason)),
        link_groups: count(found.iter().filter_map(|socket| socket.dmb.map(|dmb| dmb.link_group))),
        sockets: Vec::new(),
    };
    check_modes(options, &report, &found)?;
    if options.each {
        report.sockets = found;
    }
    if options.hold > 0 {
        thread::sleep(Duration::from_secs(options.hold.into()));
        exchange_all(&streams, options, 1)?;
        report.rounds = 2;
    }
    Ok(report)
}

/// Runs `step` for each index in up to `threads` threads.
fn in_threads<T: Send>(
    count: usize,
    threads: usize,
    step: impl Fn(usize) -> Result<T, WorkloadError> + Sync,
) -> Result<Vec<T>, WorkloadError> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(count));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            let result = step(index);
            if result.is_err() {
                // The remaining indices need not start.
                next.store(count, Ordering::Relaxed);
            }
            if let Ok(mut results) = results.lock() {
                results.push((index, result));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            thread::Builder::new()
                .stack_size(STACK)
                .spawn_scoped(scope, work)
                .map_err(WorkloadError::system("start a thread"))?;
        }
        Ok::<(), WorkloadError>(())
    })?;
    let mut results = results
        .into_inner()
        .map_err(|_| WorkloadError::Options("a thread panicked"))?;
    results.sort_by_key(|(index, _)| *index);
    let results: Vec<T> = results
        .into_iter()
        .map(|(index, result)| {
            result.map_err(|error| WorkloadError::OneOfMany {
                index,
                count,
                error: Box::new(error),
            })
        })
        .collect::<Result<_, _>>()?;
    if results.len() == count {
        Ok(results)
    } else {
        Err(WorkloadError::Options("a thread panicked"))
    }
}

fn open_all(options: &ConnectionsOptions) -> Result<Vec<TcpStream>, WorkloadError> {
    in_threads(options.count, options.open_parallel.max(1), |_| {
        Ok(open(&options.connect)?)
    })
}

fn exchange_all(streams: &[TcpStream], options: &ConnectionsOptions, round: u64) -> Result<(), WorkloadError> {
    let exchange = |index: usize| {
        let request = Request {
            workload: Workload::Duplex,
            check: Check::Pattern,
            block: BLOCK,
            total: options.bytes_each,
            // Data of one connection must differ from that of any other.
            seed: options.connect.seed.wrapping_add(1000 * index as u64 + round),
            timeout_ms: options.connect.timeout_ms(),
        };
        let stream = &streams[index];
        begin(stream, &request)?;
        both_ways(stream, &request, [&Stop::default(), &Stop::default()], STACK)?;
        finish(stream, options.bytes_each).map(drop)
    };
    in_threads(streams.len(), streams.len(), exchange).map(drop)
}

/// Looks these sockets up in the kernel's list.
fn own_sockets(streams: &[TcpStream]) -> Result<Vec<SmcSocket>, WorkloadError> {
    let mut by_inode: HashMap<u64, SmcSocket> = sockets::list()?
        .into_iter()
        .map(|socket| (socket.inode, socket))
        .collect();
    let mut found = Vec::with_capacity(streams.len());
    for stream in streams {
        let inode = inode(stream).map_err(WorkloadError::system("get the inode of a socket"))?;
        let port = stream
            .local_addr()
            .map_err(WorkloadError::system("get the port of a socket"))?
            .port();
        found.extend(by_inode.remove(&inode).filter(|socket| socket.local_port == port));
    }
    Ok(found)
}

fn count_modes(proto: Protocol, total: usize, found: &[SmcSocket]) -> ModeCounts {
    if proto == Protocol::Tcp {
        return ModeCounts {
            tcp: total,
            ..Default::default()
        };
    }
    let with = |mode: Mode| found.iter().filter(|socket| socket.mode == mode).count();
    let [smcd, smcr, tcp] = [with(Mode::Smcd), with(Mode::Smcr), with(Mode::Tcp)];
    ModeCounts {
        smcd,
        smcr,
        tcp,
        unknown: total - smcd - smcr - tcp,
    }
}

fn count<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, usize> {
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    counts
}

fn reason(socket: &SmcSocket) -> Option<String> {
    let name = |reason: FallbackReason| reason.name().map_or_else(|| reason.to_string(), str::to_owned);
    (socket.mode == Mode::Tcp).then(|| match socket.peer_diagnosis {
        FallbackReason(0) => name(socket.fallback_reason),
        diagnosis => format!("{}/{}", name(socket.fallback_reason), name(diagnosis)),
    })
}

/// Checks that every connection is listed and has the expected mode.
fn check_modes(
    options: &ConnectionsOptions,
    report: &ConnectionsReport,
    found: &[SmcSocket],
) -> Result<(), WorkloadError> {
    let Some(expected) = options.connect.expect_mode else {
        return Ok(());
    };
    if options.connect.proto == Protocol::Tcp {
        return Ok(expected.check(Mode::Tcp, FallbackReason(0), FallbackReason(0))?);
    }
    if report.modes.unknown > 0 {
        return Err(crate::stream::ConnectError::NotListed.into());
    }
    for (index, socket) in found.iter().enumerate() {
        expected
            .check(socket.mode, socket.fallback_reason, socket.peer_diagnosis)
            .map_err(|error| WorkloadError::OneOfMany {
                index,
                count: found.len(),
                error: Box::new(error.into()),
            })?;
    }
    Ok(())
}
