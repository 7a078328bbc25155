//! Sweeps: a workload runs again and again, and each time the next of its commands, accesses to memory or completions
//! fails, or the next of its requests to the ISM device.

mod page;
mod report;
mod scripts;

pub use page::compare_with_page;
pub use report::{Step, summary, table};
pub use scripts::Scripts;

use std::str::FromStr;

use crate::daemon_control::DaemonControl;
use crate::error::{Error, Result};
use crate::splat::find_splats;

/// Syndrome of a refused command, by which it is found in logs.
const REFUSED: u32 = 0xfa0175;
/// `MLX5_CMD_STAT_INT_ERR` (device.h).
const INTERNAL_ERROR: u8 = 1;
/// `MLX5_CQE_SYNDROME_LOCAL_QP_OP_ERR` (device.h).
const LOCAL_QP_OPERATION: u8 = 2;

/// Kind of the occasions that fail in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occasion {
    /// Commands: refused with an internal error.
    Command,
    /// Accesses to guest memory, all or those of a purpose: nothing is mapped there.
    Dma(Option<String>),
    /// CQEs: in error.
    Cqe,
    /// Commands: the function is reset as they arrive.
    Reset,
    /// Requests to the ISM device: refused.
    Request,
    /// Maps of the ISM device: the VMM is not asked.
    Map,
    /// Requests to the ISM device: its session ends as they arrive.
    Vanish,
}

impl FromStr for Occasion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "command" => Ok(Self::Command),
            None if text == "dma" => Ok(Self::Dma(None)),
            None if text == "cqe" => Ok(Self::Cqe),
            None if text == "reset" => Ok(Self::Reset),
            None if text == "request" => Ok(Self::Request),
            None if text == "map" => Ok(Self::Map),
            None if text == "vanish" => Ok(Self::Vanish),
            Some(("dma", purpose)) => Ok(Self::Dma(Some(purpose.to_owned()))),
            _ => Err("one of command, dma, dma:PURPOSE, cqe, reset, request, map and vanish".to_owned()),
        }
    }
}

impl Occasion {
    /// Returns the program of the device that the occasions are about.
    pub fn daemon(&self) -> &'static str {
        match self {
            Self::Command | Self::Dma(_) | Self::Cqe | Self::Reset => "vhost-nic",
            Self::Request | Self::Map | Self::Vanish => "vhost-ism",
        }
    }

    /// Name of an occasion in tables that has none in the plan's report.
    fn name(&self) -> &'static str {
        match self {
            // The number of a CQ varies.
            Self::Cqe => "CQE",
            Self::Map => "map",
            Self::Command | Self::Dma(_) | Self::Reset | Self::Request | Self::Vanish => "unknown",
        }
    }

    /// Returns the plan in which the occasion after `skip` others fails, in TOML (docs/faults.md).
    fn plan(&self, guest: &str, skip: u64) -> String {
        let fault = match self {
            Self::Command => {
                format!("kind = \"command_refused\"\nstatus = {INTERNAL_ERROR}\nsyndrome = {REFUSED}")
            }
            Self::Dma(None) => "kind = \"dma_failed\"".to_owned(),
            Self::Dma(Some(purpose)) => format!("kind = \"dma_failed\"\npurpose = \"{purpose}\""),
            Self::Cqe => format!("kind = \"cqe_error\"\nsyndrome = {LOCAL_QP_OPERATION}"),
            Self::Reset => "kind = \"function_reset\"\non = \"command\"".to_owned(),
            Self::Request => "kind = \"request_refused\"\nstatus = \"err\"".to_owned(),
            Self::Map => "kind = \"map_refused\"".to_owned(),
            Self::Vanish => "kind = \"vanish\"\non = \"request\"".to_owned(),
        };
        format!("[[fault]]\nguest = \"{guest}\"\nskip = {skip}\ncount = 1\n{fault}\n")
    }
}

/// A workload, as a sweep repeats it.
pub trait Workload {
    /// Runs the workload. Returns its exit status, or `None` if it did not end in time and was killed.
    fn run(&self) -> Option<i32>;

    /// Undoes what a run did, successful or not. Returns as [`run`](Self::run) does.
    fn undo(&self) -> Option<i32>;

    /// Returns the log of the kernel since the last call.
    fn take_log(&self) -> String;

    /// Boots the guests anew and makes them ready for a run.
    fn restore(&self) -> Result<()>;
}

/// Outcome of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The workload succeeded.
    Recovered,
    /// The workload failed, and could be undone and repeated.
    FailedCleanly,
    /// The workload did not end and was killed, and could be undone and repeated.
    Hung,
    /// The kernel reported an error in itself.
    Splat,
    /// The workload could not be undone, or failed without the fault afterwards.
    Broken,
}

impl Outcome {
    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::FailedCleanly => "failed cleanly",
            Self::Hung => "hung",
            Self::Splat => "splat",
            Self::Broken => "broken",
        }
    }

    /// Whether a driver should do better.
    pub fn is_bad(self) -> bool {
        !matches!(self, Self::Recovered | Self::FailedCleanly)
    }

    /// Judges a step by its run with the fault, and by what followed: undone, repeated, undone.
    fn of(run: Option<i32>, after: [Option<i32>; 3]) -> Self {
        match run {
            _ if after != [Some(0); 3] => Self::Broken,
            None => Self::Hung,
            Some(0) => Self::Recovered,
            Some(_) => Self::FailedCleanly,
        }
    }
}

