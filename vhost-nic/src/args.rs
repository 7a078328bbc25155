//! Command-line options.

mod guest;
mod port;

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{ArgGroup, Parser, Subcommand};
use vhost_daemon::{CommonArgs, CtlArgs, ReplayArgs, Shell, TopArgs, TraceArgs, parse_size};
use vhost_nic::frame::mac::Mac;
use vhost_nic::hca::nic_finding::Finding;
use vhost_nic::pci::Identity;

use crate::control_command::NicCommand;

pub use guest::{Attach, GuestArg, Numbers, Socket};
pub use port::{PortArg, PortMedium};

/// First of the default MAC addresses; the others count up from it. Locally administered, in the range that QEMU's
/// begin with.
const FIRST_MAC: Mac = Mac([0x52, 0x54, 0x00, 0x00, 0xc5, 0x01]);
/// One vector for events and seven for completions, enough for the channels of an ordinary guest. User Mode Linux has
/// 32 for all its devices (arch/um/drivers/virt-pci.c).
const DEFAULT_VECTORS: u16 = 8;
/// Limited by the last byte of the default MAC addresses.
const MAX_GUESTS: usize = 255;
/// Longest `--pcie-latency`, in nanoseconds: locks are held meanwhile.
const MAX_PCIE_LATENCY: u64 = 1_000_000;

/// A ConnectX-like NIC for the stock mlx5 drivers.
///
/// Each socket serves one guest with one NIC. All NICs of a daemon are connected to one Ethernet switch. QEMU guests
/// attach over vfio-user, User Mode Linux guests over vhost-user (PCI over virtio).
#[derive(Parser, Debug)]
#[command(
    version,
    about,
    group(sockets()),
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true
)]
pub struct Args {
    /// A client of a running daemon, instead of a daemon.
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub common: CommonArgs,

    /// Add a guest whose NIC differs from the default, as comma-separated KEY=VALUE; once per guest.
    ///
    /// path=PATH or fd=FD: the socket (required). attach=vfio-user (the default, for QEMU) or vhost-user (for User Mode
    /// Linux). mac=ADDRESS: the NIC's MAC address. id=connectx-5 (the default), connectx-5ex, connectx-6dx, connectx-7,
    /// or vf: the model that the NIC identifies as. vectors=N: the number of MSI-X vectors, 8 by default. blue-flame=on
    /// or off (the default): whether the NIC accepts WQEs through doorbell registers (BlueFlame); each takes at least
    /// eight stores that trap. spoof-check=on or off (the default): whether the guest may send from this MAC address
    /// only; the address is its alone then, RoCE packets leave only from the GIDs in its RoCE address table (and their
    /// VLANs), and its connections take packets only from the MAC address of their peer. Other frames may have any VLAN
    /// tag. random-numbers=on, off (the default), or a seed: whether the numbers of queue pairs and memory keys start
    /// at random ones, which a peer does not know, after each reset. record=FILE: a record of the guest (see --record).
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub guest: Vec<GuestArg>,

    /// Add a port to the switch whose peer is outside the daemon, as comma-separated KEY=VALUE (docs/ports.md);
    /// repeatable.
    ///
    /// stream=PATH: a listening socket for QEMU's `-netdev stream`. dgram=PATH,remote=PATH: a socket and that of its
    /// peer, for `-netdev dgram`. tap=NAME: a TAP device of the host; with create=on the daemon makes it, otherwise it
    /// exists. offload=on or off: whether the host leaves checksums and segmentation to the port, on by default with
    /// create=on. packet=NAME: a network interface of the host, as it is, by a packet socket.
    /// vxlan=ADDRESS,remote=ADDRESS,vni=NUMBER: a VXLAN tunnel from an address of the host to one peer, each with :PORT
    /// after it unless that is 4789. vhost-user=PATH: a listening socket for the virtio-net device of a guest, QEMU's
    /// `-netdev vhost-user`; queues=NUMBER: its pairs of queues, 1 by default and for QEMU. name=NAME: the name of the
    /// port, by default the file name of its socket without extension, the name of the device or interface, or vxlan
    /// and the VNI. queue=SIZE: the memory for the frames that wait for the peer, 64M by default; what does not fit is
    /// dropped.
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub port: Vec<PortArg>,

