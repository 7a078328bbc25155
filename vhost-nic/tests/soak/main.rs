//! Soak tests of the daemon over its sockets: 64 guests under traffic, resets, deaths and attacks; restarts of the
//! daemon under traffic. Nothing is left afterwards, by count of objects, descriptors, threads and mappings.

mod crowd;
mod host;
mod load;
mod restarts;
