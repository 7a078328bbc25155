//! Behaviour of stock drivers and programs under faults of the NIC.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{env, fs, thread};

use guest_harness::{NIC, NicOptions, Result};
use serde_json::Value;

use crate::fixture::{Fixture, Setup, step};

/// Verifies every byte that it receives.
const PINGPONG: &str = "ibv_rc_pingpong -d mlx5_0 -g 1 -c";
const LIMIT: Duration = Duration::from_secs(60);

/// Guests whose daemon takes plans of faults.
pub struct Faulty {
    pub fixture: Fixture,
    control: PathBuf,
}

impl Faulty {
    pub fn new(name: &'static str, guests: usize, args: &[&str]) -> Result<Self> {
        let control = env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let args = args.iter().map(|arg| (*arg).to_owned());
        let options = NicOptions::default()
            .args(args)
            .args(["--control-socket".to_owned(), control.display().to_string()]);
        let fixture = Setup::new(name, guests).options(options).boot()?;
        Ok(Self { fixture, control })
    }

    /// Runs the program's `ctl` command and returns its result.
    fn ctl(&self, words: &[&str]) -> Value {
        let mut command = Command::new(NicOptions::program().expect("the daemon is built"));
        command.arg("ctl").arg("--control-socket").arg(&self.control);
        let output = command.arg("--json").args(words).output().expect("ctl runs");
        assert!(output.status.success(), "{words:?}: {output:?}");
        serde_json::from_slice(&output.stdout).expect("ctl prints JSON")
    }

    /// Puts a plan in force.
    pub fn apply(&self, plan: &str) {
        let path = self.fixture.testbed().logs().join("plan.toml");
        fs::write(&path, plan).expect("write the plan");
        self.ctl(&["faults", "--plan", &path.display().to_string()]);
    }

    /// Number of strikes of all faults in force.
    pub fn strikes(&self) -> u64 {
        let rules = self.ctl(&["faults"]);
        let rules = rules.as_array().expect("a list of rules").iter();
        rules.filter_map(|rule| rule["strikes"].as_u64()).sum()
    }

    /// Runs ping-pong between the guests; returns what the failing client printed.
    fn ping_pong(&self) -> std::result::Result<(), String> {
        let result = self.fixture.flow(1, 0).converse_alike(PINGPONG, LIMIT);
        result.map(drop).map_err(|error| error.to_string())
    }

    fn log_since(&self, guest: usize, mark: &str) -> Result<String> {
        let script = format!("dmesg | sed -n '/{mark}/,$p'");
        Ok(self.fixture.guest(guest).run(&script)?.check()?.stdout)
    }

    fn mark(&self, guest: usize, mark: &str) -> Result<()> {
        let script = format!("echo '<6>{mark}' > /dev/kmsg");
        self.fixture.guest(guest).run(&script)?.check().map(drop)
    }
}

/// Faults that the transport or the driver makes up for.
const ENDURED: &[(&str, &str)] = &[
    ("loss", "kind = \"frame_loss\"\nprobability = 0.01"),
    ("duplication", "kind = \"frame_duplicate\"\nprobability = 0.1"),
    (
        "reordering",
        "kind = \"frame_reorder\"\nprobability = 0.02\ndistance = 2",
    ),
    ("corruption", "kind = \"frame_corrupt\"\nprobability = 0.01"),
    (
        "jitter",
        "kind = \"frame_delay\"\nprobability = 0.02\ndelay = \"50us\"\njitter = \"300us\"",
    ),
    (
        "a slow wire",
        "kind = \"frame_rate\"\nmbit_per_second = 1000\nqueue = \"100ms\"",
    ),
    (
        "a late command",
        "kind = \"command_late\"\nopcode = \"CREATE_QP\"\ndelay = \"500ms\"",
    ),
    ("reserved bits", "kind = \"reserved_bits\""),
    (
        "a slow DMA",
        "kind = \"dma_slow\"\npurpose = \"gather\"\ndelay = \"100us\"\nprobability = 0.5",
    ),
    (
        "duplicate events",
        "kind = \"eqe_duplicate\"\nevent_type = 0\nprobability = 0.2",
    ),
    (
        "late events",
        "kind = \"eqe_late\"\nevent_type = 0\nprobability = 0.2\ndelay = \"1ms\"",
    ),
    (
        "spurious interrupts",
        "kind = \"interrupt_spurious\"\ndelay = \"1ms\"\nprobability = 0.2",
    ),
    (
        "late interrupts",
        "kind = \"interrupt_late\"\ndelay = \"2ms\"\nprobability = 0.2",
    ),
];

