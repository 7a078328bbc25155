//! The stats socket: state and counters of a daemon as one JSON document per connection.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};

use crate::controlled::Controlled;
use crate::socket_server::{DOCUMENT_TIME, Serve, send_within};

/// Answers every connection with the document of its moment.
pub struct StatsService<D>(Weak<D>);

impl<D: Controlled> StatsService<D> {
    /// Creates the service of a daemon, for as long as that exists.
    pub fn new(daemon: &Arc<D>) -> Self {
        Self(Arc::downgrade(daemon))
    }
}

impl<D: Controlled> Serve for StatsService<D> {
    fn serve(&self, stream: &UnixStream) -> io::Result<()> {
        let Some(daemon) = self.0.upgrade() else { return Ok(()) };
        // In memory first, so that a slow reader keeps nothing locked.
        let mut document = serde_json::to_vec_pretty(&daemon.program().document(daemon.state()))?;
        drop(daemon);
        document.push(b'\n');
        send_within(stream, &document, DOCUMENT_TIME)
    }
}
