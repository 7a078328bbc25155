//! A daemon as its sockets see it.

use std::io::{self, Write};
use std::sync::Arc;

use clap::Subcommand;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::finding::Source;
use crate::metrics::Metrics;
use crate::program::Program;
use crate::trace::EventInfo;

/// Writer of the part of an answer that follows its line.
pub type Body = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// Answer to a command that was executed.
pub enum Answer {
    /// A value, all at once.
    Value(Value),
    /// A value, and after its line what the body writes and flushes as it comes.
    Stream(Value, Body),
}

impl Answer {
    /// The answer to a command that has nothing to report.
    pub fn done() -> Self {
        Self::Value(json!({}))
    }
}

/// A daemon that the stats socket describes and the control socket controls. Every method may be called from several
/// threads at a time.
pub trait Controlled: Send + Sync + 'static {
    /// Commands of this daemon, beyond [those of all](crate::CommonCommand). In JSON the variant is the value of
    /// `command`, in snake_case; no other field may be called `command` or `version`.
    type Command: DeserializeOwned + Serialize + Subcommand;

    /// State and counters, in the document of the stats socket. No lock outlives its serialization.
    type State: Serialize;

    /// Identification of the daemon.
    fn program(&self) -> Program;

    /// Names of the guests, in the order of their numbers.
    fn guests(&self) -> Vec<String>;

    /// The events of the daemon's traces.
    fn events(&self) -> &'static [EventInfo];

    /// Takes a snapshot of state and counters.
    fn state(&self) -> Self::State;

    /// Adds the metrics of the moment, in a time that does not depend on the number of live objects.
    fn metrics(&self, metrics: &mut Metrics);

    /// Returns the live objects of a guest: a map from their kinds, of bounded size; empty if there is no such guest.
    fn objects(&self, guest: &str) -> Map<String, Value>;

    /// Puts a plan of faults in force, if one is given, and returns the faults in force. An error is the reason of the
    /// refusal, in lower case.
    fn faults(&self, plan: Option<Value>) -> Result<Value, String>;

    /// Returns the findings of all guests.
    fn findings(&self) -> Vec<Arc<dyn Source>>;

    /// Executes a command. An error is the reason of the refusal, in lower case.
    fn execute(&self, command: Self::Command) -> Result<Answer, String>;
}