/// Faults that end the program, each with what it prints.
const FATAL: &[(&str, &str, &str)] = &[
    (
        "a refused QP",
        "kind = \"command_refused\"\nopcode = \"CREATE_QP\"\nstatus = 0xf\nsyndrome = 0x65b500",
        "Couldn't create QP",
    ),
    (
        "an error CQE",
        "kind = \"cqe_error\"\nsyndrome = 0x22\nvendor_syndrome = 0x68\ncount = 1\nskip = 100",
        "Failed status",
    ),
    (
        "a partition",
        "kind = \"frame_loss\"\ndirection = \"out\"\nopcode = 0",
        "transport retry counter exceeded",
    ),
];

#[test]
fn a_stock_driver_meets_faults() -> Result<()> {
    let faulty = Faulty::new("nic-faults", 2, &[])?;
    let fixture = &faulty.fixture;
    fixture.up()?;
    for (name, fault) in ENDURED {
        step(name, || {
            faulty.apply(&format!("seed = 1\n[[fault]]\n{fault}"));
            faulty.ping_pong().unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(faulty.strikes() > 0, "{name} never struck");
            fixture.flow(1, 0).ping(5, 56).map(drop).or_else(|error| match *name {
                // Nobody sends an echo request again, or drops the second of two.
                "loss" | "corruption" | "duplication" => Ok(()),
                _ => Err(error),
            })
        })?;
    }
    for (name, fault, printed) in FATAL {
        step(name, || {
            faulty.apply(&format!("[[fault]]\nguest = \"nic-1\"\n{fault}"));
            let error = faulty.ping_pong().expect_err(name);
            assert!(error.contains(printed), "{name}: {error}");
            assert!(faulty.strikes() > 0, "{name} never struck");
            faulty.apply("");
            faulty
                .ping_pong()
                .unwrap_or_else(|error| panic!("after {name}: {error}"));
            Ok(())
        })?;
    }
    step("a link flap", || {
        faulty.mark(0, "FLAP")?;
        faulty.apply("[[fault]]\nguest = \"nic-0\"\nkind = \"link_flap\"\non = \"now\"\ndown = \"300ms\"");
        thread::sleep(Duration::from_secs(1));
        let log = faulty.log_since(0, "FLAP")?;
        let down = log.find("Link down").expect(&log);
        assert!(log[down..].contains("Link up"), "{log}");
        fixture.flow(1, 0).ping(5, 56).map(drop)
    })?;
    faulty.apply("");
    for guest in 0..2 {
        // The driver logs what it was refused.
        fixture
            .guest(guest)
            .nic_check_log(&["CREATE_QP(0x500)", "Create QP type 2 failed"])?;
        fixture.guest(guest).run("dmesg -C")?.check()?;
    }
    faulty.fixture.finish()
}

#[test]
fn a_driver_loads_on_random_reserved_bits() -> Result<()> {
    let faulty = Faulty::new("nic-reserved", 1, &[])?;
    faulty.apply("seed = 5\n[[fault]]\nkind = \"reserved_bits\"");
    faulty.fixture.up()?;
    assert!(faulty.strikes() > 100, "{} commands", faulty.strikes());
    let carrier = faulty.fixture.guest(0).read(&format!("/sys/class/net/{NIC}/carrier"))?;
    assert_eq!(carrier, "1");
    faulty.fixture.finish()
}
