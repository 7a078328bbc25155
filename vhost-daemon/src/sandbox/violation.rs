//! The end of a daemon that makes a system call which it must not make.

#![expect(unsafe_code, reason = "a signal handler")]

use std::fmt::{self, Write};
use std::io;
use std::mem::MaybeUninit;

use syscalls::Sysno;

use super::filter::Limit;
use super::kind_of_thread;
use super::system_calls::ThreadKind;

/// Exit code after a violation: that of a shell for a program that SIGSYS has ended.
pub const EXIT_CODE: i32 = 128 + libc::SIGSYS;
/// `SYS_SECCOMP` of asm-generic/siginfo.h: a filter has sent the signal, and no process.
const SYS_SECCOMP: libc::c_int = 1;
/// Longest line about a violation.
const LINE: usize = 240;

/// `siginfo_t` of SIGSYS (asm-generic/siginfo.h).
#[repr(C)]
struct SystemCallInfo {
    signal: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    address: *const libc::c_void,
    number: libc::c_int,
    architecture: libc::c_uint,
}

/// Handles SIGSYS from now on.
pub fn handle_violations() -> io::Result<()> {
    // SAFETY: all zero is a valid value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handle as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler calls only functions that are safe in signal handlers.
    match unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes a line with thread and call, and ends the process.
extern "C" fn handle(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid structure, which has these fields for SIGSYS.
    let info = unsafe { &*info.cast::<SystemCallInfo>() };
    if info.code != SYS_SECCOMP {
        // SAFETY: the default action takes the place of this handler.
        unsafe { libc::signal(libc::SIGSYS, libc::SIG_DFL) };
        // SAFETY: a signal to this thread, blocked until the handler returns.
        unsafe { libc::raise(libc::SIGSYS) };
        return;
    }
    let mut name = [0_u8; 16];
    // SAFETY: the kernel writes a name of at most 16 bytes.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name).unwrap_or("?");
    let mut line = Line::default();
    let _ = write!(line, "error: sandbox: thread {name:?}");
    let kind = kind_of_thread();
    if let Some(kind) = kind {
        let _ = write!(line, " ({})", kind.name());
    }
    let call = Sysno::new(info.number as usize);
    let name = call.map_or("unknown", |call| call.name());
    let _ = write!(line, " must not call {name} ({})", info.number);
    let has = |call: &Sysno| kind.unwrap_or(ThreadKind::Main).calls().any(|allowed| allowed == *call);
    if let Some(limit) = call.filter(has).and_then(Limit::of) {
        let _ = write!(line, ", except for {}", limit.text);
    }
    let _ = writeln!(line);
    // SAFETY: the bytes are initialized.
    unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.length) };
    // SAFETY: ends the process; no other thread goes on.
    unsafe { libc::_exit(EXIT_CODE) };
}

/// A line in memory of its own: a signal handler must not allocate.
struct Line {
    bytes: [u8; LINE],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; LINE],
            length: 0,
        }
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.length..];
        let length = text.len().min(room.len());
        room[..length].copy_from_slice(&text.as_bytes()[..length]);
        self.length += length;
        Ok(())
    }
}
