//! MSI-X: vectors, their table and the bits of those that wait.

use parking_lot::Mutex;

/// What a vector sends, as the guest wrote it into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MsixMessage {
    /// Where the message goes.
    pub address: u64,
    /// What it says.
    pub data: u32,
}

/// What became of an interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The guest was told.
    Done,
    /// The guest cannot be told now; the vector becomes pending.
    NotNow,
}

/// How an attachment tells its guest of an interrupt.
pub trait InterruptLines: Send + Sync {
    /// Sends one vector's interrupt, or says that there is no way to just now. Does not block.
    fn deliver(&self, vector: u16, message: MsixMessage) -> Delivery;
}

/// The vectors of one function.
#[derive(Debug)]
pub struct Msix {
    vectors: Mutex<Vec<Vector>>,
}

#[derive(Debug, Clone, Default)]
struct Vector {
    pending: bool,
}

impl Msix {
    /// A function's vectors, all masked.
    pub fn new(vectors: u16) -> Self {
        Self {
            vectors: Mutex::new(vec![Vector::default(); vectors.into()]),
        }
    }

    /// Raises a vector's interrupt, now or as soon as the guest can be told. A vector that does not exist is ignored.
    pub fn raise(&self, vector: u16) {
        if let Some(vector) = self.vectors.lock().get_mut(usize::from(vector)) {
            vector.pending = true;
        }
    }
}
