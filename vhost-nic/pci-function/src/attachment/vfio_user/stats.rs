//! Counters of a server.

vhost_daemon::counters! {
    /// Counters of a socket, over all its clients.
    pub struct VfioUserStats -> VfioUserSnapshot {
        /// Clients that connected.
        connections,
        /// Messages received.
        messages,
        /// Messages that could not be served, answered or not.
        errors,
        /// Connections that ended within a message, or with an invalid one.
        broken_connections,
    }
}
