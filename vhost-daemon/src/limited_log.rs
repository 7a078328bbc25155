//! The log on standard error, in which no guest can drown the others.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use log::{Level, Log, Metadata, Record};
use parking_lot::Mutex;

/// Lines of one kind about one guest, per [`WINDOW`].
const LINES: u32 = 10;
/// Time after which lines are logged again.
const WINDOW: Duration = Duration::from_secs(60);
/// Kinds of lines that are counted at a time; further ones count as one kind.
const KINDS: usize = 4096;
/// Longest name of a guest that is told apart, in bytes.
const NAME: usize = 64;

/// A logger that passes [`LINES`] of a kind about a guest to another one, then the number of those that it left out.
///
/// A kind is the place in the code that logs; a line about a guest begins with its name and a colon. Lines of level
/// `debug` and `trace` are not limited: whoever asks for them wants all.
pub struct LimitedLog<L> {
    inner: L,
    kinds: Mutex<HashMap<Kind, Window>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    file: Cow<'static, str>,
    line: u32,
    guest: String,
}

struct Window {
    start: Instant,
    lines: u32,
}

impl<L: Log> LimitedLog<L> {
    /// Creates a logger in front of another.
    pub fn new(inner: L) -> Self {
        Self {
            inner,
            kinds: Mutex::default(),
        }
    }

    /// Counts a line of a kind at a time. Returns whether it is logged, and the kinds of which lines were left out.
    fn count(&self, kind: Kind, now: Instant) -> (bool, Vec<(Kind, u32)>) {
        let mut kinds = self.kinds.lock();
        let is_over = |window: &Window| now.duration_since(window.start) >= WINDOW;
        let mut omitted = Vec::new();
        kinds.retain(|kind, window| {
            let over = is_over(window);
            if over && window.lines > LINES {
                omitted.push((kind.clone(), window.lines - LINES));
            }
            !over
        });
        let kind = if kinds.len() < KINDS || kinds.contains_key(&kind) {
            kind
        } else {
            Kind {
                file: Cow::Borrowed(""),
                line: 0,
                guest: String::new(),
            }
        };
        let window = kinds.entry(kind).or_insert(Window { start: now, lines: 0 });
        window.lines = window.lines.saturating_add(1);
        (window.lines <= LINES, omitted)
    }
}

impl<L: Log> Log for LimitedLog<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if record.level() > Level::Info || !self.inner.enabled(record.metadata()) {
            self.inner.log(record);
            return;
        }
        let text = record.args().to_string();
        let guest = text.split_once(':').map_or("", |(guest, _)| guest);
        let kind = Kind {
            file: record.file_static().map_or(Cow::Borrowed(""), Cow::Borrowed),
            line: record.line().unwrap_or(0),
            guest: if guest.len() <= NAME { guest } else { "" }.to_owned(),
        };
        let (is_logged, omitted) = self.count(kind, Instant::now());
        for (kind, count) in omitted {
            let about = if kind.guest.is_empty() { "" } else { ": " };
            let (file, line) = (kind.file, kind.line);
            self.inner.log(
                &Record::builder()
                    .level(record.level())
                    .target(record.target())
                    .args(format_args!("{}{about}{count} more lines of {file}:{line}", kind.guest))
                    .build(),
            );
        }
        if is_logged {
            self.inner.log(record);
        }
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl Log for Lines {
        fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &Record<'_>) {
            self.0.lock().push(record.args().to_string());
        }

        fn flush(&self) {}
    }

    fn say(log: &impl Log, line: u32, text: &str) {
        log.log(
            &Record::builder()
                .level(Level::Info)
                .file_static(Some("guest.rs"))
                .line(Some(line))
                .args(format_args!("{text}"))
                .build(),
        );
    }

    #[test]
    fn a_guest_that_floods_the_log_has_ten_lines_of_a_kind_and_others_have_theirs() {
        let lines = Lines::default();
        let log = LimitedLog::new(lines.clone());
        for number in 0..1000 {
            say(&log, 1, &format!("a: driver is up, GID {number}"));
        }
        say(&log, 1, "b: driver is up");
        say(&log, 2, "a: driver is down");
        let logged = lines.0.lock();
        assert_eq!(logged.len(), 12);
        assert_eq!(logged[9], "a: driver is up, GID 9");
        assert_eq!(logged[10..], ["b: driver is up", "a: driver is down"]);
    }

    #[test]
    fn the_number_of_lines_left_out_is_known_after_a_minute() {
        let log = LimitedLog::new(Lines::default());
        let kind = |line| Kind {
            file: Cow::Borrowed("guest.rs"),
            line,
            guest: "a".to_owned(),
        };
        let start = Instant::now();
        for number in 0..25 {
            let (is_logged, omitted) = log.count(kind(1), start);
            assert_eq!((is_logged, omitted.len()), (number < 10, 0));
        }
        let (is_logged, omitted) = log.count(kind(2), start + WINDOW);
        assert!(is_logged);
        assert_eq!(omitted.len(), 1);
        assert_eq!((omitted[0].0.line, omitted[0].1), (1, 15));
        assert!(log.count(kind(1), start + WINDOW).0);
    }

    #[test]
    fn kinds_are_not_kept_without_limit() {
        let log = LimitedLog::new(Lines::default());
        for number in 0..10_000 {
            say(&log, 1, &format!("{number}: hello"));
        }
        assert_eq!(log.kinds.lock().len(), KINDS + 1);
    }
}