    /// Compare every send WQE with memory when it completes: a finding if the guest changed it meanwhile
    /// (`wqe_changed`). Costs a copy per WQE.
    #[arg(long)]
    pub check_wqes: bool,

    /// Write every frame that enters the switch to this file or FIFO, or to standard output (-), in pcapng format.
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,

    /// Maximum size of the capture; later frames are only counted. By default 1G for a file, none for a pipe.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "capture")]
    pub capture_limit: Option<u64>,

    /// Capture only the frames that this guest, or port of --port, sends or receives, and its commands.
    #[arg(long, value_name = "GUEST", requires = "capture")]
    pub capture_port: Option<String>,

    /// Capture the commands of the guests' drivers as well, with input and output.
    #[arg(long, requires = "capture")]
    pub capture_commands: bool,

    /// Record the guest of a daemon with one guest: all accesses to its NIC, what the NIC reads of its memory, and all
    /// that the NIC does, to this file (docs/replay.md). record=FILE in --guest is the same for one guest of several.
    /// The NICs take turns meanwhile, which slows them down.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,

    /// Keep polling a drained send queue for this many microseconds: WQEs posted meanwhile are sent before their
    /// doorbell arrives. Occupies a processor for that time; 0 disables it.
    #[arg(long, value_name = "US", default_value_t = 0)]
    pub hot_period: u64,

    /// Time of a PCIe round trip in nanoseconds, 0 to 1000000: a read by the NIC takes that long, a write half of it.
    /// For comparing ways to post messages; hardware takes some hundred nanoseconds. Occupies a processor for that
    /// time; 0 disables it.
    #[arg(
        long,
        value_name = "NANOSECONDS",
        default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(..=MAX_PCIE_LATENCY)
    )]
    pub pcie_latency: u64,

    /// Maximum host memory for the objects of each guest, besides the guest's own memory: queues, memory keys, flow
    /// tables. Beyond it commands are refused as by hardware that has no more (LIMIT_EXCEEDED).
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_size)]
    pub guest_memory_budget: u64,

    /// Report this capability as 0 (see --print-capabilities); repeatable. For tests of drivers.
    #[arg(long, value_name = "NAME")]
    pub zero_capability: Vec<String>,
}

/// Clients of a running daemon, and completions.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Record what the guests' NICs do, for Perfetto or as JSON, and print the time that each stage takes.
    Trace {
        #[command(flatten)]
        common: TraceArgs,

        /// Print the stages of the WQEs of one queue of the guest only.
        #[arg(long, value_name = "NUMBER", requires = "guest", value_parser = queue_number)]
        queue: Option<u32>,
    },

    /// Capture frames and commands, in pcapng format, for Wireshark.
    Capture(CaptureArgs),

    /// Replay a record without its guest, and compare all that the NIC does.
    Replay(ReplayArgs<Finding>),

    /// Execute a command of the control socket.
    Ctl(CtlArgs<NicCommand>),

    /// Show a refreshing table of guests and rates; q quits.
    Top(TopArgs),

    /// Print the completions of this program's command line for a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// Options of the `capture` command.
#[derive(clap::Args, Clone, Debug)]
pub struct CaptureArgs {
    /// Control socket of the daemon.
    #[arg(long, value_name = "PATH")]
    pub control_socket: PathBuf,

    /// Capture only the frames that this guest sends or receives, and its commands.
    #[arg(long, value_name = "GUEST")]
    pub port: Option<String>,

    /// Capture the commands of the guests' drivers as well, with input and output.
    #[arg(long)]
    pub commands: bool,

    /// Duration. By default, the capture ends with this program, or with the reader of its output.
    #[arg(long)]
    pub seconds: Option<f64>,

    /// File or FIFO to write, or - for standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
}

/// Parses a number, decimal or hexadecimal with `0x`.
fn queue_number(text: &str) -> Result<u32, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

/// A guest with all defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestPlan {
    /// Socket that the guest's VMM connects to.
    pub socket: Socket,
    /// Transport of the attachment.
    pub attach: Attach,
    /// MAC address of the NIC.
    pub mac: Mac,
    /// Model that the NIC identifies as.
    pub identity: Identity,
    /// Number of MSI-X vectors.
    pub vectors: u16,
    /// Whether the NIC accepts WQEs through doorbell registers.
    pub blue_flame: bool,
    /// File that the guest is recorded to.
    pub record: Option<PathBuf>,
    /// Whether the NIC may send from its own MAC address only.
    pub spoof_check: bool,
    /// Seed of the first numbers of queue pairs and memory keys, if they are random.
    pub random_numbers: Option<u64>,
}

