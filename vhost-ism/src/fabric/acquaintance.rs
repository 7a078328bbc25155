//! Sessions that share a DMB: each must learn of the end of the other.
//!
//! A guest need not take its events, and may be told of any number of ends. So two sessions share memory only if each
//! has a place for the departure of the other; the place is freed when the event is delivered.

use std::sync::Arc;

use super::Fabric;
use super::refusal::Refusal;
use super::state::State;
use crate::abi::Gid;
use crate::event::{EventSink, MAX_DEPARTURES};

impl State {
    /// Checks that a session may share a DMB with others: there is a place for each departure.
    pub fn check_acquaintance(&self, gid: Gid, others: &[Gid]) -> Result<(), Refusal> {
        let session = self.sessions.get(&gid).ok_or(Refusal::NoSuchPeer)?;
        let mut places = 0;
        for other in others.iter().filter(|other| !session.peers.contains(*other)) {
            self.check_departures(*other, 1)?;
            places += 1;
        }
        match places {
            0 => Ok(()),
            _ => self.check_departures(gid, places),
        }
    }

    fn check_departures(&self, gid: Gid, places: usize) -> Result<(), Refusal> {
        let session = self.sessions.get(&gid).ok_or(Refusal::NoSuchPeer)?;
        match session.peers.len() + session.sink.departures() + places > MAX_DEPARTURES {
            true => Err(Refusal::Full),
            false => Ok(()),
        }
    }

    /// Notes that a session shares a DMB with others.
    pub fn acquaint(&mut self, gid: Gid, others: &[Gid]) {
        for other in others {
            for (gid, peer) in [(gid, *other), (*other, gid)] {
                if let Some(session) = self.sessions.get_mut(&gid)
                    && !session.peers.contains(&peer)
                {
                    session.peers.insert(peer);
                }
            }
        }
    }

    /// Removes a session, and its name from its peers. Returns their sinks, which must be notified.
    pub fn forget(&mut self, gid: Gid) -> Vec<Arc<EventSink>> {
        let peers = self.sessions.remove(&gid).map(|session| session.peers);
        for dmb in self.dmbs.values_mut() {
            dmb.broken.remove(&gid);
        }
        let notified = peers.into_iter().flatten().filter_map(|peer| {
            let session = self.sessions.get_mut(&peer)?;
            session.peers.remove(&gid);
            session.sink.expect_departure();
            Some(session.sink.clone())
        });
        notified.collect()
    }
}

impl Fabric {
    /// Returns the event sinks of all sessions.
    pub fn sinks(&self) -> Vec<Arc<EventSink>> {
        let state = self.state();
        state.sessions.values().map(|session| session.sink.clone()).collect()
    }
}
