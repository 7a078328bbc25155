//! Cost of guests and DMBs to the daemon: processor time of a request as their number grows, and memory.
//!
//! Time is that of all threads of the daemon's process, so that neither the guest's part nor the wake-ups between the
//! two count. `cargo bench -p vhost-ism --bench scale`; `UPDATE=1` in the environment writes the rows to
//! docs/ism-scale.tsv.

#[allow(unused_imports, reason = "the tests use them")]
#[path = "../tests/common/mod.rs"]
mod common;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use common::*;
use tempfile::TempDir;
use vhost_daemon::testing::{Daemon, Possessions, Program, await_socket};
use vhost_ism::abi::Token;

const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_vhost-ism"));

/// Bytes of each DMB.
const SIZE: u64 = 4096;
/// Requests of each kind in a row, of which the mean counts.
const ROW: usize = 64;
/// Rows, of which the median counts.
const ROWS: usize = 9;
/// DMBs of a guest beside which requests are made; with a row the most that a guest may have.
const DMBS: [usize; 7] = [0, 4, 16, 64, 256, 1024, 4096 - ROW];
/// Guests beside which requests are made.
const GUESTS: [usize; 6] = [2, 4, 8, 16, 32, 64];
/// DMBs of each pair of these guests.
const DMBS_OF_PAIR: usize = 16;
/// DMBs of each of 32 pairs at the end: the most that a guest may own and attach.
const MANY: usize = 4096;
const REQUESTS: [&str; 4] = ["ALLOC", "ATTACH", "DETACH by the peer", "DETACH by the owner"];

/// The daemon, and its guests so far.
struct Host {
    daemon: Daemon,
    sockets: Vec<PathBuf>,
    guests: Vec<TestGuest>,
    _directory: TempDir,
}

impl Host {
    fn start(guests: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sockets: Vec<PathBuf> = (0..guests)
            .map(|number| directory.path().join(format!("{number}.sock")))
            .collect();
        let mut command = PROGRAM.command();
        sockets.iter().for_each(|socket| {
            command.arg("--socket-path").arg(socket);
        });
        let daemon = Daemon::start(&mut command);
        sockets.iter().for_each(|socket| await_socket(socket));
        Self {
            daemon,
            sockets,
            guests: Vec::new(),
            _directory: directory,
        }
    }

