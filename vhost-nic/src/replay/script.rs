//! The script of a replay: the events of a record, each compared with the NIC's doing.

use std::collections::VecDeque;
use std::io::Read;

use super::report::{Difference, Found, Report};
use crate::record::{Entry, Event, Reader, RecordError};

/// Events to come, and the result so far.
pub(super) struct Script {
    reader: Reader<Box<dyn Read + Send>>,
    next: Option<Event>,
    /// Position of the next event.
    position: u64,
    last: VecDeque<(u64, Event)>,
    failure: Option<RecordError>,
    pub report: Report,
    /// Latest reading of the clock.
    pub time: u64,
}

impl Script {
    pub fn new(reader: Reader<Box<dyn Read + Send>>) -> Self {
        Self {
            reader,
            next: None,
            position: 0,
            last: VecDeque::new(),
            failure: None,
            report: Report::default(),
            time: 0,
        }
    }

    /// Whether the NIC still follows the record. Once it does not, accesses fail and outputs go nowhere.
    pub fn follows(&self) -> bool {
        self.failure.is_none() && self.report.difference.is_none()
    }

    /// Returns the next event; `None` if the NIC no longer follows the record.
    pub fn peek(&mut self) -> Option<&Event> {
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
        select: impl FnOnce(&Event) -> Option<T>,
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

    /// Takes the next event if it is an entry.
    pub fn take_entry(&mut self) -> Option<Entry> {
        let Event::Enter(entry) = self.peek()? else { return None };
        let entry = entry.clone();
        self.count(&entry);
        self.advance();
        Some(entry)
    }

    fn count(&mut self, entry: &Entry) {
        match entry {
            Entry::Read { .. } | Entry::Write { .. } => self.report.accesses += 1,
            Entry::Receive(frames) => self.report.frames_in += frames.len() as u64,
            _ => {}
        }
    }

    fn advance(&mut self) {
        if let Some(event) = self.next.take() {
            if self.last.len() == Report::LAST {
                self.last.pop_front();
            }
            self.last.push_back((self.position, event));
            self.position += 1;
        }
    }

    /// Notes the first difference: the NIC does something else than the next event.
    pub fn differ(&mut self, replayed: String) {
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

    /// Keeps a finding of the event that was taken last.
    pub fn found(&mut self, found: impl FnOnce(u64, u64) -> Found) {
        if self.report.findings.len() < Report::FINDINGS {
            let found = found(self.position - 1, self.report.entries);
            self.report.findings.push(found);
        }
    }

    /// Returns the result.
    pub fn finish(&mut self) -> Result<Report, RecordError> {
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
