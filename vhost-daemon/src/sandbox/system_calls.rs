//! The system calls that each kind of thread may make.

use syscalls::Sysno;

/// Kind of a thread, by which its system calls are limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ThreadKind {
    /// The main thread, whose filter all threads inherit that it starts.
    Main,
    /// A connection of the stats, metrics or control socket.
    Operator,
    /// A guest's socket: accept loop, messages of the VMM, and the threads that wait for a reset or for workers.
    Attachment,
    /// A worker of a vhost-user connection.
    VringWorker,
    /// The data path of a NIC.
    Worker,
    /// A port of the switch that is no NIC's, with the data path of the receivers.
    Port,
    /// Delayed frames, answers, events and interrupts.
    Faults,
    /// The writer of a capture.
    Capture,
    /// The writer of the log.
    Log,
    /// The writer of dumps of the flight recorder.
    TraceDump,
    /// Ends the connections of guests whose memory is gone.
    LostMemory,
}

/// System calls for one purpose.
#[derive(Debug)]
pub struct Group {
    /// Name, in the documentation.
    pub name: &'static str,
    /// Purpose, in the documentation.
    pub purpose: &'static str,
    /// The calls.
    pub calls: &'static [Sysno],
}

const RUNTIME: Group = Group {
    name: "runtime",
    purpose: "heap and mappings, locks, time, the log, signals of the process, the end of a thread",
    calls: &[
        Sysno::brk,
        Sysno::mmap,
        Sysno::munmap,
        Sysno::mremap,
        Sysno::mprotect,
        Sysno::madvise,
        Sysno::futex,
        Sysno::sched_yield,
        Sysno::sched_getaffinity,
        Sysno::clock_gettime,
        Sysno::gettimeofday,
        Sysno::clock_nanosleep,
        Sysno::nanosleep,
        Sysno::restart_syscall,
        Sysno::rt_sigaction,
        Sysno::rt_sigprocmask,
        Sysno::rt_sigreturn,
        Sysno::sigaltstack,
        Sysno::set_robust_list,
        Sysno::rseq,
        Sysno::getpid,
        Sysno::gettid,
        Sysno::tgkill,
        Sysno::getrandom,
        Sysno::prctl,
        Sysno::seccomp,
        Sysno::write,
        Sysno::writev,
        Sysno::sendto,
        Sysno::close,
        Sysno::fcntl,
        Sysno::exit,
        Sysno::exit_group,
    ],
};

const THREADS: Group = Group {
    name: "threads",
    purpose: "a new thread of the process",
    calls: &[Sysno::clone, Sysno::clone3],
};

const WAIT: Group = Group {
    name: "wait",
    purpose: "several descriptors at a time",
    calls: &[
        Sysno::poll,
        Sysno::ppoll,
        Sysno::epoll_create1,
        Sysno::epoll_ctl,
        Sysno::epoll_wait,
        Sysno::epoll_pwait,
        Sysno::eventfd2,
    ],
};

const STREAM: Group = Group {
    name: "stream",
    purpose: "a connection that is open",
    calls: &[
        Sysno::read,
        Sysno::readv,
        Sysno::recvfrom,
        Sysno::recvmsg,
        Sysno::sendto,
        Sysno::sendmsg,
        Sysno::shutdown,
        Sysno::getsockopt,
        Sysno::setsockopt,
        Sysno::ioctl,
    ],
};

const ACCEPT: Group = Group {
    name: "accept",
    purpose: "a new connection to a socket of the daemon",
    calls: &[Sysno::accept4],
};

const DEVICE: Group = Group {
    name: "device",
    purpose: "kicks, interrupts, requests to the VMM, memory of guests and of pairs of guests, the end of a connection",
    calls: &[
        Sysno::read,
        Sysno::preadv2,
        Sysno::io_submit,
        Sysno::io_getevents,
        Sysno::recvmsg,
        Sysno::sendmsg,
        Sysno::sendto,
        Sysno::shutdown,
        Sysno::memfd_create,
        Sysno::ftruncate,
        Sysno::fallocate,
        Sysno::fstat,
        Sysno::newfstatat,
        Sysno::statx,
        Sysno::fstatfs,
    ],
};

const OUTPUT: Group = Group {
    name: "output",
    purpose: "a capture or a record that is open",
    calls: &[Sysno::lseek, Sysno::pwrite64, Sysno::fsync, Sysno::fdatasync],
};

const FILES: Group = Group {
    name: "files",
    purpose: "records on demand, dumps, the removal of sockets; Landlock says which files",
    calls: &[
        Sysno::open,
        Sysno::openat,
        Sysno::fstat,
        Sysno::newfstatat,
        Sysno::statx,
        Sysno::fchmod,
        Sysno::ftruncate,
        Sysno::geteuid,
        Sysno::getdents64,
        Sysno::renameat2,
        Sysno::unlink,
        Sysno::unlinkat,
    ],
};

/// Groups, in the order of the documentation.
pub const GROUPS: [Group; 8] = [RUNTIME, THREADS, WAIT, STREAM, ACCEPT, DEVICE, OUTPUT, FILES];

/// Calls that only the rest of the set-up makes.
pub const SET_UP: &[Sysno] = &[Sysno::socketpair];