fn sockets() -> ArgGroup {
    ArgGroup::new("sockets")
        .args(["socket_path", "fd", "socket_activation", "guest", "print_capabilities"])
        .required(true)
        .multiple(true)
}

impl Args {
    /// Returns the guests in the order --socket-path, --fd, --socket-activation, --guest, which is also the order of
    /// their default MAC addresses. `passed` are the paths of the sockets of the service manager; --guest may set up
    /// the guest of one, which keeps its place.
    pub fn guests(&self, passed: &[PathBuf]) -> Result<Vec<GuestPlan>> {
        let plain = self.common.socket_path.iter().cloned().map(Socket::Path);
        let plain = plain.chain(self.common.fd.iter().copied().map(Socket::Fd));
        let mut all: Vec<GuestArg> = plain.map(GuestArg::new).collect();
        let mut guests = self.guest.clone();
        for path in passed {
            let socket = Socket::Path(path.clone());
            all.push(match guests.iter().position(|guest| guest.socket == socket) {
                Some(index) => guests.remove(index),
                None => GuestArg::new(socket),
            });
        }
        all.append(&mut guests);
        if all.len() > MAX_GUESTS {
            bail!("{} guests are too many, a daemon serves up to {MAX_GUESTS}", all.len());
        }
        let mut plans: Vec<GuestPlan> = all.into_iter().zip(0..).map(|(guest, n)| plan(guest, n)).collect();
        if let Some(file) = &self.record {
            match &mut plans[..] {
                [only] if only.record.is_none() => only.record = Some(file.clone()),
                _ => bail!("--record is for a daemon with one guest; record=FILE in --guest names the guest"),
            }
        }
        if self.common.recordable.is_some() || plans.iter().any(|plan| plan.record.is_some()) {
            self.check_record()?;
        }
        let (mut sockets, mut macs, mut records) = (HashSet::new(), HashSet::new(), HashSet::new());
        for plan in &plans {
            if !sockets.insert(&plan.socket) {
                bail!("two guests cannot share the socket {}", plan.socket);
            }
            if !macs.insert(plan.mac) {
                bail!("two guests cannot share the MAC address {}", plan.mac);
            }
            if let Some(file) = &plan.record
                && !records.insert(file)
            {
                bail!("two guests cannot share the record {}", file.display());
            }
        }
        Ok(plans)
    }

    /// Refuses options whose effects are not in a record.
    fn check_record(&self) -> Result<()> {
        if self.hot_period > 0 {
            bail!("a guest cannot be recorded with --hot-period");
        }
        Ok(())
    }
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text:?} is neither on nor off")),
    }
}

/// Sets an option; fails if it is set already.
fn set<T>(place: &mut Option<T>, value: T, key: &str) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{key} is given twice")),
    }
}

