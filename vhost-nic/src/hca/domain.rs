//! UARs, protection domains, transport domains, XRC domains and user contexts: objects without state, which
//! others refer to by number.

use serde::Serialize;

use super::refcount::RefCount;

/// A UAR, a domain or a user context.
#[derive(Debug, Serialize)]
pub struct Domain {
    /// Number of the object.
    pub number: u32,
    /// References to the object.
    pub references: RefCount,
}

impl Domain {
    /// Creates the object of this number, without references.
    pub fn new(number: u32) -> Self {
        Self {
            number,
            references: RefCount::default(),
        }
    }
}