/// Configuration of a sweep.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Kind of the occasions.
    pub occasion: Occasion,
    /// Name of the guest in plans of faults.
    pub guest: String,
    /// Position of the first occasion that fails, from 1.
    pub first: u64,
    /// Maximum number of steps.
    pub steps: u64,
    /// Distance of the occasions that fail, from 1: the others of a long sweep are alike.
    pub stride: u64,
    /// Rules in force in every run, in TOML.
    pub background: String,
    /// Texts of splats that occur without a fault, too.
    pub allowed_splats: Vec<String>,
}

impl Sweep {
    /// Runs the workload once without a fault, then once per step, until all its occasions have failed. Calls `report`
    /// after each step.
    pub fn run(
        &self,
        control: &DaemonControl,
        workload: &dyn Workload,
        mut report: impl FnMut(&Step),
    ) -> Result<Vec<Step>> {
        control.apply(&self.background)?;
        let statuses = [workload.run(), workload.undo()];
        if statuses != [Some(0); 2] {
            return Err(Error::Sweep(format!(
                "the workload fails without a fault: {statuses:?} (its status, and that of its undoing)"
            )));
        }
        let mut steps = Vec::new();
        let stride = usize::try_from(self.stride.max(1)).unwrap_or(usize::MAX);
        let steps_at_most = usize::try_from(self.steps).unwrap_or(usize::MAX);
        for number in (self.first.max(1)..).step_by(stride).take(steps_at_most) {
            let Some(step) = self.step(number, control, workload)? else {
                break;
            };
            report(&step);
            if matches!(step.outcome, Outcome::Splat | Outcome::Broken) {
                // The next step needs a kernel without the trouble of this one.
                workload.restore()?;
            }
            steps.push(step);
        }
        control.apply("")?;
        Ok(steps)
    }

    /// Runs the workload with one occasion failing; `None` if it has not that many.
    fn step(&self, number: u64, control: &DaemonControl, workload: &dyn Workload) -> Result<Option<Step>> {
        workload.take_log();
        let plan = self.occasion.plan(&self.guest, number - 1);
        control.apply(&format!("{plan}{}", self.background))?;
        let run = workload.run();
        let rules = control.faults()?;
        control.apply(&self.background)?;
        if rules[0]["strikes"] == 0 {
            workload.undo();
            return Ok(None);
        }
        let after = repeat(workload);
        let log = workload.take_log();
        Ok(Some(Step {
            number,
            object: rules[0]["last_object_name"]
                .as_str()
                .unwrap_or(self.occasion.name())
                .to_owned(),
            outcome: match find_splats(&log, &self.allowed_splats)[..] {
                [] => Outcome::of(run, after),
                _ => Outcome::Splat,
            },
            log,
        }))
    }
}

/// Undoes, repeats and undoes the workload, up to the first of these that fails.
fn repeat(workload: &dyn Workload) -> [Option<i32>; 3] {
    let mut after = [None; 3];
    for (result, act) in after.iter_mut().zip([Workload::undo, Workload::run, Workload::undo]) {
        *result = act(workload);
        if *result != Some(0) {
            break;
        }
    }
    after
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Acts with these results, the last first.
    struct Scripted(RefCell<Vec<Option<i32>>>);

    impl Workload for Scripted {
        fn run(&self) -> Option<i32> {
            self.undo()
        }

        fn undo(&self) -> Option<i32> {
            self.0.borrow_mut().pop().expect("no more acts")
        }

        fn take_log(&self) -> String {
            String::new()
        }

        fn restore(&self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_workload_that_cannot_be_undone_is_not_repeated() {
        let repeat = |results: &[Option<i32>]| repeat(&Scripted(RefCell::new(results.to_vec())));
        assert_eq!(repeat(&[Some(0); 3]), [Some(0); 3]);
        assert_eq!(repeat(&[None]), [None; 3]);
        assert_eq!(repeat(&[Some(1), Some(0)]), [Some(0), Some(1), None]);
    }

    #[test]
    fn occasions_are_named_as_on_the_command_line() {
        assert_eq!("command".parse(), Ok(Occasion::Command));
        assert_eq!("dma".parse(), Ok(Occasion::Dma(None)));
        assert_eq!("dma:cqe".parse(), Ok(Occasion::Dma(Some("cqe".to_owned()))));
        assert_eq!("reset".parse(), Ok(Occasion::Reset));
        for (name, occasion) in [
            ("request", Occasion::Request),
            ("map", Occasion::Map),
            ("vanish", Occasion::Vanish),
        ] {
            assert_eq!(occasion.daemon(), "vhost-ism");
            assert_eq!(name.parse(), Ok(occasion));
        }
        assert!("cqe:5".parse::<Occasion>().is_err());
    }

    #[test]
    fn one_occasion_of_one_guest_fails() {
        let plan = Occasion::Dma(Some("eqe".to_owned())).plan("nic-0", 4);
        let lines = "[[fault]]\nguest = \"nic-0\"\nskip = 4\ncount = 1\nkind = \"dma_failed\"\npurpose = \"eqe\"\n";
        assert_eq!(plan, lines);
    }

    #[test]
    fn a_step_is_judged_by_what_follows_it() {
        let well = [Some(0); 3];
        assert_eq!(Outcome::of(Some(0), well), Outcome::Recovered);
        assert_eq!(Outcome::of(Some(1), well), Outcome::FailedCleanly);
        assert_eq!(Outcome::of(None, well), Outcome::Hung);
        assert_eq!(Outcome::of(Some(1), [Some(0), Some(1), Some(0)]), Outcome::Broken);
        assert_eq!(Outcome::of(None, [None, Some(0), Some(0)]), Outcome::Broken);
    }
}
