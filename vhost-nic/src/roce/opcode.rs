//! BTH opcodes (IBTA volume 1, section 9.2.1).

/// Transport service: bits 7:5 of the opcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Transport {
    /// Reliable connection.
    Rc = 0x00,
    /// Unreliable connection.
    Uc = 0x20,
    /// Unreliable datagram.
    Ud = 0x60,
    /// Congestion notification (RoCE v2, annex A17).
    Cnp = 0x80,
    /// Extended reliable connection (annex A14).
    Xrc = 0xa0,
}

/// Operation of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the specification")]
pub enum Operation {
    Send,
    Write,
    ReadRequest,
    ReadResponse,
    Acknowledge,
    AtomicAcknowledge,
    CompareSwap,
    FetchAdd,
    CongestionNotification,
}

/// Position of a packet in its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the specification")]
pub enum Position {
    First,
    Middle,
    Last,
    Only,
}

impl Position {
    /// Position of a packet that is the first (`begins`) or the last (`ends`) of its message.
    pub fn new(begins: bool, ends: bool) -> Self {
        match (begins, ends) {
            (true, true) => Self::Only,
            (true, false) => Self::First,
            (false, false) => Self::Middle,
            (false, true) => Self::Last,
        }
    }

    /// Whether this is the first packet.
    pub fn begins(self) -> bool {
        matches!(self, Self::First | Self::Only)
    }

    /// Whether this is the last packet.
    pub fn ends(self) -> bool {
        matches!(self, Self::Last | Self::Only)
    }
}

/// Suffix of the last packet of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Suffix {
    /// No suffix.
    #[default]
    None,
    /// Immediate data.
    Immediate,
    /// R_Key to invalidate.
    Invalidate,
}

/// An extended transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the specification")]
pub enum Extension {
    XrcEth,
    Deth,
    Reth,
    AtomicEth,
    Aeth,
    AtomicAckEth,
    ImmDt,
    Ieth,
}

/// A defined opcode, as on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Opcode(u8);

/// Operations by the low five bits of the opcode.
const OPERATIONS: [Option<(Operation, Position, Suffix)>; 0x18] = {
    use Operation::*;
    use Position::*;
    use Suffix::{Immediate, Invalidate, None as Plain};
    [
        Some((Send, First, Plain)),
        Some((Send, Middle, Plain)),
        Some((Send, Last, Plain)),
        Some((Send, Last, Immediate)),
        Some((Send, Only, Plain)),
        Some((Send, Only, Immediate)),
        Some((Write, First, Plain)),
        Some((Write, Middle, Plain)),
        Some((Write, Last, Plain)),
        Some((Write, Last, Immediate)),
        Some((Write, Only, Plain)),
        Some((Write, Only, Immediate)),
        Some((ReadRequest, Only, Plain)),
        Some((ReadResponse, First, Plain)),
        Some((ReadResponse, Middle, Plain)),
        Some((ReadResponse, Last, Plain)),
        Some((ReadResponse, Only, Plain)),
        Some((Acknowledge, Only, Plain)),
        Some((AtomicAcknowledge, Only, Plain)),
        Some((CompareSwap, Only, Plain)),
        Some((FetchAdd, Only, Plain)),
        None,
        Some((Send, Last, Invalidate)),
        Some((Send, Only, Invalidate)),
    ]
};

/// Low five bits of the opcode, by operation, position and suffix.
const NUMBERS: [[[Option<u8>; 3]; 4]; 9] = {
    let mut numbers = [[[None; 3]; 4]; 9];
    let mut number = 0;
    while number < OPERATIONS.len() {
        if let Some((operation, position, suffix)) = OPERATIONS[number] {
            numbers[operation as usize][position as usize][suffix as usize] = Some(number as u8);
        }
        number += 1;
    }
    numbers
};

/// Decoded opcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    defined: bool,
    transport: Transport,
    operation: Operation,
    position: Position,
    suffix: Suffix,
}

const CNP: Row = Row {
    defined: true,
    transport: Transport::Cnp,
    operation: Operation::CongestionNotification,
    position: Position::Only,
    suffix: Suffix::None,
};

