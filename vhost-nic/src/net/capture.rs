//! Capture of the frames that enter a switch, and of the commands of its NICs, in pcapng format (Wireshark).
//!
//! The threads that move the frames only append them to a `queue`, and the effects of frames to the frames there. The
//! `writer`'s thread takes what is old enough to have had its effects, and writes it, each with a `comment`.

mod command_block;
mod comment;
mod queue;
mod writer;

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use vhost_daemon::sandbox::{ThreadKind, confine};

use super::switch::Switch;
use super::tap::Tap;
use queue::Queue;

pub use command_block::CommandHeader;

/// Time that the end of a capture may wait for the output, which may be a pipe that nobody reads.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Selection and limits of a capture.
#[derive(Debug, Clone)]
pub struct CaptureOptions {
    /// Port whose frames are captured, those that it sends and those that are delivered to it. By default, all are.
    pub port: Option<String>,
    /// Whether commands are captured.
    pub commands: bool,
    /// Maximum bytes of output.
    pub limit: Option<u64>,
    /// Maximum bytes of memory for what has not been written.
    pub memory: usize,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        Self {
            port: None,
            commands: false,
            limit: None,
            memory: 64 << 20,
        }
    }
}

/// Counters of a capture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CaptureStats {
    /// Frames in the output.
    pub frames: u64,
    /// Commands in the output.
    pub commands: u64,
    /// Frames and commands omitted: there was no memory for them, or the output has reached its limit or cannot be
    /// written.
    pub omitted: u64,
    /// Length of the output in bytes.
    pub bytes: u64,
}

/// A tap of a switch while this exists.
struct Attached {
    switch: Arc<Switch>,
    tap: Arc<dyn Tap>,
}

impl Attached {
    fn new(switch: &Arc<Switch>, queue: &Arc<Queue>) -> Self {
        let tap: Arc<dyn Tap> = queue.clone();
        switch.add_tap(tap.clone());
        Self {
            switch: switch.clone(),
            tap,
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.switch.remove_tap(&self.tap);
    }
}

/// Captures a switch on the calling thread, for `duration` or until the output takes no more.
pub fn capture_for(
    switch: &Arc<Switch>,
    output: impl Write,
    options: &CaptureOptions,
    duration: Option<Duration>,
) -> CaptureStats {
    let deadline = duration.and_then(|duration| Instant::now().checked_add(duration));
    let queue = Arc::new(Queue::new(options, deadline));
    let _attached = Attached::new(switch, &queue);
    writer::run(&queue, output, options.limit);
    queue.stats()
}

/// A capture with a thread of its own; it ends when this is dropped.
pub struct Capture {
    queue: Arc<Queue>,
    attached: Option<Attached>,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Capture {
    /// Starts a capture of a switch. `output` may block.
    pub fn start(
        switch: &Arc<Switch>,
        output: impl Write + Send + 'static,
        options: &CaptureOptions,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::new(options, None));
        let (limit, shared) = (options.limit, queue.clone());
        thread::Builder::new().name("capture".to_owned()).spawn(move || {
            confine(ThreadKind::Capture);
            writer::run(&shared, output, limit);
        })?;
        let attached = Some(Attached::new(switch, &queue));
        Ok(Self { queue, attached })
    }

    /// Takes a snapshot of the counters.
    pub fn stats(&self) -> CaptureStats {
        self.queue.stats()
    }

    /// Whether the output takes no more.
    pub fn is_over(&self) -> bool {
        self.queue.is_closed()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.attached = None;
        if !self.queue.end(END_TIMEOUT) {
            log::warn!("the end of the capture is not written: its reader does not read");
        }
    }
}

#[cfg(test)]
mod tests;
