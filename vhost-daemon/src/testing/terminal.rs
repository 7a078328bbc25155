//! A program on a terminal of its own.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portable_pty::{Child, CommandBuilder, ExitStatus, MasterPty, PtySize, SlavePty, native_pty_system};
use rustix::process::{Pid, Signal, kill_process};
use vt100::Parser;

use super::{Daemon, PATIENCE, Program, eventually};

/// A terminal of some rows and columns, and the program on it; the program is killed when this is dropped.
pub struct Terminal {
    master: Box<dyn MasterPty + Send>,
    /// Keeps the terminal open when the program has ended.
    _slave: Box<dyn SlavePty + Send>,
    keyboard: Box<dyn Write + Send>,
    parser: Arc<Mutex<Parser>>,
    frames: Arc<AtomicUsize>,
    child: Box<dyn Child + Send + Sync>,
    /// Modes of the terminal before the program began.
    modes: String,
}

/// Moves the cursor to the first line.
const HOME: &[u8] = b"\x1b[H";

fn size(rows: u16, cols: u16) -> PtySize {
    PtySize {
        rows,
        cols,
        ..PtySize::default()
    }
}

fn modes(master: &dyn MasterPty) -> String {
    let termios = master.get_termios().expect("a terminal has modes");
    format!(
        "{:?} {:?} {:?}",
        termios.local_flags, termios.input_flags, termios.output_flags
    )
}

impl Terminal {
    /// Starts a program.
    pub fn start(program: Program, args: &[&str], rows: u16, columns: u16) -> Self {
        let pair = native_pty_system()
            .openpty(size(rows, columns))
            .expect("the host has terminals");
        let modes = modes(&*pair.master);
        let mut command = CommandBuilder::new(program.0);
        command.args(args);
        let child = pair.slave.spawn_command(command).expect("the program can be started");
        let parser = Arc::new(Mutex::new(Parser::new(rows, columns, 0)));
        let frames = Arc::<AtomicUsize>::default();
        let mut output = pair.master.try_clone_reader().expect("a terminal has output");
        thread::spawn({
            let (parser, frames) = (parser.clone(), frames.clone());
            move || {
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = output.read(&mut bytes) {
                    let begins = bytes[..length].windows(HOME.len()).filter(|window| *window == HOME);
                    frames.fetch_add(begins.count(), Ordering::Relaxed);
                    parser.lock().process(&bytes[..length]);
                }
            }
        });
        Self {
            keyboard: pair.master.take_writer().expect("a terminal has a keyboard"),
            master: pair.master,
            _slave: pair.slave,
            parser,
            frames,
            child,
            modes,
        }
    }

    /// Returns the lines on the screen, without the empty ones at its end.
    pub fn lines(&self) -> Vec<String> {
        let text = self.parser.lock().screen().contents();
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Number of times that the program began to draw.
    pub fn frames(&self) -> usize {
        self.frames.load(Ordering::Relaxed)
    }

    /// Waits until the lines on the screen are such.
    #[track_caller]
    pub fn until(&self, what: &str, is: impl Fn(&[String]) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is(&self.lines()) {
            assert!(Instant::now() < end, "no {what}: {:#?}", self.lines());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the program has the alternate screen.
    pub fn is_alternate(&self) -> bool {
        self.parser.lock().screen().alternate_screen()
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("the terminal has a keyboard");
    }

    /// Changes the size.
    pub fn resize(&self, rows: u16, columns: u16) {
        self.parser.lock().screen_mut().set_size(rows, columns);
        self.master
            .resize(size(rows, columns))
            .expect("the terminal has a size");
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.process_id().and_then(|id| Pid::from_raw(id.cast_signed()));
        kill_process(pid.expect("the program has an ID"), signal).expect("the program runs");
    }

    /// Waits for the end of the program, and asserts that the terminal is as it was before.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", || {
            status = self.child.try_wait().expect("the program is a child");
            status.is_some()
        });
        eventually("the program leaves its screen", || !self.is_alternate());
        assert!(!self.parser.lock().screen().hide_cursor(), "the cursor is hidden");
        assert_eq!(modes(&*self.master), self.modes);
        status.expect("the program has ended")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asserts that `top` shows tables on a terminal, refreshes and cuts them, and leaves the terminal as it was in every
/// end. Both guests of the daemon, `a` and `b`, are in rows of the table that begins with `header`.
///
/// # Panics
///
/// Panics if `top` does anything else.
#[track_caller]
pub fn assert_top(program: Program, daemon: Daemon, control: &Path, header: [&str; 2]) {
    let control = control.to_str().expect("a path in text");
    let args = ["top", "--interval", "0.1", "--control-socket", control];
    let start = |rows, columns| {
        let terminal = Terminal::start(program, &args, rows, columns);
        terminal.until("the first tables", |lines| {
            lines.last().is_some_and(|line| line == "q: quit") && lines.len() > 3
        });
        assert!(terminal.is_alternate());
        terminal
    };
    let begins = |line: &str| line.split_whitespace().take(2).eq(header);
    let has_guests = |lines: &[String]| {
        let at = lines.iter().position(|line| begins(line));
        at.is_some_and(|at| {
            let names = lines[at + 1..].iter().filter_map(|line| line.split_whitespace().next());
            names.take(2).eq(["a", "b"])
        })
    };
    let mut terminal = start(24, 160);
    terminal.until("a row per guest", has_guests);
    let frames = terminal.frames();
    eventually("the tables are refreshed", || terminal.frames() > frames + 2);
    // Other keys are ignored.
    terminal.press(b"x\x1a");
    let first: String = terminal.lines()[0].chars().take(12).collect();
    terminal.resize(4, 12);
    terminal.until("cut tables", |lines| {
        lines.len() == 4 && lines[0] == first.trim_end() && lines[3] == "q: quit"
    });
    terminal.resize(24, 160);
    terminal.until("whole tables", has_guests);
    terminal.press(b"q");
    assert!(terminal.end().success());

    let mut terminal = start(24, 160);
    terminal.press(&[3]);
    assert!(terminal.end().success());

    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut terminal = start(24, 160);
        terminal.signal(signal);
        assert!(terminal.end().signal().is_some(), "{signal:?}");
    }

    let mut terminal = start(24, 160);
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
    assert_eq!(terminal.end().exit_code(), 1);
    terminal.until("the reason", |lines| {
        lines.iter().any(|line| line.starts_with("error: "))
    });
}