/// Decoded opcodes; looked up several times for every packet.
static ROWS: [Row; 0x100] = {
    let undefined = Row { defined: false, ..CNP };
    let mut rows = [undefined; 0x100];
    let transports = [Transport::Rc, Transport::Uc, Transport::Ud, Transport::Xrc];
    let mut at = 0;
    while at < transports.len() {
        let transport = transports[at];
        let mut number = 0;
        while number < OPERATIONS.len() {
            let exists = match transport {
                Transport::Uc => number <= 0x0b,
                Transport::Ud => number == 0x04 || number == 0x05,
                _ => true,
            };
            if let (true, Some((operation, position, suffix))) = (exists, OPERATIONS[number]) {
                rows[transport as usize | number] = Row {
                    defined: true,
                    transport,
                    operation,
                    position,
                    suffix,
                };
            }
            number += 1;
        }
        at += 1;
    }
    rows[Opcode::CNP.0 as usize] = CNP;
    rows
};

impl std::fmt::Debug for Opcode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opcode({:#04x}: {:?})", self.0, self.row())
    }
}

impl Opcode {
    /// Congestion notification.
    pub const CNP: Self = Self(0x81);

    /// Encodes an opcode, if the combination is defined.
    pub fn new(transport: Transport, operation: Operation, position: Position, suffix: Suffix) -> Option<Self> {
        let number = NUMBERS[operation as usize][position as usize][suffix as usize];
        match transport {
            Transport::Cnp => {
                let row = (operation, position, suffix);
                (row == (CNP.operation, CNP.position, CNP.suffix)).then_some(Self::CNP)
            }
            transport => Self::from_byte(transport as u8 | number?),
        }
    }

    /// Takes a byte of the wire; `None` if it is not a supported opcode.
    pub fn from_byte(byte: u8) -> Option<Self> {
        ROWS[usize::from(byte)].defined.then_some(Self(byte))
    }

    /// The byte on the wire.
    pub fn byte(self) -> u8 {
        self.0
    }

    fn row(self) -> &'static Row {
        &ROWS[usize::from(self.0)]
    }

    /// Transport service.
    pub fn transport(self) -> Transport {
        self.row().transport
    }

    /// Operation.
    pub fn operation(self) -> Operation {
        self.row().operation
    }

    /// Position in the message.
    pub fn position(self) -> Position {
        self.row().position
    }

    /// Suffix.
    pub fn suffix(self) -> Suffix {
        self.row().suffix
    }

    /// Opcode of one part of a packet that is split, by whether it is the first part and whether it is the last.
    pub fn part(self, first: bool, last: bool) -> Self {
        let row = self.row();
        let position = Position::new(row.position.begins() && first, row.position.ends() && last);
        let suffix = if position.ends() { row.suffix } else { Suffix::None };
        // Operations that can be split have opcodes for all positions.
        Self::new(row.transport, row.operation, position, suffix).unwrap_or(self)
    }

    /// Whether the packet has immediate data.
    pub fn with_immediate(self) -> bool {
        self.suffix() == Suffix::Immediate
    }

    /// Whether the packet has an R_Key to invalidate.
    pub fn with_invalidate(self) -> bool {
        self.suffix() == Suffix::Invalidate
    }

    /// Whether a requester sends the packet.
    pub fn is_request(self) -> bool {
        !self.is_response() && self != Self::CNP
    }

    /// Whether a responder sends the packet.
    pub fn is_response(self) -> bool {
        matches!(
            self.operation(),
            Operation::ReadResponse | Operation::Acknowledge | Operation::AtomicAcknowledge
        )
    }

    /// Headers between BTH and payload, in order.
    pub fn extensions(self) -> impl Iterator<Item = Extension> {
        use Operation::*;
        let row = self.row();
        let address = match row.transport {
            Transport::Ud => Some(Extension::Deth),
            Transport::Xrc if self.is_request() => Some(Extension::XrcEth),
            _ => None,
        };
        let (first, second) = match (row.operation, row.position) {
            (Write, position) if position.begins() => (Some(Extension::Reth), None),
            (ReadRequest, _) => (Some(Extension::Reth), None),
            (ReadResponse, Position::Middle) => (None, None),
            (ReadResponse | Acknowledge, _) => (Some(Extension::Aeth), None),
            (AtomicAcknowledge, _) => (Some(Extension::Aeth), Some(Extension::AtomicAckEth)),
            (CompareSwap | FetchAdd, _) => (Some(Extension::AtomicEth), None),
            _ => (None, None),
        };
        let suffix = match row.suffix {
            Suffix::None => None,
            Suffix::Immediate => Some(Extension::ImmDt),
            Suffix::Invalidate => Some(Extension::Ieth),
        };
        [address, first, second, suffix].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests;
