//! Orders for records while a daemon runs.

use std::fmt;

use parking_lot::Mutex;
use thiserror::Error;

use super::format::Format;
use super::recording::Recording;

/// Begin of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It has begun.
    Now,
    /// It begins when the VMM is gone: until then, the device has state that would not be in it.
    Later,
}

/// Reason why a record is not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OrderError {
    /// The device has no recorder at its doors.
    #[error("the daemon runs without --recordable")]
    NotRecordable,
    /// A record is in progress.
    #[error("a record is in progress already")]
    Recorded,
    /// A record has been ordered.
    #[error("a record is to begin already")]
    Ordered,
}

/// The order for a record that begins when the device is without state. Orders are placed and taken in turns.
pub struct OnDemand<T>(Mutex<Option<T>>);

impl<T> OnDemand<T> {
    /// Places an order for a record. `order` opens the file, and is not called if there is a record or an order: it
    /// may be the same file.
    pub fn place<F: Format, E: From<OrderError>>(
        &self,
        recording: &Recording<F>,
        order: impl FnOnce() -> Result<T, E>,
    ) -> Result<(), E> {
        let _turn = recording.turns().take();
        if recording.is_open() {
            return Err(OrderError::Recorded.into());
        }
        let mut place = self.0.lock();
        if place.is_some() {
            return Err(OrderError::Ordered.into());
        }
        *place = Some(order()?);
        Ok(())
    }

    /// Takes the order, to begin the record or to forget it.
    pub fn take(&self) -> Option<T> {
        self.0.lock().take()
    }

    /// Ends the record, or takes back the order for one. Returns false if there is neither.
    pub fn end<F: Format>(&self, recording: &Recording<F>) -> bool {
        let _turn = recording.turns().take();
        let is_open = recording.is_open();
        recording.finish();
        self.take().is_some() || is_open
    }
}

impl<T> Default for OnDemand<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> fmt::Debug for OnDemand<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDemand").finish_non_exhaustive()
    }
}
