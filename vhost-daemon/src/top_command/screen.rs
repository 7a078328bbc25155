//! The terminal while it shows tables.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};

/// Enters the alternate screen without a cursor, and leaves it.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Moves the cursor to the first line; clears to the end of a line, and of the screen.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
/// Last line of the screen.
const HELP: &str = "q: quit";
/// Ctrl-C, which arrives as a byte.
const INTERRUPT: u8 = 3;
/// Signals that end the program.
const ENDS: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// End of a wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Wake {
    /// The time has come.
    Time,
    /// The user wants to quit.
    Quit,
    /// A signal asks the program to end.
    Signal(i32),
}

/// The terminal; restored when dropped.
#[derive(Debug)]
pub struct Screen {
    original: Termios,
    /// Readable after a signal.
    signals: UnixStream,
    /// Number of the latest signal that asks the program to end; 0 for none.
    ended_by: Arc<AtomicUsize>,
    text: String,
}

impl Screen {
    /// Takes the terminal of standard input and output.
    pub fn enter() -> io::Result<Self> {
        let (signals, notify) = UnixStream::pair()?;
        let ended_by = Arc::<AtomicUsize>::default();
        for signal in ENDS {
            // In this order: the number is there when the socket is readable.
            signal_hook::flag::register_usize(signal, ended_by.clone(), signal as usize)?;
            signal_hook::low_level::pipe::register(signal, notify.try_clone()?)?;
        }
        signal_hook::low_level::pipe::register(SIGWINCH, notify)?;
        let original = tcgetattr(io::stdin())?;
        let mut quiet = original.clone();
        // Keys arrive at once, Ctrl-C among them, so that it does not leave the terminal as it is.
        quiet.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        tcsetattr(io::stdin(), OptionalActions::Now, &quiet)?;
        let screen = Self {
            original,
            signals,
            ended_by,
            text: String::new(),
        };
        write(ENTER)?;
        Ok(screen)
    }

    /// Shows a text, as much as there is room for.
    pub fn show(&mut self, text: String) -> io::Result<()> {
        self.text = text;
        self.draw()
    }

    fn draw(&self) -> io::Result<()> {
        let size = tcgetwinsize(io::stdout())?;
        write(&frame(&self.text, size.ws_row.into(), size.ws_col.into()))
    }

    /// Waits until a time, and draws the text again when the terminal changes its size.
    pub fn wait(&mut self, end: Instant) -> io::Result<Wake> {
        let stdin = io::stdin();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut ready = [
                PollFd::new(&stdin, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
            ];
            match poll(&mut ready, Some(&timeout)) {
                Ok(0) => return Ok(Wake::Time),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let [keys, signals] = ready.map(|ready| !ready.revents().is_empty());
            if signals {
                let _ = self.signals.read(&mut [0; 16])?;
                match self.ended_by.load(Ordering::Relaxed) {
                    0 => self.draw()?,
                    signal => return Ok(Wake::Signal(signal as i32)),
                }
            }
            if keys {
                let mut keys = [0; 16];
                let length = rustix::io::read(&stdin, &mut keys)?;
                if length == 0 || keys[..length].iter().any(|key| matches!(*key, b'q' | INTERRUPT)) {
                    return Ok(Wake::Quit);
                }
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = write(LEAVE);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.original);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Cuts a text to a screen whose last line is the help. A terminal that does not know its size has no limits.
fn frame(text: &str, rows: usize, columns: usize) -> String {
    let [rows, columns] = [rows, columns].map(|size| if size == 0 { usize::MAX } else { size });
    let mut frame = HOME.to_owned();
    let lines = text.lines().chain([""]).take(rows.saturating_sub(1));
    for line in lines {
        // Before the text: behind the last column it would clear that.
        frame.push_str(CLEAR_LINE);
        frame.extend(line.chars().take(columns));
        frame.push_str("\r\n");
    }
    frame.push_str(CLEAR_BELOW);
    frame.extend(HELP.chars().take(columns));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_to_the_screen() {
        let text = "guest  rate\na      12\nb      3\n";
        let line = |text: &str| format!("{CLEAR_LINE}{text}\r\n");
        let end = |help: &str| format!("{CLEAR_BELOW}{help}");
        let whole = ["guest  rate", "a      12", "b      3", ""].map(line).concat();
        assert_eq!(frame(text, 24, 80), format!("{HOME}{whole}{}", end("q: quit")));
        assert_eq!(frame(text, 0, 0), frame(text, 24, 80));
        let narrow = ["guest", "a    "].map(line).concat();
        assert_eq!(frame(text, 3, 5), format!("{HOME}{narrow}{}", end("q: qu")));
        assert_eq!(frame(text, 1, 80), format!("{HOME}{}", end("q: quit")));
    }
}
