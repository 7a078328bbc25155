//! Command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use guest_harness::sweep::Occasion;

/// Limit on the number of guests.
const MAX_GUESTS: i64 = 4;

/// Boots guests with our devices, runs a command in the first, and ends with its status
///
/// The current folder, or that of --share, is at the same path in every guest, writable. Variables of the command name
/// devices and addresses; docs/in-guest.md lists them. Status 124 is the time limit, 125 a failure before the command,
/// 1 a command that succeeded while a kernel, a daemon or a report of tests complained.
#[derive(Parser, Debug)]
#[command(name = "scripts/in-guest", version, max_term_width = 120)]
pub struct Arguments {
    /// Number of guests, named a, b, c and d
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=MAX_GUESTS))]
    pub guests: u8,

    /// Give every guest a NIC, with settings as of `vhost-nic --guest`, and `root-port` for one behind a port. The
    /// default without --ism
    #[arg(long, value_name = "KEY=VALUE,...", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub nic: Option<String>,

    /// Give every guest a virtio-ism device, with SMC-D set up, and a virtio-net link to every other guest. Boots the
    /// kernel `own` unless --kernel says otherwise
    #[arg(long)]
    pub ism: bool,

    /// Kernel: a series of Debian (6.1, 6.12 or 7.x, the default), `own`, `debug` (KASAN and lockdep), or a bzImage
    #[arg(long, value_name = "KERNEL")]
    pub kernel: Option<String>,

    /// Modules of the bzImage: a folder as of `make modules_install`, with lib/modules/RELEASE below it
    #[arg(long, value_name = "DIR", requires = "kernel")]
    pub modules: Option<PathBuf>,

    /// Boot the kernel of this built Linux tree, with its modules
    #[arg(long, value_name = "LINUX_TREE", conflicts_with_all = ["kernel", "modules"])]
    pub tree: Option<PathBuf>,

    /// Build this folder's kernel module for the guests' kernel first; they see the result as /host/NAME.ko
    #[arg(long, value_name = "DIR")]
    pub module: Vec<PathBuf>,

    /// Root file system to boot instead of the usual one
    #[arg(long, value_name = "IMAGE")]
    pub rootfs: Option<PathBuf>,

    /// Folder that the guests share with the caller, the current one by default
    #[arg(long, value_name = "DIR")]
    pub share: Option<PathBuf>,

    /// Script for another guest, started before the command; repeatable. The command starts when it listens on a port
    /// or has ended
    #[arg(long, value_name = "GUEST=SCRIPT")]
    pub on: Vec<String>,

    /// Run the command in every guest at once, not only in the first
    #[arg(long, conflicts_with = "on")]
    pub each: bool,

    /// Time limit of the command, such as 90s or 1h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub timeout: Duration,

    /// Processors of each guest
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: u32,

    /// Memory of each guest in MiB
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(256..=65536))]
    pub memory: Option<u32>,

    /// Parameter of the guests' kernel; repeatable
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub kernel_arg: Vec<String>,

    /// Faults on purpose: a plan in TOML (docs/faults.md), in force when the devices are up
    #[arg(long, value_name = "PLAN")]
    pub faults: Option<PathBuf>,

    /// Run the command again and again, and let its 1st, 2nd, 3rd ... occasion at the NIC of guest a fail in turn:
    /// `command`, `dma`, `dma:PURPOSE` or `cqe`; or reset the function at each command: `reset`; or at its ISM device:
    /// `request`, `map` or `vanish` (docs/fault-sweep.md)
    #[arg(long, value_name = "OCCASION", conflicts_with = "faults")]
    pub sweep: Option<Occasion>,

    /// Script for guest a that undoes the command after each run of a sweep
    #[arg(long, value_name = "SCRIPT", requires = "sweep")]
    pub sweep_undo: Option<String>,

    /// First occasion that fails
    #[arg(long, value_name = "N", requires = "sweep", default_value_t = 1)]
    pub sweep_from: u64,

    /// Distance of the occasions that fail
    #[arg(long, value_name = "N", requires = "sweep", default_value_t = 1)]
    pub sweep_stride: u64,

    /// Maximum number of occasions that fail
    #[arg(long, value_name = "N", requires = "sweep", default_value_t = 1000)]
    pub sweep_steps: u64,

    /// Findings of these kinds fail the run (docs/findings.md)
    #[arg(long, value_name = "KIND,...")]
    pub fail_on: Option<String>,

    /// Leave an execution trace of each daemon, for Perfetto
    #[arg(long)]
    pub trace: bool,

    /// Leave a capture of all frames and commands of the NICs, for Wireshark
    #[arg(long)]
    pub capture: bool,

    /// Folder of the results, empty or new; by default a new one for temporary files
    #[arg(long, value_name = "DIR")]
    pub results: Option<PathBuf>,

    /// Say nothing but what the command says
    #[arg(long, short)]
    pub quiet: bool,

    /// Command of the first guest: a program and its arguments, or one argument that is a script for bash
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl Arguments {
    /// Whether the guests have a NIC.
    pub fn has_nic(&self) -> bool {
        self.nic.is_some() || !self.ism
    }

    /// Returns the program and its arguments that run the command.
    pub fn argv(&self) -> Vec<String> {
        match &self.command[..] {
            [script] => vec!["bash".to_owned(), "-c".to_owned(), script.clone()],
            words => words.to_vec(),
        }
    }

    /// Splits the settings of the NIC into those of the daemon and whether there is a root port.
    pub fn nic_settings(&self) -> (Vec<String>, bool) {
        let words = self.nic.iter().flat_map(|settings| settings.split(','));
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        let settings = words.iter().filter(|word| **word != "root-port");
        (
            settings.map(|word| (*word).to_owned()).collect(),
            words.contains(&"root-port"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(["in-guest"].iter().chain(words))
    }

    #[test]
    fn one_word_is_a_script_and_several_are_a_program() {
        let script = parse(&["--", "make && ./test"]).unwrap();
        assert_eq!(script.argv(), ["bash", "-c", "make && ./test"]);
        let program = parse(&["--", "echo", "a b", "$HOME"]).unwrap();
        assert_eq!(program.argv(), ["echo", "a b", "$HOME"]);
    }

    #[test]
    fn a_command_is_required_and_options_precede_it() {
        assert!(parse(&["--guests", "2"]).is_err());
        assert!(parse(&["true"]).is_err());
        let arguments = parse(&["--", "ls", "--guests", "2"]).unwrap();
        assert_eq!((arguments.guests, arguments.argv().len()), (1, 3));
    }

    #[test]
    fn there_are_one_to_four_guests() {
        assert!(parse(&["--guests", "0", "--", "true"]).is_err());
        assert!(parse(&["--guests", "5", "--", "true"]).is_err());
        assert_eq!(parse(&["--guests", "4", "--", "true"]).unwrap().guests, 4);
    }

    #[test]
    fn the_nic_is_there_unless_only_ism_is_asked_for() {
        for (words, has_nic) in [
            (&["--", "true"][..], true),
            (&["--ism", "--", "true"], false),
            (&["--ism", "--nic", "--", "true"], true),
            (&["--nic=id=connectx-7", "--", "true"], true),
        ] {
            assert_eq!(parse(words).unwrap().has_nic(), has_nic, "{words:?}");
        }
    }

    #[test]
    fn a_sweep_is_of_one_occasion_and_excludes_other_faults() {
        let arguments = parse(&["--sweep", "dma:eqe", "--sweep-from", "3", "--", "true"]).unwrap();
        assert_eq!(arguments.sweep, Some(Occasion::Dma(Some("eqe".to_owned()))));
        assert_eq!((arguments.sweep_from, arguments.sweep_steps), (3, 1000));
        assert!(parse(&["--sweep", "frame", "--", "true"]).is_err());
        assert!(parse(&["--sweep", "cqe", "--faults", "plan.toml", "--", "true"]).is_err());
        assert!(parse(&["--sweep-from", "3", "--", "true"]).is_err());
    }

    #[test]
    fn a_root_port_is_no_setting_of_the_daemon() {
        let arguments = parse(&["--nic=id=connectx-7,root-port,blue-flame=on", "--", "true"]).unwrap();
        let settings = vec!["id=connectx-7".to_owned(), "blue-flame=on".to_owned()];
        assert_eq!(arguments.nic_settings(), (settings, true));
    }

    /// Returns the command lines of a page or a pipeline, without what the script takes for itself.
    fn command_lines(text: &str) -> Vec<Vec<String>> {
        let joined = text.replace("\\\n", " ");
        let lines = joined.lines().filter_map(|line| line.split_once("scripts/in-guest "));
        let commands = lines.filter(|(before, line)| line.contains("-- ") && !before.contains('`'));
        commands
            .map(|(_, line)| {
                let mut words = shlex::split(line).expect("balanced quotes");
                if let Some(at) = words.iter().position(|word| word == "--packages") {
                    words.drain(at..at + 2);
                }
                words
            })
            .collect()
    }

    #[test]
    fn command_lines_of_the_documentation_are_valid() {
        let root = guest_harness::workspace_dir();
        for (page, count) in [
            ("README.md", 3),
            ("docs/in-guest.md", 4),
            ("docs/recipes/module.md", 1),
            ("docs/recipes/rdma-core.md", 1),
            ("docs/recipes/github-actions.yml", 1),
            ("docs/recipes/gitlab-ci.yml", 1),
        ] {
            let text = std::fs::read_to_string(root.join(page)).unwrap();
            let lines = command_lines(&text);
            assert_eq!(lines.len(), count, "{page}: {lines:?}");
            for words in lines {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                parse(&words).unwrap_or_else(|error| panic!("{page}: {words:?}: {error}"));
            }
        }
    }
}
