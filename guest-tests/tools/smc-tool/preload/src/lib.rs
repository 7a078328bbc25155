//! `libsmc_preload.so`: `LD_PRELOAD` library that turns the TCP sockets of an unmodified program into SMC sockets.
//!
//! Only `socket()` is replaced. A stream socket of IPv4 or IPv6 with protocol 0 or TCP is created with `IPPROTO_SMC`
//! (include/uapi/linux/in.h, net/smc/smc_inet.c); every other call passes through unchanged. The library never falls
//! back to TCP: in a kernel without SMC the call fails, so that no test measures TCP by accident.

use libc::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, SYS_socket, c_int};

/// Protocol number of SMC for IPv4 and IPv6 sockets (include/uapi/linux/in.h).
const IPPROTO_SMC: c_int = 256;

/// Returns the protocol to request from the kernel for the arguments of the program's call.
fn protocol_for(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    let internet = domain == AF_INET || domain == AF_INET6;
    let stream = kind & !(SOCK_CLOEXEC | SOCK_NONBLOCK) == SOCK_STREAM;
    if internet && stream && (protocol == 0 || protocol == IPPROTO_TCP) {
        IPPROTO_SMC
    } else {
        protocol
    }
}

/// Replaces `socket(2)`; see the crate documentation.
///
/// # Safety
///
/// No argument is a pointer, so every call is sound. The function is `unsafe` only because it replaces a symbol of the
/// C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    // SAFETY: socket(2) takes three integers and touches no memory of this process apart from errno.
    let result = unsafe { libc::syscall(SYS_socket, domain, kind, protocol_for(domain, kind, protocol)) };
    // The kernel returns a file descriptor, which fits in an int, or -1.
    result as c_int
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_sockets_become_smc() {
        for domain in [AF_INET, AF_INET6] {
            for protocol in [0, IPPROTO_TCP] {
                let kind = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
                assert_eq!(protocol_for(domain, SOCK_STREAM, protocol), IPPROTO_SMC);
                assert_eq!(protocol_for(domain, kind, protocol), IPPROTO_SMC);
            }
        }
    }

    #[test]
    fn other_sockets_stay_what_they_are() {
        assert_eq!(protocol_for(AF_INET, libc::SOCK_DGRAM, 0), 0);
        assert_eq!(protocol_for(libc::AF_UNIX, SOCK_STREAM, 0), 0);
        assert_eq!(
            protocol_for(AF_INET, SOCK_STREAM, libc::IPPROTO_SCTP),
            libc::IPPROTO_SCTP
        );
        assert_eq!(protocol_for(AF_INET6, SOCK_STREAM, IPPROTO_SMC), IPPROTO_SMC);
    }
}
