//! The script of a replay: the events of a record, each compared with the device's doing.

use std::collections::VecDeque;
use std::io::Read;

use super::report::{Difference, Found, Report};
use crate::record::{Format, Reader, RecordError, RecordEvent};

/// Events to come, and the result so far.
pub struct Script<F: Format, C> {
    reader: Reader<F, Box<dyn Read + Send>>,
    next: Option<F::Event>,
    /// Position of the next event.
    position: u64,
    last: VecDeque<(u64, F::Event)>,
    failure: Option<RecordError>,
    report: Report<F::Event, C>,
}

impl<F: Format, C: Default> Script<F, C> {
    /// Begins with the first event.
    pub fn new(reader: Reader<F, Box<dyn Read + Send>>) -> Self {
        Self {
            reader,
            next: None,
            position: 0,
            last: VecDeque::new(),
            failure: None,
            report: Report::default(),
        }
    }

    /// Whether the device still follows the record. Once it does not, accesses fail and outputs go nowhere.
    pub fn follows(&self) -> bool {
        self.failure.is_none() && self.report.difference.is_none()
    }

    /// Number of entries from outside so far.
    pub fn entries(&self) -> u64 {
        self.report.entries
    }

    /// The counts so far.
    pub fn counts(&mut self) -> &mut C {
        &mut self.report.counts
    }

    /// Returns the next event; `None` if the device no longer follows the record.
    pub fn peek(&mut self) -> Option<&F::Event> {
        if !self.follows() {
            return None;
        }
        if self.next.is_none() {
            match self.reader.next_event() {
                Ok(event) => self.next = Some(event),
                Err(error) => self.failure = Some(error),
            }
        }
        self.next.as_ref()
    }

    /// Takes the next event if `select` makes something of it. Otherwise, that is the first difference.
    pub fn take<T>(
        &mut self,
        select: impl FnOnce(&F::Event) -> Option<T>,
        replayed: impl FnOnce() -> String,
    ) -> Option<T> {
        let selected = select(self.peek()?);
        if selected.is_none() {
            self.differ(replayed());
        } else {
            self.advance();
        }
        selected
    }

    /// Takes the next event if `select` makes something of it.
    pub fn take_if<T>(&mut self, select: impl FnOnce(&F::Event) -> Option<T>) -> Option<T> {
        let selected = select(self.peek()?);
        if selected.is_some() {
            self.advance();
        }
        selected
    }

    fn advance(&mut self) {
        if let Some(event) = self.next.take() {
            if self.last.len() == Report::<F::Event, C>::LAST {
                self.last.pop_front();
            }
            self.last.push_back((self.position, event));
            self.position += 1;
        }
    }

    /// Takes the end of an entry as [`Script::take`] does; one from outside is counted.
    pub fn leave(&mut self, event: &F::Event, is_from_outside: bool) {
        self.take(|next| (next == event).then_some(()), || event.to_string());
        if is_from_outside && self.follows() {
            self.report.entries += 1;
        }
    }

    /// Ends the replay of a record whose events go on outside of an entry.
    pub fn expect_end(&mut self) {
        if self.peek().is_some_and(|event| *event != F::Event::END) {
            self.refuse("an event belongs to no entry");
        }
    }

    fn differ(&mut self, replayed: String) {
        if let Some(recorded) = self.peek().cloned() {
            self.report.difference = Some(Difference {
                event: self.position,
                entry: self.report.entries,
                recorded,
                replayed,
            });
        }
    }

    /// Ends the replay of a record that no recorder makes.
    pub fn refuse(&mut self, reason: &'static str) {
        self.failure.get_or_insert(RecordError::Corrupt(reason));
    }

    /// Keeps a finding of the event that was taken last, given its position and its entry.
    pub fn found(&mut self, found: impl FnOnce(u64, u64) -> Found) {
        if self.report.findings.len() < Report::<F::Event, C>::FINDINGS {
            let found = found(self.position - 1, self.report.entries);
            self.report.findings.push(found);
        }
    }

    /// Returns the result.
    pub fn finish(&mut self) -> Result<Report<F::Event, C>, RecordError> {
        match self.failure.take() {
            Some(error) => Err(error),
            None => {
                let mut report = std::mem::take(&mut self.report);
                report.last = self.last.drain(..).collect();
                Ok(report)
            }
        }
    }
}