    fn proc(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.daemon.pid().as_raw_nonzero()))
    }

    /// Boots guests until there are `count`.
    fn boot(&mut self, count: usize) {
        while self.guests.len() < count {
            let mut guest = TestGuest::connect(&self.sockets[self.guests.len()], Options::default());
            guest.start();
            self.guests.push(guest);
        }
    }

    /// Processor time of all threads in nanoseconds.
    fn busy(&self) -> u64 {
        let threads = fs::read_dir(self.proc().join("task")).unwrap();
        let time = |thread: fs::DirEntry| {
            let statistics = fs::read_to_string(thread.path().join("schedstat")).unwrap();
            statistics.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        threads.map(|thread| time(thread.unwrap())).sum()
    }

    /// Memory of its own in KiB.
    fn memory(&self) -> u64 {
        let rollup = fs::read_to_string(self.proc().join("smaps_rollup")).unwrap();
        let private = rollup.lines().filter(|line| line.starts_with("Private_"));
        private
            .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// Makes DMBs of guest `owner` for guest `peer`, attached there.
    fn hold(&mut self, [owner, peer]: [usize; 2], count: usize) {
        let gid = self.guests[peer].gid();
        for _ in 0..count {
            let dmb = self.guests[owner].alloc_for_peer(gid, SIZE).unwrap();
            self.guests[peer].attach(dmb.token).unwrap();
        }
    }

    /// Mean processor time of each request in microseconds, of the first guest with the second as its peer.
    fn row(&mut self) -> [f64; REQUESTS.len()] {
        let gid = self.guests[1].gid();
        let mut tokens: Vec<Token> = Vec::new();
        let mut begin = self.busy();
        let mut lap = |host: &Self| {
            let end = host.busy();
            let time = (end - std::mem::replace(&mut begin, end)) as f64;
            time / ROW as f64 / 1000.0
        };
        for _ in 0..ROW {
            tokens.push(self.guests[0].alloc_for_peer(gid, SIZE).unwrap().token);
        }
        let alloc = lap(self);
        for token in &tokens {
            self.guests[1].attach(*token).unwrap();
        }
        let attach = lap(self);
        let mut detach = |guest: usize| {
            for token in &tokens {
                self.guests[guest].detach(*token).unwrap();
            }
            lap(self)
        };
        [alloc, attach, detach(1), detach(0)]
    }

    /// The medians of some rows.
    fn times(&mut self) -> [f64; REQUESTS.len()] {
        let rows: Vec<_> = (0..ROWS).map(|_| self.row()).collect();
        std::array::from_fn(|request| {
            let mut times: Vec<f64> = rows.iter().map(|row| row[request]).collect();
            times.sort_by(f64::total_cmp);
            times[ROWS / 2]
        })
    }
}

/// Rows of the table.
struct Table(String);

impl Table {
    fn new() -> Self {
        Self("beside\tcount\twhat\tvalue\n".to_owned())
    }

    fn add(&mut self, beside: &str, count: usize, what: &str, value: f64) {
        println!("{count:>6} {beside:<18} {what:<30} {value:>10.2}");
        writeln!(self.0, "{beside}\t{count}\t{what}\t{value:.2}").unwrap();
    }

    fn add_times(&mut self, beside: &str, count: usize, times: [f64; REQUESTS.len()]) {
        for (request, time) in REQUESTS.iter().zip(times) {
            self.add(beside, count, &format!("{request}, us"), time);
        }
    }
}

fn beside_dmbs(table: &mut Table, counts: &[usize]) {
    let mut host = Host::start(2);
    host.boot(2);
    // The first row pays for what comes once.
    host.row();
    let mut held = 0;
    for &count in counts {
        host.hold([0, 1], count - held);
        held = count;
        let times = host.times();
        table.add_times("DMBs", count, times);
    }
}

fn beside_guests(table: &mut Table, counts: &[usize]) {
    let most = counts.last().copied().unwrap_or_default();
    let mut host = Host::start(most);
    let before = host.memory();
    for &count in counts {
        let first = host.guests.len();
        host.boot(count);
        let (memory, threads) = (host.memory(), Possessions::of(host.daemon.pid()).threads);
        table.add("guests", count, "threads", threads as f64);
        // Of the first guests, what their DMBs take is in it.
        if first == 0 {
            let each = (memory - before) as f64 / count as f64;
            table.add("guests", count, "memory of an idle guest, KiB", each);
        }
        for pair in (first..count).step_by(2) {
            host.hold([pair, pair + 1], DMBS_OF_PAIR);
        }
        if first == 0 {
            host.row();
        }
        let times = host.times();
        table.add_times("guests", count, times);
    }
}

/// Memory of guests that do nothing, and of DMBs of all of them.
fn memory(table: &mut Table, guests: usize, dmbs: usize) {
    let mut host = Host::start(guests);
    let empty = host.memory();
    host.boot(guests);
    let idle = host.memory();
    let of_guest = (idle - empty) as f64 / guests as f64;
    table.add("guests", guests, "memory of an idle guest, KiB", of_guest);
    // Each guest owns or has attached as many as it may.
    let begin = host.busy();
    for pair in (0..guests).step_by(2) {
        host.hold([pair, pair + 1], dmbs);
    }
    let all = guests / 2 * dmbs;
    let time = (host.busy() - begin) as f64 / all as f64 / 1000.0;
    table.add("DMBs of all pairs", all, "ALLOC and ATTACH, us", time);
    let of_dmb = (host.memory() - idle) as f64 * 1024.0 / all as f64;
    table.add("DMBs of all pairs", all, "memory of a DMB, bytes", of_dmb);
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    if has("--list") {
        // A test runner lists the tests.
        return;
    }
    let mut table = Table::new();
    if has("--test") {
        // `cargo test --benches`: only check that it runs.
        beside_dmbs(&mut table, &[0, 4]);
        beside_guests(&mut table, &[2, 4]);
        memory(&mut table, 2, 4);
        return;
    }
    beside_dmbs(&mut table, &DMBS);
    beside_guests(&mut table, &GUESTS);
    memory(&mut table, 64, MANY);
    if std::env::var_os("UPDATE").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ism-scale.tsv");
        fs::write(path, table.0).unwrap();
    }
}
