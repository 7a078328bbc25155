//! What a packet is (IBTA volume 1, section 9.2.1: BTH opcodes).

/// The service that a packet belongs to: bits 7:5 of the opcode.
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

/// What a packet does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
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

/// Which packet of its message a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Position {
    First,
    Middle,
    Last,
    Only,
}

impl Position {
    /// Of a packet with which a message begins and ends, or does not.
    pub fn new(begins: bool, ends: bool) -> Self {
        match (begins, ends) {
            (true, true) => Self::Only,
            (true, false) => Self::First,
            (false, false) => Self::Middle,
            (false, true) => Self::Last,
        }
    }

    /// Whether a message begins with it.
    pub fn begins(self) -> bool {
        matches!(self, Self::First | Self::Only)
    }

    /// Whether a message ends with it.
    pub fn ends(self) -> bool {
        matches!(self, Self::Last | Self::Only)
    }
}

/// What the end of a message brings along for the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Suffix {
    /// Nothing.
    #[default]
    None,
    /// An immediate.
    Immediate,
    /// A key to invalidate.
    Invalidate,
}

/// An extended transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
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

/// An opcode that exists, as it is on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Opcode(u8);

/// By the low five bits of the opcode.
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

/// The low five bits of the opcode, by operation, position and suffix.
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

/// What an opcode says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    transport: Transport,
    operation: Operation,
    position: Position,
    suffix: Suffix,
}

const CNP: Row = Row {
    transport: Transport::Cnp,
    operation: Operation::CongestionNotification,
    position: Position::Only,
    suffix: Suffix::None,
};

/// By opcode: looked up for every packet.
static ROWS: [Option<Row>; 0x100] = {
    let mut rows = [None; 0x100];
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
                rows[transport as usize | number] = Some(Row {
                    transport,
                    operation,
                    position,
                    suffix,
                });
            }
            number += 1;
        }
        at += 1;
    }
    rows[Opcode::CNP.0 as usize] = Some(CNP);
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

    /// The opcode for this, if there is one.
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

    /// What a byte of the wire says; `None` if it is no opcode known here.
    pub fn from_byte(byte: u8) -> Option<Self> {
        ROWS[usize::from(byte)].map(|_| Self(byte))
    }

    /// The byte on the wire.
    pub fn byte(self) -> u8 {
        self.0
    }

    fn row(self) -> Row {
        // There is one for each that exists.
        ROWS[usize::from(self.0)].unwrap_or(CNP)
    }

    /// Its service.
    pub fn transport(self) -> Transport {
        self.row().transport
    }

    /// What it does.
    pub fn operation(self) -> Operation {
        self.row().operation
    }

    /// Which packet of the message it is.
    pub fn position(self) -> Position {
        self.row().position
    }

    /// What the end of the message brings along.
    pub fn suffix(self) -> Suffix {
        self.row().suffix
    }

    /// Of a packet that is cut in several: the opcode of one of them, by whether it is the first and whether it is the last.
    pub fn part(self, first: bool, last: bool) -> Self {
        let row = self.row();
        let position = Position::new(row.position.begins() && first, row.position.ends() && last);
        let suffix = if position.ends() { row.suffix } else { Suffix::None };
        // What can be cut has opcodes for all positions.
        Self::new(row.transport, row.operation, position, suffix).unwrap_or(self)
    }

    /// Whether it has an immediate.
    pub fn with_immediate(self) -> bool {
        self.suffix() == Suffix::Immediate
    }

    /// Whether it has a key to invalidate.
    pub fn with_invalidate(self) -> bool {
        self.suffix() == Suffix::Invalidate
    }

    /// Whether a requester sends it.
    pub fn is_request(self) -> bool {
        !self.is_response() && self != Self::CNP
    }

    /// Whether a responder sends it.
    pub fn is_response(self) -> bool {
        matches!(
            self.operation(),
            Operation::ReadResponse | Operation::Acknowledge | Operation::AtomicAcknowledge
        )
    }

    /// The headers between BTH and payload, in their order.
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
