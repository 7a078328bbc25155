//! The `top` command of the daemons' programs: rates between two documents of counters, again and again.

mod screen;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use crate::control_client::{Client, ClientError};
use crate::control_command::CommonCommand;
use screen::{Screen, Wake};

/// Options of the `top` command.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Control socket of the daemon.
    #[arg(long, value_name = "PATH")]
    pub control_socket: PathBuf,

    /// Seconds between two documents of counters, from 0.1 to 3600.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub interval: f64,

    /// Print the rates of one interval and exit.
    #[arg(long)]
    pub once: bool,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "not a number from 0.1 to 3600".to_owned())
}

/// Two documents of counters, one an interval after the other.
pub struct Interval {
    before: Value,
    after: Value,
    seconds: f64,
}

impl Interval {
    /// Returns the value at a path of the later document (RFC 6901).
    pub fn value(&self, path: &str) -> &Value {
        self.after.pointer(path).unwrap_or(&Value::Null)
    }

    /// Returns the number at a path of the later document; 0 if there is none.
    pub fn number(&self, path: &str) -> u64 {
        self.value(path).as_u64().unwrap_or(0)
    }

    /// Returns the growth per second of the counter at a path.
    pub fn rate(&self, path: &str) -> u64 {
        self.per_second(path, u64::wrapping_sub)
    }

    /// Returns the growth per second of the counter of `bits` bits at a path. An object that is new has none.
    pub fn rate_of_bits(&self, path: &str, bits: u32) -> u64 {
        self.per_second(path, |after, before| after.wrapping_sub(before) & ((1 << bits) - 1))
    }

    fn per_second(&self, path: &str, difference: impl Fn(u64, u64) -> u64) -> u64 {
        let number = |document: &Value| document.pointer(path).and_then(Value::as_u64);
        match (number(&self.after), number(&self.before)) {
            (Some(after), Some(before)) => (difference(after, before) as f64 / self.seconds).round() as u64,
            _ => 0,
        }
    }

    /// Returns the sum of the fields of the later document's object at a path.
    pub fn sum(&self, path: &str) -> u64 {
        let fields = self
            .value(path)
            .as_object()
            .into_iter()
            .flat_map(|fields| fields.values());
        fields.filter_map(Value::as_u64).sum()
    }
}

impl TopArgs {
    /// Shows the tables that `render` makes of each interval until the user quits, or once.
    pub fn run(&self, render: impl Fn(&Interval) -> String) -> Result<(), ClientError> {
        let mut client = Client::connect(&self.control_socket)?;
        let mut view = match self.once || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            true => View::Text,
            false => View::Screen(Screen::enter().map_err(ClientError::Print)?),
        };
        let mut before = client.request(&CommonCommand::Counters {})?;
        let mut taken = Instant::now();
        if let View::Screen(screen) = &mut view {
            let text = format!("measuring for {} s\n", self.interval);
            screen.show(text).map_err(ClientError::Print)?;
        }
        loop {
            match view.wait(taken + Duration::from_secs_f64(self.interval)) {
                Ok(Wake::Time) => {}
                Ok(Wake::Quit) => return Ok(()),
                Ok(Wake::Signal(signal)) => {
                    drop(view);
                    // Whoever waits for the program sees that a signal ended it.
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                    return Ok(());
                }
                Err(error) => return Err(ClientError::Print(error)),
            }
            let after = client.request(&CommonCommand::Counters {})?;
            let now = Instant::now();
            let interval = Interval {
                before,
                after,
                seconds: (now - taken).as_secs_f64(),
            };
            match view.show(render(&interval)) {
                // Whatever read the tables has seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                shown => shown.map_err(ClientError::Print)?,
            }
            if self.once {
                return Ok(());
            }
            (before, taken) = (interval.after, now);
        }
    }
}

/// Place of the tables.
#[derive(Debug)]
enum View {
    /// The terminal, whose tables are replaced.
    Screen(Screen),
    /// Standard output, to which tables are added.
    Text,
}

impl View {
    fn show(&mut self, text: String) -> io::Result<()> {
        match self {
            Self::Screen(screen) => screen.show(text),
            Self::Text => {
                let mut out = io::stdout();
                out.write_all(text.as_bytes())?;
                out.flush()
            }
        }
    }

    fn wait(&mut self, end: Instant) -> io::Result<Wake> {
        match self {
            Self::Screen(screen) => screen.wait(end),
            Self::Text => {
                thread::sleep(end.saturating_duration_since(Instant::now()));
                Ok(Wake::Time)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rates_are_per_second() {
        let interval = Interval {
            before: json!({ "a": [{ "n": 10, "psn": 0xff_fffe_u32 }] }),
            after: json!({ "a": [{ "n": 40, "psn": 4, "drops": { "x": 1, "y": 2 }, "new": 7 }] }),
            seconds: 2.0,
        };
        assert_eq!(interval.rate("/a/0/n"), 15);
        assert_eq!(interval.rate_of_bits("/a/0/psn", 24), 3);
        assert_eq!((interval.rate("/a/0/new"), interval.rate("/b")), (0, 0));
        assert_eq!((interval.sum("/a/0/drops"), interval.number("/a/0/new")), (3, 7));
    }

    #[test]
    fn an_interval_has_limits() {
        for (text, seconds) in [("0.1", Ok(0.1)), ("3600", Ok(3600.0))] {
            assert_eq!(interval(text), seconds);
        }
        for text in ["0", "0.05", "-1", "NaN", "inf", "3601", "x"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
