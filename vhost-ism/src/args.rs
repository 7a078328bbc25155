//! Command-line options.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{ArgGroup, Parser, Subcommand};
use vhost_daemon::{CommonArgs, CtlArgs, ReplayArgs, Shell, TopArgs, TraceArgs, parse_size};
use vhost_ism::abi::CHUNK_SIZE;
use vhost_ism::fabric::{Layout, Limits, Mode, WINDOW_UNIT};
use vhost_ism::guest::DOORBELL_TAIL;
use vhost_ism::ism_finding::Finding;

use crate::control_command::IsmCommand;

/// Fabric ids that Linux reserves for virtio-ism (net/smc/smc_ism.h).
const CHIDS: RangeInclusive<u16> = 0xFF00..=0xFFFE;
/// The guest driver numbers the chunks of a window in a table of fixed size.
const MAX_REGION: u64 = 512 << 20;
/// QEMU aborts at 512 memory regions per VM and slows down past 100.
const MAX_MAPS: u32 = 128;

/// A virtio-ism device for QEMU guests, as a vhost-user back-end.
///
/// Each socket serves one guest. All guests of a daemon form one fabric: pairs of them can share memory buffers, so
/// that SMC-D runs between them.
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

    /// Listen on guest0.sock, guest1.sock, ... in this directory.
    #[arg(long, value_name = "DIR", requires = "guests")]
    pub socket_dir: Option<PathBuf>,

    /// Number of sockets in --socket-dir.
    #[arg(long, value_name = "N", requires = "socket_dir")]
    pub guests: Option<u32>,

    /// SMC fabric id, 0xff00 to 0xfffe; SMC connects only guests with equal ids.
    #[arg(long, value_name = "ID", default_value = "0xff00", value_parser = parse_chid)]
    pub chid: u16,

    /// Size of each guest's shared memory region, a power of two; costs the guest 1/64 of that in RAM.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_size)]
    pub region_size: u64,

    /// Largest buffer a guest may allocate, a power of two.
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = parse_size)]
    pub max_dmb_size: u64,

    /// Largest contiguous area of a buffer that is for any number of guests, a power of two from 2M; a larger buffer is
    /// a list of areas. By default a buffer is split only where the window has no room for the whole.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_area_size: Option<u64>,

    /// Give the doorbells a shared memory region of their own, as the draft of the virtio-ism device does. Such a
    /// device does not fit behind a PCIe root port.
    #[arg(long)]
    pub two_regions: bool,

    /// Maximum number of buffers a guest owns and attaches together.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub max_dmbs: u32,

    /// Maximum number of memory regions in a guest's window, up to 128.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub max_maps: u32,

    /// Share no memory between guests: the device copies what a guest moves, once, to the buffer of its peer. For
    /// partitions without a common mapping.
    #[arg(long)]
    pub copy: bool,

    /// Record all guests: their requests, doorbells and event buffers, the answers of their VMMs, and all that the
    /// devices do, to this file (docs/replay.md). The guests take turns meanwhile, which slows them down.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// Clients of a running daemon, and completions.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Record what the guests' devices do, for Perfetto or as JSON, and print the times that requests take.
    Trace {
        #[command(flatten)]
        common: TraceArgs,

        /// Print the times of the bells that the guest rings for one DMB only: its first chunk in the guest's window.
        #[arg(long, value_name = "CHUNK", requires = "guest")]
        dmb: Option<u32>,
    },

    /// Replay a record without its guests, and compare all that the devices do.
    Replay(ReplayArgs<Finding>),

    /// Execute a command of the control socket.
    Ctl(CtlArgs<IsmCommand>),

    /// Show a refreshing table of guests and rates; q quits.
    Top(TopArgs),

    /// Print the completions of this program's command line for a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
}

fn sockets() -> ArgGroup {
    ArgGroup::new("sockets")
        .args([
            "socket_path",
            "socket_dir",
            "fd",
            "socket_activation",
            "print_capabilities",
        ])
        .required(true)
        .multiple(true)
}

