//! The command line.

mod output;
mod state;
mod table;

use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use smc_tool::bar_scan::{BarScanOptions, bar_scan};
use smc_tool::client::{
    BulkOptions, ConnectionsOptions, HoldOptions, LoadOptions, MessagesOptions, RttOptions, SpliceOptions, bulk,
    connections, hold, load, messages, rtt, splice,
};
use smc_tool::data::Pattern;
use smc_tool::netlink::eid::Ueid;
use smc_tool::netlink::pnetid::Pnetid;
use smc_tool::preload;
use smc_tool::server::{ServeOptions, Server};
use smc_tool::stream::ConnectionReport;

use output::Format;

/// SMC inside a guest: the kernel's SMC state, and workloads that verify every byte.
///
/// Exit codes: 0 success, 1 failure, 2 wrong data, 3 a connection has the wrong mode.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// User-defined enterprise IDs; hosts need a common one for SMC version 2
    #[command(subcommand)]
    Ueid(UeidCommand),
    /// The system enterprise ID (s390x only)
    #[command(subcommand)]
    Seid(SeidCommand),
    /// Names of physical networks; SMC-R adds a link over a second device of the same network
    #[command(subcommand)]
    Pnetid(PnetidCommand),
    /// SMC capabilities of this host
    Info,
    /// SMC and dibs devices
    Devices,
    /// Link groups
    Linkgroups,
    /// SMC sockets with mode, fallback reason and buffers
    Sockets {
        /// Omit listening and unconnected sockets
        #[arg(long)]
        connections: bool,
    },
    /// Counters: connections by kind, fallbacks, handshake errors, bytes, buffers
    Stats,
    /// Serve all workloads
    Serve(ServeOptions),
    /// Measure round-trip times
    Rtt(RttOptions),
    /// Transfer bulk data in one direction or both
    Bulk(BulkOptions),
    /// Measure the rate of small messages in one direction
    Messages(MessagesOptions),
    /// Open many simultaneous connections; prints JSON
    Connections(ConnectionsOptions),
    /// Transfer data by splice and sendfile
    Splice(SpliceOptions),
    /// Hold an idle connection and report its end
    Hold(HoldOptions),
    /// Transfer verified data both ways until something ends it
    Load(LoadOptions),
    /// Run a program with SMC sockets in place of its TCP sockets
    Run {
        /// Program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Search a whole PCI BAR for a pattern; prints JSON
    BarScan(BarScanOptions),
    /// Print bytes of a workload's data in hexadecimal, to search for with bar-scan
    Pattern(PatternOptions),
}

#[derive(Debug, Subcommand)]
enum PnetidCommand {
    /// Say that a network interface, or port 1 of an RDMA device, is on a network
    Add {
        /// Name of the network
        name: Pnetid,
        /// Name of the network interface
        #[arg(long, required_unless_present = "device", conflicts_with = "device")]
        interface: Option<String>,
        /// Name of the RDMA device
        #[arg(long)]
        device: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct PatternOptions {
    /// Seed of the workload; connection I of `connections` adds 1000 I, plus 1 in the second round
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Data from server to client instead of client to server
    #[arg(long)]
    from: bool,
    /// Offset of the first byte
    #[arg(long, default_value = "0", value_parser = smc_tool::byte_size::parse)]
    offset: u64,
    /// Number of bytes
    #[arg(long, default_value = "16", value_parser = smc_tool::byte_size::parse_block)]
    bytes: usize,
}

impl PatternOptions {
    fn text(&self) -> String {
        let to_server = Pattern::new(self.seed);
        let pattern = if self.from { to_server.reversed() } else { to_server };
        let mut bytes = vec![0; self.bytes];
        pattern.fill(self.offset, &mut bytes);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n"
    }
}

#[derive(Debug, Subcommand)]
enum UeidCommand {
    /// Add a UEID; an existing one is not an error
    Add {
        /// UEID: 1 to 32 characters A-Z, 0-9, `.`, `-`
        name: Ueid,
    },
    /// Remove a UEID
    Remove {
        /// UEID
        name: Ueid,
    },
    /// Remove all UEIDs
    Flush,
    /// List all UEIDs
    List,
}

#[derive(Debug, Subcommand)]
enum SeidCommand {
    /// Show the SEID
    Show,
    /// Offer the SEID to peers
    Enable,
    /// Stop offering the SEID
    Disable,
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let format = if arguments.json { Format::Json } else { Format::Text };
    match arguments.command {
        Command::Ueid(command) => ueid(command, format),
        Command::Seid(command) => seid(command, format),
        Command::Pnetid(PnetidCommand::Add {
            name,
            interface,
            device,
        }) => state::add_pnetid(&name, interface.as_deref(), device.as_deref()),
        Command::Info => state::info(format),
        Command::Devices => state::devices(format),
        Command::Linkgroups => state::link_groups(format),
        Command::Sockets { connections } => state::sockets(format, connections),
        Command::Stats => state::stats(format),
        Command::Serve(options) => serve(&options, format),
        Command::Rtt(options) => output::report(format, &rtt(&options)?),
        Command::Bulk(options) => output::report(format, &bulk(&options)?),
        Command::Messages(options) => output::report(format, &messages(&options)?),
        Command::Connections(options) => output::report(Format::Json, &connections(&options)?),
        Command::Splice(options) => output::report(format, &splice(&options)?),
        Command::Hold(options) => {
            let report = hold(&options, ready)?;
            output::report(format, &report)?;
            if report.end == "timeout" {
                bail!("the connection did not end in {} s", options.limit);
            }
            Ok(())
        }
        Command::Load(options) => {
            let report = load(&options, ready)?;
            output::report(format, &report)?;
            if let (false, Some(error)) = (report.is_planned(), &report.error) {
                bail!("{error}");
            }
            Ok(())
        }
        Command::Run { command } => match command.split_first() {
            Some((program, arguments)) => Err(preload::run(program, arguments).into()),
            None => bail!("no program"),
        },
        Command::BarScan(options) => output::report(Format::Json, &bar_scan(&options)?),
        Command::Pattern(options) => output::print(&options.text()),
    }
}

/// Reports that a long-running client is connected.
fn ready(connection: &ConnectionReport) {
    let mode = connection
        .mode
        .map_or_else(|| "unknown".to_owned(), |mode| format!("{mode:?}").to_lowercase());
    // The reader may be gone.
    let _ = writeln!(io::stdout(), "ready {mode}");
}

fn ueid(command: UeidCommand, format: Format) -> anyhow::Result<()> {
    match command {
        UeidCommand::Add { name } => state::add_ueid(&name),
        UeidCommand::Remove { name } => state::remove_ueid(&name),
        UeidCommand::Flush => state::flush_ueids(),
        UeidCommand::List => state::ueids(format),
    }
}

fn seid(command: SeidCommand, format: Format) -> anyhow::Result<()> {
    match command {
        SeidCommand::Show => state::seid(format),
        SeidCommand::Enable => state::set_seid(true),
        SeidCommand::Disable => state::set_seid(false),
    }
}

fn serve(options: &ServeOptions, format: Format) -> anyhow::Result<()> {
    let server = Arc::new(Server::new(options)?);
    server.end_on_signals()?;
    let addresses: Vec<String> = server.addresses().iter().map(ToString::to_string).collect();
    writeln!(io::stdout(), "ready {}", addresses.join(" ")).context("standard output")?;
    output::report(format, &server.run()?)
}
