//! User and capabilities of the process. All calls are for the calling thread and those that it starts.

use std::io;
use std::str::FromStr;

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// User and group of a process, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    uid: u32,
    gid: u32,
}

impl FromStr for User {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The kernel takes the greatest number for "no change".
        let number = |digits: &str| digits.parse().ok().filter(|number| *number != u32::MAX);
        let numbers = text.split_once(':').map(|(uid, gid)| (number(uid), number(gid)));
        match numbers {
            Some((Some(uid), Some(gid))) => Ok(Self { uid, gid }),
            _ => Err("a user is UID:GID, two numbers"),
        }
    }
}

impl User {
    /// Changes user and group, and leaves all other groups.
    pub fn assume(self) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_groups(&[gid])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }
}

/// Drops all capabilities, from the bounding and the ambient set as well where the kernel permits it.
pub fn drop_capabilities() -> io::Result<()> {
    let all = (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number));
    for capability in all.take_while(|capability| capability_is_in_bounding_set(*capability).is_ok()) {
        // Without CAP_SETPCAP the set stays; with no_new_privs no program can use it.
        let _ = remove_capability_from_bounding_set(capability);
    }
    // Kernels before 4.3 have no such set.
    let _ = clear_ambient_capability_set();
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, none)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_two_numbers() {
        assert_eq!("1000:100".parse(), Ok(User { uid: 1000, gid: 100 }));
        for bad in ["", "1000", "1000:", ":100", "a:b", "-1:0", "4294967295:0", "1:2:3"] {
            assert!(bad.parse::<User>().is_err(), "{bad}");
        }
    }
}
