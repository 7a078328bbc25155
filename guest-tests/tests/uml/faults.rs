//! Behaviour of the stock driver under faults of its device, which User Mode Linux meets at native speed.
//! `docs/faults.md` has the results.

use std::thread;
use std::time::Duration;

use guest_harness::{DaemonControl, Guest, NIC, NicOptions, NicSetup, Result, Testbed};
use serde_json::Value;

use crate::fixture::{faulty_testbed, finish};

/// Limit on what a driver does: it waits a minute for the answer to a command.
const LIMIT: Duration = Duration::from_secs(150);
/// Less than the minute, and long enough for a busy host.
const SHORT_LIMIT: Duration = Duration::from_secs(50);
/// Time after a recovery in which the driver leaves a queue in error (`MLX5E_REPORTER_TX_GRACEFUL_PERIOD` and
/// `MLX5E_REPORTER_TX_BURST_PERIOD`), and a little.
const GRACE: Duration = Duration::from_millis(1200);
/// A single command of the driver, and its result.
const COMMAND: &str = "cat /sys/class/infiniband/mlx5_0/ports/1/hw_counters/out_of_buffer";

/// A guest with a faulty device, and a peer.
struct Faulty {
    testbed: Testbed,
    control: DaemonControl,
}

impl Faulty {
    fn new(name: &str) -> Result<Self> {
        let (testbed, control) = faulty_testbed(name, 2, false)?;
        testbed.each(|guest| guest.nic_up(&NicSetup::default()))?;
        Ok(Self { testbed, control })
    }

    fn guest(&self) -> &Guest {
        self.testbed.guest(0)
    }

    /// Puts one fault of the guest in force, in place of others.
    fn strike(&self, fault: &str) -> Result<()> {
        self.guest().run("dmesg -C")?.check()?;
        self.control.apply(&format!("[[fault]]\nguest = \"nic-0\"\n{fault}"))
    }

    /// Ends the fault; returns the number of its strikes, and what the kernel logged.
    fn calm(&self) -> Result<(u64, String)> {
        let strikes = self.control.strikes()?;
        self.control.apply("")?;
        Ok((strikes, self.guest().run("dmesg")?.check()?.stdout))
    }

    fn is_logged(&self, text: &str) -> Result<()> {
        let script = format!("until dmesg | grep -q '{text}'; do sleep 0.1; done");
        self.guest().shell(&script).timeout(LIMIT).run()?.check().map(drop)
    }

    /// Lets the guests send nothing by themselves, so that a test knows which completion is the next.
    fn be_quiet(&self) -> Result<()> {
        for (index, peer) in [(0, 1), (1, 0)] {
            let mac = self
                .testbed
                .guest(peer)
                .run(&format!("cat /sys/class/net/{NIC}/address"))?;
            let (mac, address) = (mac.check()?.text().to_owned(), NicOptions::address(peer));
            let script = format!(
                "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6\n\
                 ip neigh replace {address} lladdr {mac} dev {NIC} nud permanent"
            );
            self.testbed.guest(index).shell(&script).run()?.check()?;
        }
        Ok(())
    }

    /// Returns the number of answers to five echo requests, each within a second.
    fn answers(&self) -> Result<usize> {
        self.answers_within(1)
    }

    fn answers_within(&self, seconds: u32) -> Result<usize> {
        let ping = format!("ping -n -c 5 -i 0.05 -W {seconds} {}", NicOptions::address(1));
        let output = self.guest().run(&ping)?.stdout;
        Ok(output.matches("bytes from").count())
    }

    fn works(&self) -> Result<()> {
        // On a busy machine, an answer may take more than a second.
        assert_eq!(self.answers_within(10)?, 5);
        Ok(())
    }

    /// Makes the interface work that a recovery has made anew.
    fn works_anew(&self) -> Result<()> {
        self.guest().nic_load(true)?;
        self.guest().nic_configure(1500)?;
        self.works()
    }

    /// Loads the driver anew.
    fn rebind(&self) -> Result<()> {
        self.guest().nic_unload()?;
        self.works_anew()
    }

    /// Boots a new kernel.
    fn renew(&self) -> Result<()> {
        self.guest().restart()?;
        self.guest().nic_up(&NicSetup::default())
    }

    fn pages(&self) -> Result<u64> {
        let stats: Value = self.testbed.daemon().stats()?;
        Ok(stats["guests"][0]["pages"].as_u64().expect("a count"))
    }

