//! Seccomp filters of the kinds of threads.

use std::collections::{BTreeMap, BTreeSet};

use libc::{
    AF_UNIX, CLONE_THREAD, F_ADD_SEALS, F_DUPFD_CLOEXEC, F_GET_SEALS, F_GETFD, F_GETFL, F_SETFD, F_SETFL, FIOCLEX,
    FIONBIO, PR_GET_NAME, PR_SET_NAME, PR_SET_NO_NEW_PRIVS, PR_SET_VMA, PROT_EXEC,
};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use syscalls::Sysno;

use super::system_calls::{DENIED, SET_UP, ThreadKind};

/// Limit of a system call: values of one of its arguments.
#[derive(Debug)]
pub struct Limit {
    /// The call.
    pub call: Sysno,
    /// Description of the allowed calls, for the documentation and the line about a violation.
    pub text: &'static str,
    argument: u8,
    values: Values,
}

#[derive(Debug)]
enum Values {
    /// Equal to one of the values.
    OneOf(&'static [u64]),
    /// With this bit.
    With(u64),
    /// Without this bit.
    Without(u64),
    /// The process ID of the daemon.
    OwnProcess,
}

/// The limits, in the order of the documentation.
pub static LIMITS: [Limit; 8] = [
    Limit {
        call: Sysno::mmap,
        text: "mappings that are not executable",
        argument: 2,
        values: Values::Without(PROT_EXEC as u64),
    },
    Limit {
        call: Sysno::mprotect,
        text: "mappings that are not executable",
        argument: 2,
        values: Values::Without(PROT_EXEC as u64),
    },
    Limit {
        call: Sysno::clone,
        text: "threads of the process (CLONE_THREAD)",
        argument: 0,
        values: Values::With(CLONE_THREAD as u64),
    },
    Limit {
        call: Sysno::tgkill,
        text: "signals to the process itself",
        argument: 0,
        values: Values::OwnProcess,
    },
    Limit {
        call: Sysno::prctl,
        text: "names of threads and mappings, and no_new_privs",
        argument: 0,
        values: Values::OneOf(&[
            PR_SET_NAME as u64,
            PR_GET_NAME as u64,
            PR_SET_NO_NEW_PRIVS as u64,
            PR_SET_VMA as u64,
        ]),
    },
    Limit {
        call: Sysno::fcntl,
        text: "duplicates, flags and seals of a descriptor",
        argument: 1,
        values: Values::OneOf(&[
            F_DUPFD_CLOEXEC as u64,
            F_GETFD as u64,
            F_SETFD as u64,
            F_GETFL as u64,
            F_SETFL as u64,
            F_ADD_SEALS as u64,
            F_GET_SEALS as u64,
        ]),
    },
    Limit {
        call: Sysno::ioctl,
        text: "FIONBIO and FIOCLEX",
        argument: 1,
        values: Values::OneOf(&[FIONBIO, FIOCLEX]),
    },
    Limit {
        call: Sysno::socketpair,
        text: "Unix sockets",
        argument: 0,
        values: Values::OneOf(&[AF_UNIX as u64]),
    },
];

impl Limit {
    /// Returns the limit of a call.
    pub fn of(call: Sysno) -> Option<&'static Self> {
        LIMITS.iter().find(|limit| limit.call == call)
    }

    /// Returns the alternatives, each of which allows the call.
    fn rules(&self) -> Result<Vec<SeccompRule>, BackendError> {
        let (width, own) = (SeccompCmpArgLen::Dword, u64::from(std::process::id()));
        let conditions: Vec<(SeccompCmpOp, u64)> = match self.values {
            Values::OneOf(values) => values.iter().map(|value| (SeccompCmpOp::Eq, *value)).collect(),
            Values::With(bit) => vec![(SeccompCmpOp::MaskedEq(bit), bit)],
            Values::Without(bit) => vec![(SeccompCmpOp::MaskedEq(bit), 0)],
            Values::OwnProcess => vec![(SeccompCmpOp::Eq, own)],
        };
        let rule = |(operator, value)| {
            SeccompRule::new(vec![SeccompCondition::new(
                self.argument,
                width.clone(),
                operator,
                value,
            )?])
        };
        conditions.into_iter().map(rule).collect()
    }
}

/// Programs of a kind of thread, in the order in which they are installed.
pub type Programs = Vec<BpfProgram>;

/// Returns the programs that all threads inherit: calls of any kind, and of the rest of the set-up.
pub fn of_all() -> Result<Programs, BackendError> {
    // Its flags are in memory, where a filter cannot look; the C library then takes clone.
    let clone3 = answer(&[Sysno::clone3], libc::ENOSYS)?;
    let calls = ThreadKind::Main.calls().chain(SET_UP.iter().copied());
    Ok(vec![clone3, allow(calls.chain(DENIED.iter().copied()))?])
}

/// Returns the programs of a kind, beside those that all threads inherit.
pub fn of_kind(kind: ThreadKind) -> Result<Programs, BackendError> {
    if kind.has_files() {
        return Ok(vec![allow(kind.calls())?]);
    }
    let calls = kind.calls().chain(DENIED.iter().copied());
    Ok(vec![answer(DENIED, libc::EACCES)?, allow(calls)?])
}

/// Allows these calls within their limits; another one is a violation.
fn allow(calls: impl Iterator<Item = Sysno>) -> Result<BpfProgram, BackendError> {
    let calls: BTreeSet<Sysno> = calls.collect();
    let rules = calls.into_iter().map(|call| {
        Ok((
            i64::from(call.id()),
            Limit::of(call).map_or(Ok(Vec::new()), Limit::rules)?,
        ))
    });
    let rules = rules.collect::<Result<_, BackendError>>()?;
    compile(rules, SeccompAction::Trap, SeccompAction::Allow)
}

/// Answers these calls with an error.
fn answer(calls: &[Sysno], errno: i32) -> Result<BpfProgram, BackendError> {
    let rules = calls.iter().map(|call| (i64::from(call.id()), Vec::new())).collect();
    compile(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32))
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    others: SeccompAction,
    these: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, others, these, architecture)?.try_into()
}
