//! Who uses an object: one that is in use cannot be destroyed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;

/// Counts the users of an object.
#[derive(Debug, Default, Serialize)]
pub struct RefCount(Arc<AtomicU32>);

/// One use of an object, as long as it exists.
#[derive(Debug)]
pub struct Reference(Arc<AtomicU32>);

impl RefCount {
    /// One user more.
    pub fn acquire(&self) -> Reference {
        self.0.fetch_add(1, Ordering::Relaxed);
        Reference(self.0.clone())
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
