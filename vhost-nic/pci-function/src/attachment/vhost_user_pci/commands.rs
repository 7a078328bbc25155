//! Command queue: accesses of the guest to its function.

use log::trace;
use zerocopy::FromBytes;

use crate::function::PciFunction;

use super::message::{COMMAND_QUEUE, Header, Operation};
use super::queue::{Chain, next_chain, return_chain};
use super::stats::{Finding, VhostUserPciStats};
use vhost_daemon::finding::MAX_EVIDENCE;
use vhost_daemon::heartbeat;
use vhost_daemon::vring::{Memory, Vring};

/// Longest access in bytes: far more than any driver copies at a time, and short enough to be served promptly.
const MAX_ACCESS: usize = 64 * 1024;

/// Serves the available commands while `go_on` returns true. The driver polls for answers, so it is not notified.
pub fn serve(
    function: &PciFunction,
    vring: &Vring,
    memory: &Memory,
    stats: &VhostUserPciStats,
    go_on: impl Fn() -> bool,
) {
    while go_on()
        && let Some(chain) = next_chain(vring, memory, COMMAND_QUEUE, stats)
    {
        heartbeat::progress();
        let written = if chain.is_sound() {
            execute(function, &chain, stats)
        } else {
            stats.report(
                Finding::BadChain,
                COMMAND_QUEUE,
                &chain.head().to_be_bytes(),
                "a command whose descriptors loop, break off or point nowhere",
            );
            0
        };
        return_chain(vring, chain, written);
    }
}

/// Executes one command. Returns the number of bytes written to the chain.
fn execute(function: &PciFunction, chain: &Chain, stats: &VhostUserPciStats) -> usize {
    let bytes = chain.read(size_of::<Header>() + MAX_ACCESS);
    let Ok((header, data)) = Header::read_from_prefix(&bytes) else {
        stats.report(Finding::BadCommand, COMMAND_QUEUE, &bytes, "a command without a header");
        return 0;
    };
    trace!("{}: descriptor {}: {header:x?} {data:x?}", stats.guest(), chain.head());
    let size = header.size as usize;
    let operation = match Operation::command(header.op) {
        None => return refuse(chain, size, stats, "unknown command"),
        Some(operation) if !operation.allows(size) => {
            return refuse(chain, size, stats, "access of an invalid length");
        }
        Some(operation) => operation,
    };
    match operation {
        Operation::ConfigRead => {
            stats.counters.config_accesses.increment();
            let mut data = vec![0xff; size];
            function.config_read(header.addr, &mut data);
            return answer(chain, &data, stats);
        }
        Operation::MmioRead => {
            stats.counters.mmio_reads.increment();
            let mut data = vec![0xff; size];
            function.bar_read(header.bar, header.addr, &mut data);
            return answer(chain, &data, stats);
        }
        Operation::ConfigWrite => {
            // The header may claim more data than the message carries.
            let Some(data) = data.get(..size) else {
                return refuse(chain, size, stats, "write without data");
            };
            stats.counters.config_accesses.increment();
            function.config_write(header.addr, data);
        }
        Operation::MmioWrite => {
            let Some(data) = data.get(..size) else {
                return refuse(chain, size, stats, "write without data");
            };
            stats.counters.mmio_writes.increment();
            function.bar_write(header.bar, header.addr, data);
        }
        Operation::MmioMemset => {
            let Some(&byte) = data.first() else {
                return refuse(chain, size, stats, "write without data");
            };
            stats.counters.mmio_writes.increment();
            function.bar_write(header.bar, header.addr, &vec![byte; size]);
        }
    }
    0
}

/// Writes the answer to a read. Returns the number of bytes written.
fn answer(chain: &Chain, data: &[u8], stats: &VhostUserPciStats) -> usize {
    let written = chain.write(data);
    if written < data.len() {
        let what = "a buffer too small for what is read into it";
        stats.report(Finding::ShortBuffer, COMMAND_QUEUE, &chain.read(MAX_EVIDENCE), what);
    }
    written
}

/// Counts an invalid command. A read gets all ones, like an access that no device answers.
fn refuse(chain: &Chain, size: usize, stats: &VhostUserPciStats, what: &str) -> usize {
    stats.report(Finding::BadCommand, COMMAND_QUEUE, &chain.read(MAX_EVIDENCE), what);
    chain.write(&vec![0xff; size.min(MAX_ACCESS)])
}

impl Operation {
    /// Whether an access may be `size` bytes long.
    fn allows(self, size: usize) -> bool {
        match self {
            Self::ConfigRead | Self::ConfigWrite => matches!(size, 1 | 2 | 4 | 8),
            Self::MmioRead | Self::MmioWrite | Self::MmioMemset => (1..=MAX_ACCESS).contains(&size),
        }
    }
}