    fn finish(self) -> Result<()> {
        self.guest().run("dmesg -C")?.check()?;
        finish(self.testbed)
    }
}

#[test]
fn a_driver_meets_a_sick_device() -> Result<()> {
    let faulty = Faulty::new("uml-faults")?;
    // A syndrome is a message, and nothing more.
    faulty.strike("kind = \"health\"\nsyndrome = 0x12")?;
    faulty.is_logged("Health issue observed, ICM fetch PCI data poisoned error, severity(3) ERROR")?;
    let (_, log) = faulty.calm()?;
    assert!(log.contains("synd 0x12:") && !log.contains("recover"), "{log}");
    faulty.works()?;

    faulty.strike("kind = \"health\"\nsyndrome = 1\nfatal = true")?;
    faulty.is_logged("Fatal error 5 detected")?;
    faulty.calm()?;
    faulty.is_logged("health recovery succeeded")?;
    faulty.works_anew()?;
    faulty.renew()?;

    faulty.strike("kind = \"bar_dead\"")?;
    faulty.is_logged("Fatal error 1 detected")?;
    let (_, log) = faulty.calm()?;
    assert!(log.contains("PCI slot is unavailable"), "{log}");
    faulty.is_logged("health recovery succeeded")?;
    faulty.works_anew()?;
    faulty.renew()?;

    // The driver waits for a function that only its own probe enables again.
    faulty.strike("kind = \"function_reset\"\non = \"now\"")?;
    faulty.is_logged("Fatal error 1 detected")?;
    faulty.is_logged("mlx5_error_sw_reset:.*: end")?;
    faulty.rebind()?;
    let (strikes, log) = faulty.calm()?;
    assert_eq!(strikes, 1);
    assert!(log.contains("device is being removed, stop waiting for PCI"), "{log}");

    let before = faulty.pages()?;
    faulty.strike("kind = \"page_request_storm\"\non = \"now\"\npages = 16\nrequests = 20")?;
    while faulty.pages()? < before + 320 {
        thread::sleep(Duration::from_millis(50));
    }
    let (_, log) = faulty.calm()?;
    assert_eq!((faulty.pages()?, log.as_str()), (before + 320, ""));
    faulty.works()?;
    faulty.finish()
}

#[test]
fn an_interface_meets_errors_of_its_queues() -> Result<()> {
    let faulty = Faulty::new("uml-queue-faults")?;
    faulty.be_quiet()?;
    let once = |fault: &str| faulty.strike(&format!("{fault}\ncount = 1"));
    // What is lost is a frame or an interrupt, or made up for by the next.
    for fault in [
        "kind = \"cqe_lost\"",
        "kind = \"eqe_lost\"\nevent_type = 0",
        "kind = \"eqe_late\"\nevent_type = 0\ndelay = \"50ms\"",
        "kind = \"dma_failed\"\npurpose = \"eqe\"",
    ] {
        once(fault)?;
        faulty.answers()?;
        let (strikes, log) = faulty.calm()?;
        assert_eq!((strikes, log.as_str()), (1, ""), "{fault}");
        faulty.works()?;
    }
    // The first three requests are lost, and nobody sends them again.
    faulty.strike("kind = \"frame_loss\"\ndirection = \"out\"\nburst = 3\ncount = 1")?;
    assert_eq!(faulty.answers()?, 2);
    let (strikes, log) = faulty.calm()?;
    assert_eq!((strikes, log.as_str()), (1, ""));
    // Errors of a queue make it anew.
    for (fault, logged) in [
        (
            "kind = \"cqe_error\"\nsyndrome = 2\nvendor_syndrome = 0x68",
            "opcode 0xd, syndrome 0x2, vendor syndrome 0x68",
        ),
        (
            "kind = \"dma_failed\"\npurpose = \"gather\"",
            "opcode 0xd, syndrome 0x4",
        ),
        (
            "kind = \"dma_failed\"\npurpose = \"send_wqe\"",
            "opcode 0xd, syndrome 0x4",
        ),
        // What was posted is flushed.
        (
            "kind = \"dma_failed\"\npurpose = \"doorbell_record\"",
            "opcode 0xd, syndrome 0x5",
        ),
        (
            "kind = \"dma_failed\"\npurpose = \"scatter\"",
            "opcode 0xe, syndrome 0x4",
        ),
        (
            "kind = \"dma_failed\"\npurpose = \"receive_wqe\"",
            "opcode 0xe, syndrome 0x4",
        ),
    ] {
        once(fault)?;
        faulty.answers()?;
        let (strikes, log) = faulty.calm()?;
        let queue = if logged.contains("0xd") {
            "ERR CQE on SQ"
        } else {
            "ERR CQE on RQ"
        };
        assert_eq!(strikes, 1, "{fault}");
        assert!(log.contains(logged) && log.contains(queue), "{fault}: {log}");
        faulty.works()?;
        thread::sleep(GRACE);
    }
    // Of the receive queue: the first completion is that of a request of the peer.
    once("kind = \"cqe_error\"\nsyndrome = 2\nvendor_syndrome = 0x68")?;
    let ping = format!("ping -n -c 3 -i 0.05 -W 1 {}", NicOptions::address(0));
    faulty.testbed.guest(1).run(&ping)?;
    let (strikes, log) = faulty.calm()?;
    assert_eq!(strikes, 1);
    for logged in ["ERR CQE on RQ", "opcode 0xe, syndrome 0x2, vendor syndrome 0x68"] {
        assert!(log.contains(logged), "{log}");
    }
    faulty.works()?;
    // An error of a CQ is a message: its queue is of no use until the interface is set up again. Whether that is the
    // send queue or the receive queue depends on which of their completions is the second.
    for fault in ["kind = \"cq_overrun\"", "kind = \"dma_failed\"\npurpose = \"cqe\""] {
        faulty.strike(&format!("{fault}\nskip = 1\ncount = 1"))?;
        assert!(faulty.answers()? <= 1, "{fault}");
        let (_, log) = faulty.calm()?;
        assert!(log.contains("mlx5e_cq_error_event: cqn="), "{fault}: {log}");
        assert_eq!(faulty.answers()?, 0, "{fault}");
        faulty.guest().run(&format!("ip link set {NIC} down"))?.check()?;
        faulty
            .guest()
            .run("echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6")?
            .check()?;
        faulty.guest().nic_configure(1500)?;
        faulty.be_quiet()?;
        faulty.works()?;
    }
    faulty.finish()
}

