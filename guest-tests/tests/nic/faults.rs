//! Behaviour of stock drivers and programs under faults of the NIC.

use std::time::Duration;
use std::{env, thread};

use guest_harness::{DaemonControl, NIC, NicOptions, Result};

use crate::fixture::{Fixture, Setup, step};

/// Verifies every byte that it receives.
const PINGPONG: &str = "ibv_rc_pingpong -d mlx5_0 -g 3 -c";
const LIMIT: Duration = Duration::from_secs(60);
/// Place of the program that prints asynchronous events.
const ASYNC_EVENTS: &str = "/tmp/async_events.py";

/// Guests whose daemon takes plans of faults.
pub struct Faulty {
    pub fixture: Fixture,
    pub control: DaemonControl,
}

impl Faulty {
    pub fn new(name: &'static str, guests: usize, args: &[&str]) -> Result<Self> {
        let socket = env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let args = args.iter().map(|arg| (*arg).to_owned());
        let options = NicOptions::default()
            .args(args)
            .args(["--control-socket".to_owned(), socket.display().to_string()]);
        let control = DaemonControl::new(NicOptions::program()?, socket);
        let fixture = Setup::new(name, guests).options(options).boot()?;
        Ok(Self { fixture, control })
    }

    /// Puts a plan in force.
    pub fn apply(&self, plan: &str) {
        self.control.apply(plan).expect("the daemon takes the plan");
    }

