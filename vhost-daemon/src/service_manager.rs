//! Notifications to the service manager that has started the daemon (sd_notify(3)).

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use log::warn;
use sd_notify::{NotifyState, watchdog_enabled};

/// The service manager, if there is one. The socket is connected once: in the sandbox it cannot be.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// Interval of the watchdog's notifications, half of the time after which it acts.
    interval: Option<Duration>,
    last: Option<Instant>,
}

impl ServiceManager {
    /// Connects to the service manager of NOTIFY_SOCKET, if there is one.
    pub fn connect() -> Self {
        let socket = connect().unwrap_or_else(|error| {
            warn!("cannot notify the service manager: {error}");
            None
        });
        let interval = watchdog_enabled().filter(|_| socket.is_some()).map(|time| time / 2);
        Self {
            socket,
            interval,
            last: None,
        }
    }

    /// Interval of the watchdog's notifications, if there is a watchdog.
    pub fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// Reports that the daemon serves its sockets.
    pub fn ready(&self) {
        self.send(&NotifyState::Ready);
    }

    /// Reports that the daemon ends.
    pub fn stopping(&self) {
        self.send(&NotifyState::Stopping);
    }

    /// Reports that all threads are alive, if it is time to.
    pub fn alive(&mut self, now: Instant) {
        let Some(interval) = self.interval else { return };
        if self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= interval)
        {
            self.last = Some(now);
            self.send(&NotifyState::Watchdog);
        }
    }

    fn send(&self, state: &NotifyState<'_>) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.to_string().as_bytes())
        {
            warn!("cannot notify the service manager: {error}");
        }
    }
}

fn connect() -> io::Result<Option<UnixDatagram>> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(None);
    };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // The main thread waits for nobody.
    socket.set_nonblocking(true)?;
    Ok(Some(socket))
}