#[test]
fn a_driver_waits_for_late_commands_only() -> Result<()> {
    let faulty = Faulty::new("uml-late-commands")?;
    faulty.strike("kind = \"eqe_late\"\nevent_type = 0xa\ndelay = \"500ms\"\ncount = 1")?;
    assert_eq!(faulty.guest().run(COMMAND)?.check()?.text(), "0");
    let (strikes, log) = faulty.calm()?;
    assert_eq!((strikes, log.as_str()), (1, ""));
    // The output is in mailboxes, which cannot be written.
    faulty.strike("kind = \"dma_failed\"\npurpose = \"command_reply\"\ncount = 1")?;
    let output = faulty.guest().run(COMMAND)?;
    let (strikes, _) = faulty.calm()?;
    assert_eq!(strikes, 1);
    assert!(output.stderr.ends_with("Bad address\n"), "{output:?}");
    assert_eq!(faulty.guest().run(COMMAND)?.check()?.text(), "0");
    // A driver that is loaded now takes the limit: it gives a lost command up after two seconds, not after a minute.
    faulty.strike("kind = \"command_timeout\"\nlimit = \"2s\"")?;
    faulty.rebind()?;
    faulty.strike("kind = \"command_lost\"\nopcode = \"QUERY_Q_COUNTER\"\ncount = 1")?;
    let output = faulty.guest().shell(COMMAND).timeout(SHORT_LIMIT).run()?;
    let (strikes, log) = faulty.calm()?;
    assert_eq!(strikes, 1);
    assert!(output.stderr.ends_with("Connection timed out\n"), "{output:?}");
    assert!(log.contains("QUERY_Q_COUNTER(0x773) No done completion"), "{log}");
    // The slot of such a command keeps the driver from its end.
    faulty.renew()?;
    faulty.finish()
}