    /// Number of strikes of all faults in force.
    pub fn strikes(&self) -> u64 {
        self.control.strikes().expect("the daemon reports its faults")
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
    step("a receiver that is not ready", || {
        let counter = "cat /sys/class/infiniband/mlx5_0/ports/1/hw_counters/rnr_nak_retry_err";
        let naks = || -> Result<u64> { Ok(fixture.guest(0).run(counter)?.check()?.text().parse().expect("a count")) };
        let before = naks()?;
        faulty.apply("[[fault]]\nguest = \"nic-1\"\nkind = \"rnr_nak\"\ntimer = 1\ncount = 20");
        faulty.ping_pong().unwrap_or_else(|error| panic!("RNR: {error}"));
        assert_eq!((faulty.strikes(), naks()? - before), (20, 20));
        Ok(())
    })?;
    step("asynchronous events", || meets_events(&faulty))?;
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
    step("fatal health", || hears_of_fatal_health(&faulty))?;
    faulty.fixture.finish()
}

/// A program with an open device gets the event of its end; the driver recovers when the cause is gone.
fn hears_of_fatal_health(faulty: &Faulty) -> Result<()> {
    let guest = faulty.fixture.guest(0);
    let program = format!("exec python3 {ASYNC_EVENTS} {}", NicOptions::address(0));
    let job = guest.shell(&program).stdin("").spawn()?;
    let numbers = job.read_line(LIMIT)?;
    assert!(numbers.is_some(), "{:?}", job.peek());
    faulty.apply("[[fault]]\nguest = \"nic-0\"\nkind = \"health\"\nsyndrome = 1\nfatal = true");
    job.write(b"event\n")?;
    assert_eq!(job.read_line(LIMIT)?.as_deref(), Some("IBV_EVENT_DEVICE_FATAL"));
    faulty.apply("");
    let recovered = "until dmesg | grep -q 'health recovery succeeded'; do sleep 0.2; done";
    guest.shell(recovered).timeout(LIMIT).run()?.check()?;
    // What the program had is gone with the device.
    job.close_stdin();
    job.wait(LIMIT)?;
    // The end of the test unloads a driver that has not been through a recovery.
    guest.restart()?;
    faulty.fixture.guest_up(guest)?;
    faulty.fixture.flow(1, 0).ping(5, 56).map(drop)
}

/// Events without a cause, each with what a program gets.
const EVENTS: &[(&str, &str)] = &[
    ("path_migrated", "IBV_EVENT_PATH_MIG"),
    ("path_migration_failed", "IBV_EVENT_PATH_MIG_ERR"),
    ("communication_established", "IBV_EVENT_COMM_EST"),
    ("send_queue_drained", "IBV_EVENT_SQ_DRAINED"),
    ("wq_catastrophic_error", "IBV_EVENT_QP_FATAL"),
    ("wq_invalid_request_error", "IBV_EVENT_QP_REQ_ERR"),
    ("wq_access_error", "IBV_EVENT_QP_ACCESS_ERR"),
    ("srq_catastrophic_error", "IBV_EVENT_SRQ_ERR"),
    ("srq_rq_limit", "IBV_EVENT_SRQ_LIMIT_REACHED"),
    ("lid_change", "IBV_EVENT_LID_CHANGE"),
    // The kernel reads the GID table again and reports each change, of which there is none here.
    ("guid_change", ""),
    ("client_reregister", "IBV_EVENT_CLIENT_REREGISTER"),
];

/// A program gets all events about its queue pair and its SRQ. One whose queue pair fails connects it anew.
fn meets_events(faulty: &Faulty) -> Result<()> {
    let guest = faulty.fixture.guest(0);
    guest.put_bytes(include_bytes!("async_events.py"), ASYNC_EVENTS, 0o644)?;
    let program = format!("exec python3 {ASYNC_EVENTS} {}", NicOptions::address(0));
    let job = guest.shell(&program).stdin("").spawn()?;
    let answer = || -> Result<String> { Ok(job.read_line(LIMIT)?.unwrap_or_else(|| panic!("{:?}", job.peek()))) };
    let ask = |what: &str| {
        job.write(what.as_bytes())?;
        answer()
    };
    let numbers = answer()?;
    let (qp, srq) = numbers.split_once(' ').expect("two numbers");
    let act = |action: &str| faulty.apply(&format!("[[fault]]\nguest = \"nic-0\"\non = \"now\"\n{action}"));
    for (event, name) in EVENTS {
        let number = if event.starts_with("srq") { srq } else { qp };
        act(&format!(
            "kind = \"async_event\"\nevent = \"{event}\"\nnumber = {number}"
        ));
        assert_eq!(faulty.strikes(), 1);
        if !name.is_empty() {
            assert_eq!(ask("event\n")?, *name);
        }
    }
    act(&format!("kind = \"qp_error\"\nqp = {qp}"));
    assert_eq!(ask("event\n")?, "IBV_EVENT_QP_LAST_WQE_REACHED");
    assert_eq!(ask("state\n")?, "IBV_QPS_ERR");
    assert_eq!(ask("renew\n")?, "IBV_QPS_RTS");
    job.close_stdin();
    job.wait(LIMIT)?.check().map(drop)
}

/// Faults of the queues of a program, each with its number of strikes, and what the program prints or how it ends.
const QUEUES: &[(&str, u64, Option<&str>)] = &[
    ("kind = \"cqe_late\"\ndelay = \"50ms\"", 5, None),
    ("kind = \"cqe_lost\"", 1, Some(TIMED_OUT)),
    ("kind = \"cq_overrun\"", 1, Some(TIMED_OUT)),
    ("kind = \"dma_failed\"\npurpose = \"cqe\"", 1, Some(TIMED_OUT)),
    // A single packet is sent again.
    ("kind = \"dma_failed\"\npurpose = \"gather\"", 1, None),
    ("kind = \"dma_failed\"\npurpose = \"scatter\"", 1, None),
    (
        "kind = \"dma_failed\"\npurpose = \"send_wqe\"",
        1,
        Some("Failed status local QP operation error (2)"),
    ),
    (
        "kind = \"dma_failed\"\npurpose = \"doorbell_record\"",
        1,
        Some("Failed status Work Request Flushed Error (5)"),
    ),
    (
        "kind = \"dma_failed\"\npurpose = \"receive_wqe\"",
        1,
        Some("Failed status local QP operation error (2)"),
    ),
    (
        "kind = \"dma_failed\"\npurpose = \"gather\"",
        16,
        Some("Failed status transport retry counter exceeded (12)"),
    ),
    (
        "kind = \"dma_failed\"\npurpose = \"scatter\"",
        2,
        Some("Failed status local protection error (4)"),
    ),
];

/// End of a program that timeout(1) kills.
const TIMED_OUT: &str = "exit status 124";

#[test]
#[ignore = "long: programs that wait for what is lost"]
fn a_stock_program_meets_faults_of_its_queues() -> Result<()> {
    let faulty = Faulty::new("nic-queue-faults", 2, &[])?;
    let fixture = &faulty.fixture;
    fixture.up()?;
    let works = |after: &str| {
        faulty.apply("");
        faulty
            .ping_pong()
            .unwrap_or_else(|error| panic!("after {after}: {error}"));
    };
    for (fault, count, end) in QUEUES {
        step(fault, || {
            // In the midst of the ping-pong, far from the frames that set it up.
            faulty.apply(&format!(
                "[[fault]]\nguest = \"nic-1\"\nskip = 300\ncount = {count}\n{fault}"
            ));
            let program = format!("timeout 10 {PINGPONG}");
            let result = fixture.flow(1, 0).converse_alike(&program, LIMIT);
            assert_eq!(faulty.strikes(), *count, "{fault}");
            match (result, end) {
                (Ok(_), None) => {}
                (Err(error), Some(end)) if error.to_string().contains(end) => {}
                (result, _) => panic!("{fault}: {result:?}"),
            }
            works(fault);
            Ok(())
        })?;
    }
    let log = fixture.guest(1).run("dmesg")?.check()?.stdout;
    assert!(log.contains("CQ error on CQN"), "{log}");
    fixture.guest(1).run("dmesg -C")?.check()?;
    // A key that cannot be registered is an error of the program, and a warning of the kernel.
    faulty.apply("[[fault]]\nguest = \"nic-1\"\nkind = \"dma_failed\"\npurpose = \"gather\"\ncount = 1");
    let error = faulty.ping_pong().expect_err("a key that firmware cannot read");
    assert!(error.contains("Couldn't register MR"), "{error}");
    works("a key that cannot be registered");
    let log = fixture.guest(1).run("dmesg")?.check()?.stdout;
    assert!(log.contains("mlx5r_umr_post_send_wait"), "{log}");
    fixture.guest(1).run("dmesg -C")?.check()?;
    fixture.testbed().allow_splat("mlx5r_umr_post_send_wait");
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