/// Calls of libraries on their way to a file that they can do without (the C library looks for the number of
/// processors, a panic for the names in its backtrace). In threads without [`FILES`] these fail with EACCES.
pub const DENIED: &[Sysno] = &[
    Sysno::open,
    Sysno::openat,
    Sysno::readlink,
    Sysno::access,
    Sysno::getcwd,
    Sysno::stat,
];

impl ThreadKind {
    /// Kinds, in the order of the documentation.
    pub const ALL: [Self; 11] = [
        Self::Main,
        Self::Operator,
        Self::Attachment,
        Self::VringWorker,
        Self::Worker,
        Self::Port,
        Self::Faults,
        Self::Capture,
        Self::Log,
        Self::TraceDump,
        Self::LostMemory,
    ];

    /// Name, in the documentation and in the line about a violation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Operator => "operator",
            Self::Attachment => "attachment",
            Self::VringWorker => "vring worker",
            Self::Worker => "worker",
            Self::Port => "port",
            Self::Faults => "faults",
            Self::Capture => "capture",
            Self::Log => "log",
            Self::TraceDump => "trace dump",
            Self::LostMemory => "lost memory",
        }
    }

    /// Threads of the kind, by their names in docs/architecture.md.
    pub const fn threads(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Operator => "a connection of the stats, metrics or control socket",
            Self::Attachment => "attachment, accept, messages, join, pause",
            Self::VringWorker => "control, doorbell, and the vring workers of User Mode Linux and of ports",
            Self::Worker => "worker",
            Self::Port => "port",
            Self::Faults => "faults",
            Self::Capture => "capture",
            Self::Log => "log",
            Self::TraceDump => "trace dump",
            Self::LostMemory => "lost memory",
        }
    }

    /// Groups of calls that threads of the kind may make.
    pub const fn groups(self) -> &'static [Group] {
        match self {
            Self::Main => &GROUPS,
            Self::Operator => &[RUNTIME, STREAM, DEVICE, OUTPUT, FILES],
            Self::Attachment => &[RUNTIME, THREADS, WAIT, STREAM, ACCEPT, DEVICE, OUTPUT],
            Self::VringWorker => &[RUNTIME, WAIT, DEVICE, OUTPUT],
            Self::Port => &[RUNTIME, WAIT, STREAM, ACCEPT, DEVICE, OUTPUT],
            Self::Worker | Self::Faults => &[RUNTIME, DEVICE, OUTPUT],
            Self::Capture => &[RUNTIME, OUTPUT],
            Self::Log => &[RUNTIME],
            Self::TraceDump => &[RUNTIME, WAIT, STREAM, OUTPUT, FILES],
            Self::LostMemory => &[RUNTIME, STREAM],
        }
    }

    /// The calls that threads of the kind may make.
    pub fn calls(self) -> impl Iterator<Item = Sysno> {
        self.groups().iter().flat_map(|group| group.calls).copied()
    }

    /// Whether files can be opened.
    pub fn has_files(self) -> bool {
        self.groups().iter().any(|group| group.name == FILES.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_thread_starts_programs_opens_sockets_or_reaches_other_processes() {
        let forbidden = [
            Sysno::execve,
            Sysno::execveat,
            Sysno::fork,
            Sysno::vfork,
            Sysno::socket,
            Sysno::connect,
            Sysno::bind,
            Sysno::listen,
            Sysno::ptrace,
            Sysno::process_vm_readv,
            Sysno::process_vm_writev,
            Sysno::pidfd_open,
            Sysno::pidfd_getfd,
            Sysno::kill,
            Sysno::io_uring_setup,
            Sysno::io_uring_enter,
            Sysno::bpf,
            Sysno::perf_event_open,
            Sysno::userfaultfd,
            Sysno::keyctl,
            Sysno::mount,
            Sysno::unshare,
            Sysno::setns,
            Sysno::setuid,
            Sysno::capset,
            Sysno::symlink,
            Sysno::link,
            Sysno::chown,
            Sysno::chmod,
            Sysno::mknod,
            Sysno::open_by_handle_at,
        ];
        for kind in ThreadKind::ALL {
            for call in forbidden {
                assert!(!kind.calls().any(|allowed| allowed == call), "{kind:?}: {call}");
            }
        }
    }

    #[test]
    fn a_signal_may_arrive_on_any_thread() {
        // The handler's message to the main thread, and its return.
        for kind in ThreadKind::ALL {
            for call in [Sysno::sendto, Sysno::rt_sigreturn] {
                assert!(kind.calls().any(|allowed| allowed == call), "{kind:?}: {call}");
            }
        }
    }

    #[test]
    fn the_data_path_opens_no_file_and_starts_no_thread() {
        for kind in [
            ThreadKind::Worker,
            ThreadKind::VringWorker,
            ThreadKind::Capture,
            ThreadKind::Log,
        ] {
            for call in [Sysno::openat, Sysno::unlinkat, Sysno::clone, Sysno::accept4] {
                assert!(!kind.calls().any(|allowed| allowed == call), "{kind:?}: {call}");
            }
        }
    }

    #[test]
    fn a_thread_has_no_call_that_its_parent_lacks() {
        let has = |kind: ThreadKind, call| kind.calls().any(|allowed| allowed == call);
        for kind in ThreadKind::ALL {
            assert!(kind.calls().all(|call| has(ThreadKind::Main, call)), "{kind:?}");
        }
        assert!(
            ThreadKind::VringWorker
                .calls()
                .all(|call| has(ThreadKind::Attachment, call))
        );
    }
}