#[test]
#[ignore = "long: the driver waits for a minute for each command"]
fn a_driver_waits_for_commands_that_are_not_answered() -> Result<()> {
    let faulty = Faulty::new("uml-lost-commands")?;
    let once = |fault: &str| faulty.strike(&format!("{fault}\ncount = 1"));
    // After a minute the driver reads the event queue itself.
    once("kind = \"interrupt_lost\"\nobject = 0")?;
    let output = faulty.guest().shell(COMMAND).timeout(LIMIT).run()?.check()?;
    let (strikes, log) = faulty.calm()?;
    assert_eq!((strikes, output.text()), (1, "0"));
    assert!(log.contains("QUERY_Q_COUNTER(0x773) recovered after timeout"), "{log}");
    faulty.works()?;
    // A command without an answer, or without an event about it, fails. Others go on.
    for fault in [
        "kind = \"eqe_lost\"\nevent_type = 0xa",
        "kind = \"dma_failed\"\npurpose = \"command_fetch\"",
        "kind = \"command_lost\"\nopcode = \"QUERY_Q_COUNTER\"",
    ] {
        faulty.renew()?;
        once(fault)?;
        let output = faulty.guest().shell(COMMAND).timeout(LIMIT).run()?;
        let (strikes, log) = faulty.calm()?;
        assert_eq!(strikes, 1, "{fault}");
        assert!(output.stderr.ends_with("Connection timed out\n"), "{fault}: {output:?}");
        assert!(
            log.contains("QUERY_Q_COUNTER(0x773) No done completion"),
            "{fault}: {log}"
        );
        assert_eq!(faulty.guest().run(COMMAND)?.check()?.text(), "0");
        faulty.works()?;
    }
    // A driver that is unbound waits for the slot of such a command for ever.
    faulty.guest().nic_unload().expect_err("the slot is given back");
    faulty.renew()?;
    faulty.finish()
}

#[test]
#[ignore = "long: the driver waits for 20 s for its receive queue"]
fn an_interface_meets_a_lost_interrupt() -> Result<()> {
    let faulty = Faulty::new("uml-lost-interrupt")?;
    faulty.strike("kind = \"interrupt_lost\"\ncount = 1")?;
    assert_eq!(faulty.answers()?, 0);
    let (strikes, log) = faulty.calm()?;
    assert_eq!((strikes, log.as_str()), (1, ""));
    // Nothing happens until the interface is set down.
    assert_eq!(faulty.answers()?, 0);
    let down = format!("ip link set {NIC} down");
    faulty.guest().shell(&down).timeout(LIMIT).run()?.check()?;
    faulty.guest().nic_configure(1500)?;
    faulty.works()?;
    let (_, log) = faulty.calm()?;
    for text in ["RX timeout on channel: 0", "eqes on EQ 0x"] {
        assert!(log.contains(text), "{log}");
    }
    faulty.finish()
}

#[test]
#[ignore = "long: the health counter is looked at every two seconds"]
fn a_driver_meets_a_health_counter_that_stands_still() -> Result<()> {
    let faulty = Faulty::new("uml-health-counter")?;
    faulty.strike("kind = \"health_stuck\"")?;
    faulty.is_logged("health compromised - reached miss count")?;
    let (_, log) = faulty.calm()?;
    assert!(!log.contains("recover"), "{log}");
    faulty.works()?;
    faulty.finish()
}

/// `mlx5_cmd_comp_handler` takes the second event for one after a timeout, and puts the command again.
#[test]
#[ignore = "long: a guest with a use after free"]
fn a_command_whose_completion_event_comes_twice_is_freed_twice() -> Result<()> {
    const UNDERFLOW: &str = "refcount_t: underflow; use-after-free";
    let faulty = Faulty::new("uml-duplicate-event")?;
    faulty.testbed.allow_splat("cmd_ent_put");
    faulty.strike("kind = \"eqe_duplicate\"\nevent_type = 0xa\ncount = 1")?;
    assert_eq!(faulty.guest().run(COMMAND)?.check()?.text(), "0");
    faulty.is_logged(UNDERFLOW)?;
    let (strikes, log) = faulty.calm()?;
    assert_eq!(strikes, 1);
    assert!(log.contains("Command completion arrived after timeout"), "{log}");
    // The slot's next commands are lost.
    faulty.renew()?;
    faulty.works()?;
    faulty.finish()
}

/// The CQE of an earlier frame after that of a later one: `mlx5e_poll_tx_cq` looks for its WQE for ever.
#[test]
#[ignore = "long: a guest that hangs"]
fn a_late_completion_of_a_frame_hangs_the_processor() -> Result<()> {
    let faulty = Faulty::new("uml-late-completion")?;
    faulty.strike("kind = \"cqe_late\"\ndelay = \"300ms\"\ncount = 1")?;
    let ping = format!("ping -n -c 5 -i 0.1 -W 1 {}", NicOptions::address(1));
    let hangs = faulty.guest().shell(&ping).timeout(Duration::from_secs(20)).run();
    hangs.expect_err("the driver makes up for it");
    faulty.control.apply("")?;
    faulty.renew()?;
    faulty.works()?;
    faulty.finish()
}
