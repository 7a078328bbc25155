//! The findings of a guest.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use log::{debug, info, warn};
use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use super::record::{MAX_EVIDENCE, Object, Record};
use super::subscription::{Queue, Subscription};
use super::{Kind, KindInfo, Severity};
use crate::counter::Counter;

/// Minimum time between two log lines about one kind of finding of one guest.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// Records kept of the first findings of each kind.
pub const FIRST_OF_KIND: u64 = 8;
/// Records kept of the latest findings of all kinds.
pub const LATEST: usize = 256;

/// Findings of one guest, of any kinds.
pub trait Source: Send + Sync {
    /// Returns the kinds and the number of findings of each.
    fn counts(&self) -> Vec<(&'static KindInfo, u64)>;

    /// Returns the first [`FIRST_OF_KIND`] of each kind and the latest [`LATEST`] of all, in order.
    fn recent(&self) -> Vec<Arc<Record>>;

    /// Passes later findings to a subscription, until that is dropped.
    fn subscribe(&self, subscription: &Subscription);
}

/// Sees the findings of a guest as they happen: kind, object, and number of findings of the kind so far.
pub type Observer<K> = Box<dyn Fn(K, Object, u64) + Send + Sync>;

/// The findings of one guest. Serializes as two maps from names to counts: `guest_errors` and `suspicions`.
pub struct Findings<K> {
    guest: Arc<str>,
    kinds: Box<[PerKind]>,
    kept: Mutex<Kept>,
    observer: Option<Observer<K>>,
}

#[derive(Default)]
struct PerKind {
    count: Counter,
    limit: Mutex<RateLimit>,
}

#[derive(Default)]
struct Kept {
    sequence: u64,
    first: Vec<Arc<Record>>,
    latest: VecDeque<Arc<Record>>,
    subscribers: Vec<Weak<Queue>>,
}

impl Kept {
    fn add(&mut self, mut record: Record) {
        record.sequence = self.sequence;
        self.sequence += 1;
        let record = Arc::new(record);
        if record.count <= FIRST_OF_KIND {
            self.first.push(record.clone());
        }
        if self.latest.len() == LATEST {
            self.latest.pop_front();
        }
        self.latest.push_back(record.clone());
        self.subscribers.retain(|subscriber| {
            let live = subscriber.upgrade();
            if let Some(queue) = &live {
                queue.push(record.clone());
            }
            live.is_some()
        });
    }
}

/// The log lines about one kind.
#[derive(Default)]
struct RateLimit {
    last: Option<Instant>,
    suppressed: u64,
}

impl RateLimit {
    /// Decides whether a finding at `now` is logged: then returns the number of findings suppressed before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < LOG_INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl<K: Kind> Default for Findings<K> {
    fn default() -> Self {
        Self::new("")
    }
}

impl<K: Kind> Findings<K> {
    /// Creates the findings of a guest, none so far.
    pub fn new(guest: &str) -> Self {
        Self {
            guest: guest.into(),
            kinds: K::ALL.iter().map(|_| PerKind::default()).collect(),
            kept: Mutex::default(),
            observer: None,
        }
    }

    /// Shows every finding to `observer`, on the thread that reports it.
    #[must_use]
    pub fn observed_by(self, observer: Observer<K>) -> Self {
        Self {
            observer: Some(observer),
            ..self
        }
    }

    /// Returns the guest's name in logs.
    pub fn guest(&self) -> &str {
        &self.guest
    }

    /// Counts, logs and keeps a finding. The first of a kind is logged, later ones at most once per second with the
    /// number of those suppressed in between; each of them at debug level.
    #[cold]
    pub fn report(&self, kind: K, object: Object, evidence: &[u8], text: fmt::Arguments<'_>) {
        let entry = &self.kinds[kind.index()];
        let count = entry.count.increment() + 1;
        let admitted = entry.limit.lock().admit(Instant::now());
        self.log(kind, count, admitted, text);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.kept.lock().add(Record {
            sequence: 0,
            time_unix_ns: since.map_or(0, |since| since.as_nanos() as u64),
            guest: self.guest.clone(),
            kind: kind.info(),
            count,
            object,
            text: text.to_string(),
            evidence: evidence[..evidence.len().min(MAX_EVIDENCE)].to_vec(),
        });
        if let Some(observer) = &self.observer {
            observer(kind, object, count);
        }
    }

    fn log(&self, kind: K, count: u64, admitted: Option<u64>, text: fmt::Arguments<'_>) {
        let (guest, name) = (&self.guest, kind.name());
        let line = match admitted {
            Some(0) if count == 1 => format!("{guest}: {text} (counted as {name})"),
            Some(0) => format!("{guest}: {text}"),
            Some(suppressed) => format!("{guest}: {text} ({suppressed} more of {name} not logged)"),
            None => return debug!("{guest}: {text}"),
        };
        match kind.info().severity {
            Severity::Error => warn!("{line}"),
            Severity::Suspicion => info!("{line}"),
        }
    }

    /// Returns the number of findings of a kind.
    pub fn count(&self, kind: K) -> u64 {
        self.kinds[kind.index()].count.get()
    }

    /// Returns the name and count of every kind of this severity.
    pub fn counts_of(&self, severity: Severity) -> impl Iterator<Item = (&'static str, u64)> {
        let of_severity = move |kind: &&K| kind.info().severity == severity;
        K::ALL
            .iter()
            .filter(of_severity)
            .map(|&kind| (kind.name(), self.count(kind)))
    }
}

impl<K: Kind> Source for Findings<K> {
    fn counts(&self) -> Vec<(&'static KindInfo, u64)> {
        K::ALL.iter().map(|&kind| (kind.info(), self.count(kind))).collect()
    }

    fn recent(&self) -> Vec<Arc<Record>> {
        let kept = self.kept.lock();
        let records = kept.first.iter().chain(&kept.latest);
        let in_order: BTreeMap<u64, &Arc<Record>> = records.map(|record| (record.sequence, record)).collect();
        in_order.into_values().cloned().collect()
    }

    fn subscribe(&self, subscription: &Subscription) {
        self.kept.lock().subscribers.push(subscription.queue());
    }
}

impl<K: Kind> fmt::Debug for Findings<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = K::ALL.iter().map(|&kind| (kind.name(), self.count(kind)));
        f.debug_map().entries(counts).finish()
    }
}

impl<K: Kind> Serialize for Findings<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let counts = |severity| self.counts_of(severity).collect::<BTreeMap<_, _>>();
        serializer.collect_map([
            ("guest_errors", counts(Severity::Error)),
            ("suspicions", counts(Severity::Suspicion)),
        ])
    }
}

#[cfg(test)]
mod tests;
