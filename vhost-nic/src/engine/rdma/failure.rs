//! Failure of a message at the requester.

use mlx5_prm::queue_entry::Syndrome;

use super::super::memory::AccessError;

/// Reason why a message cannot be sent.
#[derive(Debug)]
pub(super) struct Failure {
    /// Syndrome of the completion.
    pub syndrome: Syndrome,
    /// The access that was denied, if that is the reason.
    pub denied: Option<Box<AccessError>>,
}

impl Failure {
    /// A failure to access the data of the message.
    #[cold]
    pub fn access(error: AccessError) -> Self {
        Self {
            syndrome: Syndrome::LocalProtection,
            denied: Some(Box::new(error)),
        }
    }
}

impl From<Syndrome> for Failure {
    fn from(syndrome: Syndrome) -> Self {
        Self { syndrome, denied: None }
    }
}
