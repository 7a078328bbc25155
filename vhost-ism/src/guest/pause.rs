//! Watches a stopped device for its reset.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use log::warn;
use vhost_daemon::isolate;

use super::{Guest, Session, State};
use crate::tape::{Entry, GuestTape};

/// Time within which a VMM usually resets a device that it has stopped.
const RESET_TIME: Duration = Duration::from_secs(2);
/// Polling interval for the reset of a stopped device, within [`RESET_TIME`].
const RESET_POLL: Duration = Duration::from_millis(10);
/// Polling interval for the reset of a stopped device, after [`RESET_TIME`].
const PAUSE_POLL: Duration = Duration::from_millis(250);

impl Guest {
    /// Starts a thread that watches for a reset as long as the device is stopped, unless one does. `release` must unmap
    /// the memory of the guest that this process holds, as far as no thread uses it.
    ///
    /// A VMM unmaps the shared memory region of a device that is reset, and of no other. So the session is over when no
    /// process maps its doorbell area.
    pub fn watch_pause(self: &Arc<Self>, release: impl Fn() + Send + 'static) {
        let session =
            self.state.lock().session.clone().filter(|session| {
                session.used.load(Ordering::Relaxed) && !session.watched.swap(true, Ordering::Relaxed)
            });
        let Some(session) = session else { return };
        let guest = self.clone();
        let watch = move || {
            let name = guest.stats.guest();
            isolate(format_args!("{name}: the watch for a reset"), || {
                guest.watch(&session, release)
            });
        };
        if let Err(error) = thread::Builder::new().name("pause".to_owned()).spawn(watch) {
            // A VMM that only pauses its machine loses the session.
            warn!(
                "{}: cannot watch for a reset, treating the stop as one: {error}",
                self.stats.guest()
            );
            self.stop();
        }
    }

    /// Ends a paused session when its device is reset; returns when that is known, or the session resumed.
    fn watch(&self, session: &Arc<Session>, release: impl Fn()) {
        let start = Instant::now();
        loop {
            release();
            self.end_if_abandoned();
            {
                let _state = self.state.lock();
                if !session.is_alive() || !session.is_paused() {
                    session.watched.store(false, Ordering::Relaxed);
                    return;
                }
            }
            thread::sleep(if start.elapsed() < RESET_TIME {
                RESET_POLL
            } else {
                PAUSE_POLL
            });
        }
    }

    /// Ends a paused session whose doorbell area no process maps.
    fn end_if_abandoned(&self) {
        match self.stats.tape() {
            None => {
                let mut state = self.state.lock();
                if is_abandoned(&state) {
                    self.end(&mut state);
                }
            }
            Some(GuestTape { tape, guest }) => {
                let entry = Entry::Abandoned { guest: *guest };
                let mut condition = || is_abandoned(&self.state.lock());
                tape.enter_if(&mut condition, entry, &mut || self.stop_if_paused());
            }
        }
    }
}

/// Whether the session of a stopped device is over: no VMM has its doorbell area mapped.
fn is_abandoned(state: &State) -> bool {
    let session = state.session.as_ref();
    session.is_some_and(|session| session.is_paused() && session.area.is_abandoned())
}
