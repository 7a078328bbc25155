//! Sweeps of the caller's command.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use guest_harness::sweep::{Occasion, Step, Sweep, Workload, summary, table};
use guest_harness::{Cmd, DaemonControl, Exit, Testbed};

use crate::args::Arguments;
use crate::evidence::Evidence;
use crate::program::{Ended, Outcome};
use crate::report::{Case, Report, Verdict};
use crate::results;

/// The commands of a run, as a sweep repeats them.
pub struct Commands<'a> {
    pub testbed: &'a Testbed,
    /// Runs the commands to their end.
    pub run: &'a dyn Fn() -> Result<Vec<(String, Ended)>>,
    /// Returns the command that undoes them, if there is one.
    pub undo: &'a dyn Fn() -> Result<Option<Cmd>>,
    /// Makes booted guests ready for the commands.
    pub set_up: &'a dyn Fn() -> Result<()>,
}

impl Workload for Commands<'_> {
    fn run(&self) -> Option<i32> {
        // A guest that was lost does not answer in time either.
        let ended = (self.run)().ok()?;
        let mut outcomes = ended.iter().map(|(_, ended)| &ended.outcome);
        if outcomes.any(|outcome| matches!(outcome, Outcome::TimeLimit | Outcome::Lost(_))) {
            return None;
        }
        let statuses = ended.iter().map(|(_, ended)| ended.outcome.status());
        Some(statuses.map(i32::from).find(|status| *status != 0).unwrap_or(0))
    }

    fn undo(&self) -> Option<i32> {
        let Some(command) = (self.undo)().ok()? else {
            return Some(0);
        };
        match command.run().ok()?.status {
            Exit::Code(code) => Some(code),
            Exit::Signal(signal) => Some(128 + signal),
        }
    }

    fn take_log(&self) -> String {
        let guests = self.testbed.guests().iter();
        let logs = guests.map(|guest| match guest.run("dmesg --read-clear") {
            Ok(output) => output.stdout,
            Err(_) => guest.console().text(),
        });
        logs.collect()
    }

    fn restore(&self) -> guest_harness::Result<()> {
        self.testbed.each(|guest| guest.restart())?;
        (self.set_up)().map_err(|error| guest_harness::Error::Sweep(format!("{error:#}")))
    }
}

/// Sweeps the commands, shows and leaves the table, and adds a test case for each step to the evidence.
pub fn run(
    arguments: &Arguments,
    occasion: &Occasion,
    daemon: &DaemonControl,
    commands: &Commands<'_>,
    folder: &Path,
    evidence: &mut Evidence,
) -> Result<()> {
    let sweep = Sweep {
        occasion: occasion.clone(),
        guest: guest(occasion).to_owned(),
        first: arguments.sweep_from,
        steps: arguments.sweep_steps,
        stride: arguments.sweep_stride,
        background: String::new(),
        allowed_splats: Vec::new(),
    };
    let mut last = Instant::now();
    let mut cases = Vec::new();
    let mut kept = Ok(());
    let steps = sweep.run(daemon, commands, |step| {
        let time = last.elapsed();
        last = Instant::now();
        if !arguments.quiet {
            let seconds = time.as_secs_f64();
            let (number, outcome) = (step.number, step.outcome.name());
            eprintln!("==> step {number}: {}: {outcome} after {seconds:.1} s", step.object);
        }
        if step.outcome.is_bad() && kept.is_ok() {
            kept = results::write(folder, &format!("step-{}.log", step.number), &step.log);
        }
        cases.push(Case {
            time: Some(time),
            ..case(step)
        });
    })?;
    kept?;
    let table = format!("{}\n{}\n", table(&steps), summary(&steps));
    print!("{table}");
    results::write(folder, "sweep.md", &table)?;
    let report = Report { format: "sweep", cases };
    evidence.add("guest a", report);
    Ok(())
}

/// Name in plans of faults of the guest that runs the command.
fn guest(occasion: &Occasion) -> &'static str {
    match occasion.daemon() {
        "vhost-ism" => "ism-0",
        _ => "nic-0",
    }
}

fn case(step: &Step) -> Case {
    Case {
        suite: String::new(),
        name: format!("{} {}", step.number, step.object),
        verdict: if step.outcome.is_bad() {
            Verdict::Failed(step.outcome.name().to_owned())
        } else {
            Verdict::Passed
        },
        output: step.outcome.name().to_owned(),
        time: None,
    }
}

#[cfg(test)]
mod tests {
    use guest_harness::sweep::Outcome;

    use super::*;

    #[test]
    fn a_driver_may_fail_but_not_badly() {
        for (outcome, verdict) in [
            (Outcome::Recovered, Verdict::Passed),
            (Outcome::FailedCleanly, Verdict::Passed),
            (Outcome::Hung, Verdict::Failed("hung".to_owned())),
            (Outcome::Splat, Verdict::Failed("splat".to_owned())),
            (Outcome::Broken, Verdict::Failed("broken".to_owned())),
        ] {
            let step = Step {
                number: 7,
                object: "CREATE_CQ".to_owned(),
                outcome,
                log: String::new(),
            };
            let case = case(&step);
            assert_eq!((case.name.as_str(), case.verdict), ("7 CREATE_CQ", verdict));
        }
    }
}
