//! Least privilege after the set-up of a daemon: no capabilities, the files that it needs (Landlock), and for each kind
//! of thread the system calls that it needs (seccomp). docs/sandbox.md is generated from the tables here.
//!
//! Both restrictions are of threads, and inherited by those that a thread starts: [`enter`] comes before the first.

mod file_access;
mod filter;
#[cfg(test)]
mod page;
mod privileges;
mod system_calls;
mod violation;

use std::cell::Cell;
use std::io;
use std::sync::OnceLock;

use landlock::{LandlockStatus, RulesetStatus};
use log::{debug, warn};
use rustix::thread::set_no_new_privs;
use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;

use filter::Programs;

pub use file_access::FileAccess;
pub use privileges::User;
pub use system_calls::ThreadKind;
pub use violation::EXIT_CODE;

/// A restriction that failed.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The process may not become this user.
    #[error("cannot become the user of --user")]
    User(#[source] io::Error),
    /// Capabilities, or the privileges of programs, cannot be dropped.
    #[error("cannot drop privileges")]
    Privileges(#[source] io::Error),
    /// Landlock does not work as the kernel says.
    #[error("cannot restrict access to files")]
    Files(#[from] landlock::RulesetError),
    /// A filter of system calls is not valid.
    #[error("cannot make a filter of system calls")]
    Filter(#[from] seccompiler::BackendError),
    /// A filter of system calls cannot be installed.
    #[error("cannot filter system calls")]
    Install(#[source] seccompiler::Error),
    /// SIGSYS cannot be handled.
    #[error("cannot handle SIGSYS")]
    Handler(#[source] io::Error),
}

/// Restrictions of a daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sandbox {
    /// Every restriction that the kernel supports.
    #[default]
    On,
    /// None.
    None,
}

/// Programs of each kind, once the process is in the sandbox.
static FILTERS: OnceLock<Vec<(ThreadKind, Programs)>> = OnceLock::new();

thread_local! {
    /// Kind that this thread is confined as.
    static CONFINED: Cell<Option<ThreadKind>> = const { Cell::new(None) };
}

/// Makes the process another user, if asked for, and restricts it. It has no other thread yet.
///
/// A kernel without Landlock or seccomp costs that restriction, with a line in the log.
///
/// # Errors
///
/// Fails when the user cannot be assumed, or a restriction that the kernel has fails.
pub fn enter(sandbox: Sandbox, user: Option<User>, files: &FileAccess) -> Result<(), SandboxError> {
    let rules = (sandbox == Sandbox::On).then(|| files.prepare()).transpose()?;
    if let Some(user) = user {
        user.assume().map_err(SandboxError::User)?;
    }
    let Some(rules) = rules else { return Ok(()) };
    // The first reading of a clock by rustix looks for the vDSO, with calls that no thread makes later.
    let _ = clock_gettime(ClockId::Monotonic);
    set_no_new_privs(true).map_err(|errno| SandboxError::Privileges(errno.into()))?;
    privileges::drop_capabilities().map_err(SandboxError::Privileges)?;
    let status = file_access::restrict(rules)?;
    match (&status.ruleset, &status.landlock) {
        (RulesetStatus::NotEnforced, _) => warn!("the kernel has no Landlock: the sandbox does not restrict files"),
        (_, landlock @ LandlockStatus::Available { .. }) => debug!("the sandbox restricts files: {landlock:?}"),
        _ => {}
    }
    filter_system_calls()
}

fn filter_system_calls() -> Result<(), SandboxError> {
    violation::handle_violations().map_err(SandboxError::Handler)?;
    let kinds = ThreadKind::ALL.map(|kind| Ok((kind, filter::of_kind(kind)?)));
    let kinds = kinds.into_iter().collect::<Result<_, seccompiler::BackendError>>()?;
    match install(&filter::of_all()?) {
        Ok(()) => {
            // The process enters once.
            let _ = FILTERS.set(kinds);
            Ok(())
        }
        // Of a filter that is valid: the kernel has none (CONFIG_SECCOMP_FILTER).
        Err(seccompiler::Error::Seccomp(error)) if is_unsupported(&error) => {
            warn!("the kernel has no seccomp filters: the sandbox does not restrict system calls");
            Ok(())
        }
        Err(error) => Err(SandboxError::Install(error)),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL))
}

fn install(programs: &Programs) -> Result<(), seccompiler::Error> {
    programs
        .iter()
        .try_for_each(|program| seccompiler::apply_filter(program))
}

/// Confines the calling thread to the system calls of a kind, if the process is in the sandbox. Further calls are
/// ignored.
pub fn confine(kind: ThreadKind) {
    let Some(filters) = FILTERS.get().filter(|_| CONFINED.get().is_none()) else {
        return;
    };
    CONFINED.set(Some(kind));
    let programs = filters.iter().find(|(other, _)| *other == kind);
    if let Some((_, programs)) = programs
        && let Err(error) = install(programs)
    {
        warn!("a thread of kind {} has the system calls of all: {error}", kind.name());
    }
}

/// Returns the kind that the calling thread is confined as.
fn kind_of_thread() -> Option<ThreadKind> {
    CONFINED.get()
}
