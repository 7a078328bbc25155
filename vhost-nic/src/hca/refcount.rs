//! Reference counts: the guest cannot destroy an object that others refer to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;

/// Number of references to an object.
#[derive(Debug, Default, Serialize)]
pub struct RefCount(Arc<AtomicU32>);

/// A reference to an object, counted until dropped.
#[derive(Debug)]
pub struct Reference(Arc<AtomicU32>);

impl RefCount {
    /// Adds a reference.
    pub fn acquire(&self) -> Reference {
        self.0.fetch_add(1, Ordering::Relaxed);
        Reference(self.0.clone())
    }

    /// Returns the number of references.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
