//! A finding as it is kept and passed on.

use std::fmt::Write;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::KindInfo;

/// Bytes of evidence that a record keeps.
pub const MAX_EVIDENCE: usize = 64;

/// The object that a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Object {
    /// Kind of object.
    #[serde(rename = "object")]
    pub kind: &'static str,
    /// Number of the object; 0 if there is only one.
    pub number: u64,
}

impl Object {
    /// Names an object.
    pub const fn new(kind: &'static str, number: u64) -> Self {
        Self { kind, number }
    }
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Position among the findings of the guest, from 0.
    pub sequence: u64,
    /// Wall-clock time in nanoseconds since 1970.
    pub time_unix_ns: u64,
    /// Name of the guest.
    pub guest: Arc<str>,
    /// Description of the kind.
    #[serde(flatten)]
    pub kind: &'static KindInfo,
    /// Number of findings of the kind, this one included.
    pub count: u64,
    /// The object.
    #[serde(flatten)]
    pub object: Object,
    /// Text for people.
    pub text: String,
    /// The bytes that show the mistake, at most [`MAX_EVIDENCE`].
    #[serde(serialize_with = "hex")]
    pub evidence: Vec<u8>,
}

fn hex<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    serializer.serialize_str(&text)
}
