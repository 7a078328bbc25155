//! Identification of a daemon, in the documents that it writes.

use serde::Serialize;

/// Version of the documents' schema. Raised when a field is removed or changes its meaning, not when one is added.
const SCHEMA_VERSION: u32 = 1;

/// Identification of a daemon.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Name of the program.
    pub name: &'static str,
    /// Version of the program.
    pub version: &'static str,
}

/// Fields that every document begins with, around those of the state.
#[derive(Debug, Serialize)]
pub struct Document<S> {
    schema_version: u32,
    daemon: &'static str,
    version: &'static str,
    #[serde(flatten)]
    state: S,
}

impl Program {
    /// Returns the document of a state, a structure, with the fields common to all daemons in front of its own.
    pub fn document<S: Serialize>(self, state: S) -> Document<S> {
        Document {
            schema_version: SCHEMA_VERSION,
            daemon: self.name,
            version: self.version,
            state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_comes_first() {
        #[derive(Serialize)]
        struct State {
            guests: [u32; 2],
        }
        let program = Program {
            name: "vhost-test",
            version: "1.2.3",
        };
        let document = program.document(State { guests: [1, 2] });
        let expected = r#"{"schema_version":1,"daemon":"vhost-test","version":"1.2.3","guests":[1,2]}"#;
        assert_eq!(serde_json::to_string(&document).unwrap(), expected);
    }
}
