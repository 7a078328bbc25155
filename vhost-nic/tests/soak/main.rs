//! A long life in a crowd: over the sockets of the daemon, guests talk, are reset, die and attack, and daemons end and
//! come back. Afterwards nothing is left, by count.

mod crowd;
mod host;
mod load;
mod restarts;
