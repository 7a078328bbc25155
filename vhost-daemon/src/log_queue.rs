//! The log's way to standard error: through a queue to a thread of its own, so that a reader that stalls stops no
//! thread that logs, whatever locks it holds.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{error, warn};
use parking_lot::{Condvar, Mutex};

use crate::sandbox::{ThreadKind, confine};

/// Bytes that wait at a time; further lines are left out and counted.
const CAPACITY: usize = 256 * 1024;

/// Lines of the log on their way to standard error. Until [`LogQueue::start`], the caller writes them.
#[derive(Debug, Default)]
pub struct LogQueue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    has_writer: bool,
    waiting: Vec<u8>,
    /// Lines left out since the last that were not.
    omitted: u64,
    is_writing: bool,
}

impl LogQueue {
    /// Starts the thread that writes. A panic becomes a line of the log, as its message would else be written by the
    /// thread that panics.
    ///
    /// # Errors
    ///
    /// Fails when the thread cannot be started; lines are then written as before.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        let queue = self.clone();
        self.state.lock().has_writer = true;
        let thread = thread::Builder::new().name("log".to_owned()).spawn(move || {
            confine(ThreadKind::Log);
            queue.run(io::stderr());
        });
        if let Err(error) = thread {
            self.state.lock().has_writer = false;
            return Err(error);
        }
        panic::set_hook(Box::new(log_panic));
        Ok(())
    }

    /// Waits until all lines are written, but not longer than a time.
    pub fn finish(&self, time: Duration) {
        let is_busy = |state: &mut State| state.has_writer && (state.is_writing || !state.waiting.is_empty());
        self.changed.wait_while_for(&mut self.state.lock(), is_busy, time);
    }

    /// Adds a line, or counts it where the queue is full.
    fn push(&self, line: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.has_writer {
            return io::stderr().write_all(line);
        }
        if state.waiting.len() + line.len() > CAPACITY {
            state.omitted += 1;
        } else {
            state.waiting.extend_from_slice(line);
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Writes lines as they come, for ever.
    fn run(&self, mut output: impl Write) {
        loop {
            let (lines, omitted) = self.take();
            // As a program does whose standard error is closed: the rest of it works.
            let _ = output.write_all(&lines);
            if omitted > 0 {
                warn!("{omitted} lines of the log were left out: their reader was too slow");
            }
            self.state.lock().is_writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits for lines. Returns them, and how many were left out after them.
    fn take(&self) -> (Vec<u8>, u64) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.waiting.is_empty());
        state.is_writing = true;
        (std::mem::take(&mut state.waiting), std::mem::take(&mut state.omitted))
    }
}

/// Logs a panic as the standard library prints it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("?");
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => error!("thread {name:?} {panic}\n{backtrace}"),
        _ => error!("thread {name:?} {panic}"),
    }
}

/// The end of a [`LogQueue`] that a logger writes to, a line at a time.
#[derive(Debug)]
pub struct LogInput(pub Arc<LogQueue>);

impl Write for LogInput {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Time after which something counts as never happening.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// An output whose writes wait for a reader.
    struct Stalled {
        begun: Sender<Vec<u8>>,
        go: Receiver<()>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.begun.send(bytes.to_vec()).expect("the test reads");
            self.go.recv().map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn queue_with_stalled_output() -> (Arc<LogQueue>, Receiver<Vec<u8>>, Sender<()>) {
        let queue = Arc::new(LogQueue::default());
        queue.state.lock().has_writer = true;
        let (begun, written) = channel();
        let (go, gone) = channel();
        let writer = queue.clone();
        thread::spawn(move || writer.run(Stalled { begun, go: gone }));
        (queue, written, go)
    }

    #[test]
    fn a_stalled_reader_costs_lines_and_no_thread_waits() {
        let (queue, written, go) = queue_with_stalled_output();
        let mut input = LogInput(queue.clone());
        input.write_all(b"first\n").unwrap();
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), b"first\n");
        let line = [b'x'; 1024];
        for _ in 0..CAPACITY / line.len() + 3 {
            input.write_all(&line).unwrap();
        }
        assert_eq!(queue.state.lock().waiting.len(), CAPACITY);
        assert_eq!(queue.state.lock().omitted, 3);

        queue.finish(Duration::from_millis(1));
        assert!(queue.state.lock().is_writing);
        go.send(()).unwrap();
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), [b'x'; CAPACITY]);
        assert_eq!(queue.state.lock().omitted, 0);
        go.send(()).unwrap();
        queue.finish(PATIENCE);
        let state = queue.state.lock();
        assert!(!state.is_writing && state.waiting.is_empty());
    }
}
