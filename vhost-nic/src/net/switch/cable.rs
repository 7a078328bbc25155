//! Cables: what is between a port and the switch.

use std::fmt::Debug;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Burst, Member, Switch};

/// Direction of a frame, as the port sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the switch to the port.
    In,
    /// From the port to the switch.
    Out,
}

/// A cable that decides what becomes of the frames in it. A port without one has a perfect wire.
pub trait Cable: Debug + Send + Sync {
    /// Carries a burst to the end of the cable, in whole, in part, or later; on the sender's thread.
    fn carry(&self, direction: Direction, burst: &Burst<'_>, end: End<'_>);
}

/// The end of a cable that frames of one direction come out of.
#[derive(Clone, Copy)]
pub struct End<'a> {
    /// The switch, for frames towards it.
    switch: Option<&'a Arc<Switch>>,
    member: &'a Arc<Member>,
}

impl<'a> End<'a> {
    pub(super) fn port(member: &'a Arc<Member>) -> Self {
        Self { switch: None, member }
    }

    pub(super) fn switch(switch: &'a Arc<Switch>, member: &'a Arc<Member>) -> Self {
        Self {
            switch: Some(switch),
            member,
        }
    }

    /// Passes a burst on. It is delivered when this returns.
    pub fn pass(&self, burst: &Burst<'_>) {
        match self.switch {
            Some(switch) => switch.enter(self.member, burst),
            None => self.member.arrive(burst),
        }
    }

    /// Returns an end that can be kept, for frames that come out later.
    pub fn to_owned(&self) -> OwnedEnd {
        OwnedEnd {
            switch: self.switch.cloned(),
            member: self.member.clone(),
        }
    }
}

/// An [`End`] for frames that come out later. It keeps neither port nor its place in the switch.
pub struct OwnedEnd {
    switch: Option<Arc<Switch>>,
    member: Arc<Member>,
}

impl OwnedEnd {
    /// Passes a burst on, as [`End::pass`] does.
    pub fn pass(&self, burst: &Burst<'_>) {
        End {
            switch: self.switch.as_ref(),
            member: &self.member,
        }
        .pass(burst);
    }
}