fn plan(guest: GuestArg, index: u8) -> GuestPlan {
    let Mac([a, b, c, d, e, first]) = FIRST_MAC;
    GuestPlan {
        socket: guest.socket,
        attach: guest.attach,
        mac: guest.mac.unwrap_or(Mac([a, b, c, d, e, first.wrapping_add(index)])),
        identity: guest.identity,
        vectors: guest.vectors.unwrap_or(DEFAULT_VECTORS),
        blue_flame: guest.blue_flame,
        record: guest.record,
        spoof_check: guest.spoof_check,
        random_numbers: match guest.numbers {
            Numbers::Lowest => None,
            Numbers::Random => Some(fastrand::u64(..)),
            Numbers::Seeded(seed) => Some(seed),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The manual pages are the parser's own description and the sections in `man/vhost-nic.1.in`. Regenerate it with
    /// `UPDATE_MAN=1 cargo test -p vhost-nic man_page`.
    #[test]
    fn the_man_pages_are_up_to_date() {
        vhost_daemon::testing::assert_up_to_date(
            <Args as clap::CommandFactory>::command(),
            include_bytes!("../man/vhost-nic.1.in"),
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/man")),
        );
    }

    fn parse(args: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["vhost-nic"].iter().chain(args))
    }

    fn plans(args: &[&str]) -> Result<Vec<GuestPlan>> {
        parse(args).unwrap().guests(&[])
    }

    #[test]
    fn a_guest_needs_a_socket() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--capture", "f"]).is_err());
        assert!(parse(&["--socket-path", "a"]).is_ok());
        assert!(parse(&["--guest", "path=a"]).is_ok());
        assert!(parse(&["--print-capabilities"]).is_ok());
    }

    #[test]
    fn the_time_of_a_round_trip_is_limited() {
        let latency = |text| parse(&["--socket-path", "a", "--pcie-latency", text]).map(|args| args.pcie_latency);
        assert_eq!(latency("1000000").unwrap(), 1_000_000);
        assert!(latency("1000001").is_err());
        assert_eq!(parse(&["--socket-path", "a"]).unwrap().pcie_latency, 0);
    }

    #[test]
    fn guests_are_numbered_in_a_fixed_order() {
        let plans = plans(&[
            "--guest",
            "path=c,attach=vhost-user,id=vf,vectors=9",
            "--socket-path",
            "a",
            "--fd",
            "7",
            "--socket-path",
            "b",
        ])
        .unwrap();
        let seen: Vec<(String, u8)> = plans.iter().map(|p| (p.socket.to_string(), p.mac.0[5])).collect();
        let expected = [("a", 1), ("b", 2), ("fd 7", 3), ("c", 4)].map(|(text, n)| (text.to_owned(), n));
        assert_eq!(seen, expected);
        assert_eq!(plans[0].mac.0[..5], [0x52, 0x54, 0, 0, 0xc5]);
        assert_eq!(plans[0].attach, Attach::VfioUser);
        assert_eq!(plans[0].identity, Identity::ConnectX5);
        assert_eq!(plans[3].attach, Attach::VhostUser);
        assert_eq!(plans[3].identity, Identity::VirtualFunction);
        assert_eq!(plans[3].vectors, 9);
    }

    #[test]
    fn settings_of_a_passed_socket_do_not_change_its_address() {
        let passed = ["/run/a.sock", "/run/b.sock", "/run/c.sock"].map(PathBuf::from);
        let addresses = |args: &[&str]| {
            let args = [&["--socket-activation"], args].concat();
            let plans = parse(&args).unwrap().guests(&passed).unwrap();
            let one = |plan: GuestPlan| (plan.socket.to_string(), plan.mac.0[5], plan.blue_flame);
            plans.into_iter().map(one).collect::<Vec<_>>()
        };
        let at = |name: &str, number, blue_flame| (name.to_owned(), number, blue_flame);
        let expected = [
            at("/run/a.sock", 1, false),
            at("/run/b.sock", 2, false),
            at("/run/c.sock", 3, false),
        ];
        assert_eq!(addresses(&[]), expected);
        let more = addresses(&["--guest", "path=x", "--guest", "path=/run/b.sock,blue-flame=on"]);
        let expected = [
            at("/run/a.sock", 1, false),
            at("/run/b.sock", 2, true),
            at("/run/c.sock", 3, false),
            at("x", 4, false),
        ];
        assert_eq!(more, expected);
    }

    #[test]
    fn no_two_guests_share_a_socket_or_an_address() {
        for bad in [
            &["--socket-path", "a", "--socket-path", "a"][..],
            &["--socket-path", "a", "--guest", "path=a"],
            &["--fd", "5", "--guest", "fd=5"],
            &[
                "--guest",
                "path=a,mac=2:0:0:0:0:1",
                "--guest",
                "path=b,mac=02:00:00:00:00:01",
            ],
            // The default of the second.
            &[
                "--socket-path",
                "a",
                "--guest",
                "path=b",
                "--guest",
                "path=c,mac=52:54:00:00:c5:02",
            ],
        ] {
            let error = plans(bad).unwrap_err().to_string();
            assert!(error.contains("cannot share"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn the_number_of_guests_is_limited() {
        let names: Vec<String> = (0..256).map(|n| n.to_string()).collect();
        let args = |n: usize| -> Vec<&str> { names[..n].iter().flat_map(|name| ["--socket-path", name]).collect() };
        assert_eq!(plans(&args(255)).unwrap()[254].mac.0[5], 255);
        assert!(plans(&args(256)).is_err());
    }
}
