//! Dumps of the flight recorder: files with the latest events, written when an event or SIGUSR1 asks for one.

use std::io::{self, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::{info, warn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::SIGUSR1;

use crate::panic::isolate;
use crate::sandbox::{ThreadKind, confine};

use super::dump_directory::{DumpDirectory, UnfinishedDump};
use super::file::{Timeline, write_perfetto};
use super::recorder::Session;
use super::stream::{Header, Trace};
use super::trigger::{self, Cause, Trigger, Wants};

/// Time after the trigger whose events are in a dump as well: the consequences.
const AFTER: Duration = Duration::from_millis(100);
/// Interval at which the rings are read meanwhile.
const DRAIN_INTERVAL: Duration = Duration::from_millis(5);

/// Options of the dumps.
pub struct DumpOptions {
    /// Directory of the files.
    pub directory: PathBuf,
    /// Maximum number of files, of which the latest are kept.
    pub files: usize,
    /// Shortest time from one dump to the next that an event asks for.
    pub interval: Duration,
    /// Source of the traces.
    pub header: Header,
    /// Events that ask for a dump.
    pub wants: Wants,
}

/// SIGUSR1, which asks for a dump from now on.
#[derive(Debug)]
pub struct DumpSignal {
    pipe: UnixStream,
    wake: UnixStream,
    signalled: Arc<AtomicBool>,
}

impl DumpSignal {
    /// Takes the signal in place of its default action.
    pub fn register() -> io::Result<Self> {
        let (pipe, wake) = UnixStream::pair()?;
        let signalled = Arc::default();
        // In this order: the flag is set when the pipe wakes the thread.
        signal_hook::flag::register(SIGUSR1, Arc::clone(&signalled))?;
        signal_hook::low_level::pipe::register(SIGUSR1, wake.try_clone()?)?;
        Ok(Self { pipe, wake, signalled })
    }
}

/// The thread that writes dumps. Dropping it writes the dump that was asked for last, and ends the thread.
#[derive(Debug)]
pub struct Dumper {
    stop: Arc<AtomicBool>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Dumper {
    /// Starts a thread that writes a dump for events and for the signal. A process has one.
    pub fn start<T: Timeline + 'static>(
        options: DumpOptions,
        signal: DumpSignal,
        timeline: fn(&Trace) -> T,
    ) -> io::Result<Self> {
        let daemon = options.header.daemon.clone();
        let directory = DumpDirectory::open(&options.directory, &daemon, options.files)?;
        let stop = Arc::<AtomicBool>::default();
        let DumpSignal { pipe, wake, signalled } = signal;
        let writer = Writer {
            directory,
            header: options.header,
            interval: options.interval,
            timeline,
            pipe,
            stop: stop.clone(),
            signalled,
            trigger: trigger::arm(options.wants, wake.try_clone()?)?,
        };
        let thread = thread::Builder::new()
            .name("trace dump".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self {
            stop,
            wake,
            thread: Some(thread),
        })
    }
}

impl Drop for Dumper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.wake.write(&[0]);
        // The panic hook has reported a panic already.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Writer<T> {
    directory: DumpDirectory,
    header: Header,
    interval: Duration,
    timeline: fn(&Trace) -> T,
    pipe: UnixStream,
    stop: Arc<AtomicBool>,
    signalled: Arc<AtomicBool>,
    trigger: &'static Trigger,
}

impl<T: Timeline> Writer<T> {
    fn run(mut self) {
        confine(ThreadKind::TraceDump);
        let mut next = Instant::now();
        loop {
            let stops = self.stop.load(Ordering::Acquire);
            let signalled = self.signalled.swap(false, Ordering::AcqRel);
            let now = Instant::now();
            let asked = self.trigger.is_set();
            if signalled || asked && (stops || now >= next) {
                let after = if stops { Duration::ZERO } else { AFTER };
                if let Some(Err(error)) = isolate("a dump", || self.dump(signalled, after)) {
                    warn!("cannot write a trace of the latest events: {error}");
                }
                next = Instant::now() + self.interval;
            } else if stops {
                return;
            } else {
                self.wait(asked.then(|| next - now));
            }
        }
    }

    /// Waits until something asks for a dump, or for a time.
    fn wait(&mut self, timeout: Option<Duration>) {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut ready = [PollFd::new(&self.pipe, PollFlags::IN)];
        if let Ok(1) = poll(&mut ready, timeout.as_ref()) {
            let _ = self.pipe.read(&mut [0; 64]);
        }
    }

    /// Writes what the rings have, and the events of the time `after`.
    fn dump(&self, signalled: bool, after: Duration) -> io::Result<()> {
        let mut session = Session::start(true);
        let mut batches = Vec::new();
        let end = Instant::now() + after;
        loop {
            batches.extend(session.drain());
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(DRAIN_INTERVAL));
        }
        // Whatever asks for the next dump may not be in this one.
        let cause = self.trigger.take();
        batches.extend(session.drain());
        drop(session);
        let trace = Trace::of_batches(self.header.clone(), batches);
        let timeline = (self.timeline)(&trace);
        let mut dump = self.directory.create()?;
        let written = write(&mut dump, &trace, &timeline);
        if let Err(error) = written {
            self.directory.discard(&dump);
            return Err(error);
        }
        let path = self.directory.complete(dump)?;
        let (path, count) = (path.display(), trace.events.len());
        match cause {
            _ if signalled => info!("{path}: the latest {count} events, on SIGUSR1"),
            Some(cause) => info!(
                "{path}: the latest {count} events, on {}",
                text(cause, &trace, &timeline)
            ),
            None => info!("{path}: the latest {count} events"),
        }
        Ok(())
    }
}

fn write(dump: &mut UnfinishedDump, trace: &Trace, timeline: &impl Timeline) -> io::Result<()> {
    write_perfetto(&mut BufWriter::new(&mut dump.file), trace, timeline)
}

/// Name and label of the event that asked for a dump.
fn text(cause: Cause, trace: &Trace, timeline: &impl Timeline) -> String {
    let declaration = trace.header.events.get(usize::from(cause.event));
    let name = declaration.map_or("an event", |declaration| declaration.name.as_str());
    let guest = trace.header.guests.get(usize::from(cause.guest));
    let guest = guest.map_or("unknown", String::as_str);
    let same = trace
        .events
        .iter()
        .rfind(|event| (event.event, event.guest, event.object) == (cause.event, cause.guest, cause.object));
    match same {
        Some(event) => format!("{name} of guest {guest}: {}", timeline.label(event)),
        None => format!("{name} of guest {guest}"),
    }
}

#[cfg(test)]
mod tests;