impl Args {
    /// Returns the paths of the sockets in --socket-dir.
    pub fn sockets_in_directory(&self) -> impl Iterator<Item = PathBuf> {
        let numbers = 0..self.guests.unwrap_or(0);
        let in_directory = move |directory: &PathBuf| {
            let directory = directory.clone();
            numbers
                .clone()
                .map(move |number| directory.join(format!("guest{number}.sock")))
        };
        self.socket_dir.iter().flat_map(in_directory)
    }

    /// Returns the fabric's limits, if they are consistent.
    pub fn limits(&self) -> Result<Limits> {
        if !self.region_size.is_power_of_two() || self.region_size < 4 * DOORBELL_TAIL || self.region_size > MAX_REGION
        {
            bail!("--region-size must be a power of two from 8M to 512M");
        }
        if !self.max_dmb_size.is_power_of_two() || !(CHUNK_SIZE..=self.region_size / 8).contains(&self.max_dmb_size) {
            bail!("--max-dmb-size must be a power of two from 16K to an eighth of --region-size");
        }
        let max_area_size = self.max_area_size.unwrap_or(self.max_dmb_size).max(WINDOW_UNIT);
        if self.max_area_size.is_some_and(|size| size != max_area_size) || !max_area_size.is_power_of_two() {
            bail!("--max-area-size must be a power of two from 2M");
        }
        if self.max_maps == 0 || self.max_maps > MAX_MAPS {
            bail!("--max-maps must be from 1 to {MAX_MAPS}: QEMU slows down with more regions and aborts at 512");
        }
        Ok(Limits {
            mode: if self.copy { Mode::Copy } else { Mode::Mapped },
            window_size: self.region_size - DOORBELL_TAIL,
            max_dmb_size: self.max_dmb_size,
            max_area_size,
            layout: match self.two_regions {
                false => Layout::OneRegion,
                true => Layout::TwoRegions,
            },
            max_dmbs: self.max_dmbs,
            max_maps: self.max_maps,
        })
    }
}

fn parse_chid(text: &str) -> Result<u16, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.ok().filter(|chid| CHIDS.contains(chid)).ok_or_else(|| {
        format!(
            "a virtio-ism fabric id is between {:#x} and {:#x}",
            CHIDS.start(),
            CHIDS.end()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The manual pages are the parser's own description and the sections in `man/vhost-ism.1.in`. Regenerate it with
    /// `UPDATE_MAN=1 cargo test -p vhost-ism man_page`.
    #[test]
    fn the_man_pages_are_up_to_date() {
        vhost_daemon::testing::assert_up_to_date(
            <Args as clap::CommandFactory>::command(),
            include_bytes!("../man/vhost-ism.1.in"),
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/man")),
        );
    }

    fn parse(args: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(["vhost-ism"].iter().chain(args))
    }

    #[test]
    fn fabric_ids() {
        assert_eq!(parse_chid("0xFF01"), Ok(0xff01));
        assert!(parse_chid("0xFFFF").is_err(), "that is the loopback device's");
        assert!(parse_chid("7").is_err());
    }

    #[test]
    fn a_guest_needs_a_socket() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--socket-path", "a", "--socket-path", "b"]).is_ok());
        assert!(parse(&["--socket-dir", "d"]).is_err());
        assert!(parse(&["--print-capabilities"]).is_ok());
    }

    #[test]
    fn limits_that_qemu_or_linux_would_choke_on_are_refused() {
        for bad in [
            ["--region-size", "100M"],
            ["--region-size", "4M"],
            ["--max-maps", "129"],
            ["--max-dmb-size", "3M"],
            ["--max-area-size", "1M"],
            ["--max-area-size", "6M"],
        ] {
            assert!(
                parse(&["--socket-path", "a", bad[0], bad[1]])
                    .unwrap()
                    .limits()
                    .is_err(),
                "{bad:?}"
            );
        }
        assert!(parse(&["--socket-path", "a"]).unwrap().limits().is_ok());
    }
}
