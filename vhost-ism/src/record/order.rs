//! An order for the record of a fabric while a daemon runs.

use std::fs::File;
use std::sync::Arc;

use crate::guest::Guest;

/// An order for a record.
#[derive(Debug)]
pub struct Order {
    /// File to write.
    pub file: File,
    /// Guests of the fabric; the index is the number in the record.
    pub guests: Vec<Arc<Guest>>,
}
