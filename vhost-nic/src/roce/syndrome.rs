//! Syndrome of an acknowledgement (IBTA volume 1, section 9.7.5.2: AETH).

use super::rnr::RnrTimer;

/// NAK code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Nak {
    /// A packet before this one was lost.
    PsnSequence = 0,
    /// The request is malformed or not supported.
    InvalidRequest = 1,
    /// The R_Key does not permit the access.
    RemoteAccess = 2,
    /// The responder failed to execute the request.
    RemoteOperational = 3,
    /// Invalid request of a reliable datagram.
    InvalidRdRequest = 4,
}

/// Syndrome of an AETH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Syndrome {
    /// ACK.
    Ack {
        /// Code (5 bits) of the number of posted receives.
        credits: u8,
    },
    /// RNR NAK: no receive is posted; retry after a delay.
    Rnr(RnrTimer),
    /// NAK.
    Nak(Nak),
}

impl Syndrome {
    /// ACK without credits.
    pub const ACK: Self = Self::Ack { credits: 0x1f };

    /// Decodes the byte on the wire; `None` if it is reserved.
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

    /// Encodes the byte on the wire.
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
