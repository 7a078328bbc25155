//! What an acknowledgement says (IBTA volume 1, section 9.7.5.2: AETH).

use super::rnr::RnrTimer;

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Nak {
    /// A packet before this one is missing.
    PsnSequence = 0,
    /// The request cannot be carried out as it is.
    InvalidRequest = 1,
    /// The key does not allow it.
    RemoteAccess = 2,
    /// Something failed at the responder.
    RemoteOperational = 3,
    /// Of reliable datagrams only.
    InvalidRdRequest = 4,
}

/// The syndrome of an AETH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Syndrome {
    /// Carried out, with the code (5 bits) of how many more receives are posted.
    Ack {
        /// Code of the credits.
        credits: u8,
    },
    /// No receive is posted; come back later.
    Rnr(RnrTimer),
    /// Refused.
    Nak(Nak),
}

impl Syndrome {
    /// Carried out, nothing said about receives.
    pub const ACK: Self = Self::Ack { credits: 0x1f };

    /// What the byte says; `None` if it is reserved.
    pub fn from_byte(byte: u8) -> Option<Self> {
        let value = byte & 0x1f;
        match byte >> 5 {
            0 => Some(Self::Ack { credits: value }),
            1 => Some(Self::Rnr(RnrTimer::new(value))),
            3 => {
                let nak = match value {
                    0 => Nak::PsnSequence,
                    1 => Nak::InvalidRequest,
                    2 => Nak::RemoteAccess,
                    3 => Nak::RemoteOperational,
                    4 => Nak::InvalidRdRequest,
                    _ => return None,
                };
                Some(Self::Nak(nak))
            }
            _ => None,
        }
    }

    /// The byte on the wire.
    pub fn byte(self) -> u8 {
        match self {
            Self::Ack { credits } => credits & 0x1f,
            Self::Rnr(timer) => 1 << 5 | timer.code(),
            Self::Nak(nak) => 3 << 5 | nak as u8,
        }
    }
}

#[cfg(test)]
mod tests;
