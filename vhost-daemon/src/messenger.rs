//! Thread that writes to descriptors which may block, so that no other thread has to.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use log::warn;
use parking_lot::{Condvar, Mutex};

/// Messenger of one guest: notifies it through descriptors that are no eventfds. If the guest blocks one, it has no
/// further notifications, and nobody else waits.
#[derive(Debug)]
pub struct Messenger {
    name: String,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Descriptor to write to next. Notifications that come meanwhile are one.
    due: Option<Arc<OwnedFd>>,
    running: bool,
    /// A notification is being written.
    writing: bool,
    ended: bool,
}

impl Messenger {
    /// Creates a messenger; its thread starts with the first notification.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            shared: Arc::default(),
        }
    }

    /// Has 1 written to a descriptor, as to an eventfd. Does not wait.
    pub fn notify(&self, descriptor: &Arc<OwnedFd>) {
        let mut state = self.shared.state.lock();
        state.due = Some(descriptor.clone());
        if !state.running {
            state.running = true;
            if let Err(error) = self.start() {
                state.running = false;
                warn!(
                    "{}: cannot start the thread that notifies the guest: {error}",
                    self.name
                );
            }
        }
        self.shared.wake.notify_one();
    }

    /// Whether a notification is being written, or is due: when the guest is gone, it may have blocked the messenger.
    pub fn is_busy(&self) -> bool {
        let state = self.shared.state.lock();
        state.writing || state.due.is_some()
    }

    fn start(&self) -> io::Result<()> {
        let shared = self.shared.clone();
        thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || shared.run())
            .map(drop)
    }
}

impl Drop for Messenger {
    /// Ends the thread, without waiting for it: it may be blocked.
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let descriptor = {
                let mut state = self.state.lock();
                loop {
                    if state.ended {
                        return;
                    }
                    match state.due.take() {
                        Some(descriptor) => {
                            state.writing = true;
                            break descriptor;
                        }
                        None => self.wake.wait(&mut state),
                    }
                }
            };
            // Fails if earlier notifications are not read yet, or the guest is gone.
            let _ = rustix::io::write(&*descriptor, &1_u64.to_ne_bytes());
            self.state.lock().writing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rustix::fs::{OFlags, fcntl_setfl};
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[test]
    fn a_notification_is_a_count_of_one() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        Messenger::new("a").notify(&Arc::new(writer));
        let messenger = Messenger::new("b");
        let (other, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        messenger.notify(&Arc::new(writer));
        let mut bytes = [0; 8];
        std::fs::File::from(other).read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, 1_u64.to_ne_bytes());
        drop(reader);
    }

    #[test]
    fn nobody_waits_for_a_descriptor_that_blocks() {
        let (_reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
        fcntl_setfl(&writer, OFlags::empty()).unwrap();
        let writer = Arc::new(writer);
        let messenger = Messenger::new("a");
        for _ in 0..100 {
            messenger.notify(&writer);
        }
        assert!(messenger.is_busy());
    }
}
