//! Kinds of faults.

use mlx5_prm::opcode::Opcode;
use pci_function::dma::Purpose as _;
use serde::{Deserialize, Serialize};
use vhost_daemon::fault::{Delay, Kind};

use crate::dma::Purpose;
use crate::net::Direction;

/// Place at which a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Door {
    Wire,
    Command,
    Completion,
    Event,
    Interrupt,
    Memory,
    Bar,
    Now,
}

impl Door {
    /// Whether the NIC acts on what strikes there: not on the wire, nor behind its interrupts and accesses to memory.
    pub(super) fn is_inside(self) -> bool {
        match self {
            Self::Wire | Self::Interrupt | Self::Memory | Self::Now => false,
            Self::Command | Self::Completion | Self::Event | Self::Bar => true,
        }
    }
}

/// A fault of the NIC or of its wire, as in a plan: `kind` is the variant in snake_case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NicFault {
    /// Frames are lost, `burst` in a row. The object of a wire fault is the destination QP of a RoCE packet, 0 for
    /// other frames.
    FrameLoss {
        /// Frames.
        #[serde(flatten)]
        frames: Frames,
        /// Frames lost at a strike.
        #[serde(default = "one")]
        burst: u64,
    },
    /// Frames arrive twice.
    FrameDuplicate {
        /// Frames.
        #[serde(flatten)]
        frames: Frames,
    },
    /// Frames are held back until `distance` later ones of their direction have passed, at most 10 ms.
    FrameReorder {
        /// Frames.
        #[serde(flatten)]
        frames: Frames,
        /// Frames that overtake.
        #[serde(default = "one")]
        distance: u64,
    },
    /// A bit of the payload is flipped: the ICRC of a RoCE packet, or the checksum of another, is wrong.
    FrameCorrupt {
        /// Frames.
        #[serde(flatten)]
        frames: Frames,
    },
    /// Frames arrive late. With jitter they overtake each other.
    FrameDelay {
        /// Frames.
        #[serde(flatten)]
        frames: Frames,
        /// Delay of every frame.
        delay: Delay,
        /// Maximum of a random further delay.
        #[serde(default)]
        jitter: Delay,
    },
    /// The wire is slower: frames wait for each other, and what would wait for more than `queue` is lost.
    FrameRate {
        /// Frames.
        #[serde(flatten)]
        frames: Frames,
        /// Rate in Mbit/s.
        mbit_per_second: u64,
        /// Longest wait.
        #[serde(default = "default_queue")]
        queue: Delay,
    },
    /// Positive acknowledgements that leave the guest are RNR NAKs, and their requests are sent again after a delay.
    RnrNak {
        /// Code of the delay (IBTA volume 1, section 9.7.5.2.8), 5 bits.
        #[serde(default = "default_timer")]
        timer: u8,
    },
    /// A command is not executed and answered with a status and a syndrome. The object of a command fault is the
    /// opcode.
    CommandRefused {
        /// Commands.
        #[serde(flatten)]
        commands: Commands,
        /// Status (`MLX5_CMD_STAT_*`).
        status: u8,
        /// Syndrome.
        #[serde(default)]
        syndrome: u32,
    },
    /// A command is executed and answered late.
    CommandLate {
        /// Commands.
        #[serde(flatten)]
        commands: Commands,
        /// Delay of the answer.
        delay: Delay,
    },
    /// A command is never answered.
    CommandLost {
        /// Commands.
        #[serde(flatten)]
        commands: Commands,
        /// Whether it is executed.
        #[serde(default)]
        executed: bool,
    },
    /// Reserved bits of the outputs of commands are random; drivers must ignore them.
    ReservedBits {
        /// Commands.
        #[serde(flatten)]
        commands: Commands,
    },
    /// A CQE is never written. The object is the CQ.
    CqeLost {
        /// Queue that the CQE is about, `None` for any.
        #[serde(default)]
        queue: Option<u32>,
    },
    /// A CQE is written late, behind later ones.
    CqeLate {
        /// Queue that the CQE is about, `None` for any.
        #[serde(default)]
        queue: Option<u32>,
        /// Delay.
        delay: Delay,
    },
    /// A CQE reports an error, and its queue pair goes to the error state.
    CqeError {
        /// Queue that the CQE is about, `None` for any.
        #[serde(default)]
        queue: Option<u32>,
        /// Syndrome (`MLX5_CQE_SYNDROME_*`).
        syndrome: u8,
        /// Vendor syndrome.
        #[serde(default)]
        vendor_syndrome: u8,
    },
    /// A CQ overruns in place of a CQE.
    CqOverrun,
    /// An EQE is never written. The object is the EQ.
    EqeLost {
        /// Type of the event (`enum mlx5_event`), `None` for any.
        #[serde(default)]
        event_type: Option<u8>,
    },
    /// An EQE is written late, behind later ones.
    EqeLate {
        /// Type of the event (`enum mlx5_event`), `None` for any.
        #[serde(default)]
        event_type: Option<u8>,
        /// Delay.
        delay: Delay,
    },
    /// An EQE is written twice.
    EqeDuplicate {
        /// Type of the event (`enum mlx5_event`), `None` for any.
        #[serde(default)]
        event_type: Option<u8>,
    },
    /// An interrupt is lost. The object is the vector.
    InterruptLost,
    /// An interrupt is late.
    InterruptLate {
        /// Delay.
        delay: Delay,
    },
    /// An interrupt is followed by another without an event, after a delay.
    InterruptSpurious {
        /// Delay of the second interrupt.
        #[serde(default)]
        delay: Delay,
    },
    /// An access to guest memory fails, as if nothing were mapped there.
    DmaFailed {
        /// Accesses.
        #[serde(flatten)]
        accesses: Accesses,
    },
    /// An access to guest memory takes time, which the thread of the access spends.
    DmaSlow {
        /// Accesses.
        #[serde(flatten)]
        accesses: Accesses,
        /// Time of an access.
        delay: Delay,
    },
    /// BAR 0 is dead: reads return all ones, writes are dropped. The object is the offset.
    BarDead,
    /// The health buffer reports a syndrome (`enum mlx5_health_syndr`, health.c).
    Health {
        /// Syndrome.
        syndrome: u8,
        /// Whether firmware requests a reset (`rfr`): the error is fatal.
        #[serde(default)]
        fatal: bool,
    },
    /// The health counter stands still.
    HealthStuck,
    /// The initialization segment names a time limit of commands (`cmd_exec_to`), which drivers take as they load.
    CommandTimeout {
        /// Limit in milliseconds, 20 bits.
        limit: Delay,
    },
    /// A queue pair goes to the error state.
    QpError {
        /// Occasion.
        on: Occasion,
        /// QP number.
        qp: u32,
    },
    /// An asynchronous event is reported.
    AsyncEvent {
        /// Occasion.
        on: Occasion,
        /// Event.
        event: AsyncEvent,
        /// Number of the object that the event is about.
        #[serde(default)]
        number: u32,
    },
    /// The link goes down for a time.
    LinkFlap {
        /// Occasion.
        on: Occasion,
        /// Time without link.
        down: Delay,
    },
    /// The function is reset (FLR), with the driver unaware.
    FunctionReset {
        /// Occasion.
        on: Occasion,
    },
    /// The firmware requests pages, again and again.
    PageRequestStorm {
        /// Occasion.
        on: Occasion,
        /// Pages of a request.
        pages: u16,
        /// Number of requests.
        requests: u32,
    },
}

/// Frames of a wire fault.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Frames {
    /// Direction; `None` for both.
    #[serde(default)]
    pub direction: Option<Direction>,
    /// Opcode of the BTH, for RoCE packets only; `None` for all frames.
    #[serde(default)]
    pub opcode: Option<u8>,
}

/// Commands of a command fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commands {
    /// Name of the opcode, as `CREATE_CQ`; `None` for all.
    #[serde(default)]
    pub opcode: Option<CommandName>,
}

/// The name of an opcode.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommandName(pub Opcode);

impl TryFrom<String> for CommandName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let found = Opcode::ALL.iter().find(|(_, known)| *known == name);
        found
            .map(|(opcode, _)| Self(*opcode))
            .ok_or_else(|| format!("there is no command {name:?}"))
    }
}

impl From<CommandName> for String {
    fn from(name: CommandName) -> Self {
        name.0.to_string()
    }
}

/// Accesses of a fault of guest memory; the object is the position of the purpose in the statistics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accesses {
    /// Purpose, by its name in the statistics; `None` for all.
    #[serde(default)]
    pub purpose: Option<String>,
    /// Direction; `None` for both.
    #[serde(default)]
    pub access: Option<Access>,
}

/// Direction of an access to guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// From guest memory.
    Read,
    /// To guest memory.
    Write,
}

/// Occasion of an action. The action follows the occasion, on another thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// Application of the plan.
    Now,
    /// Every command.
    Command,
    /// Every CQE.
    Cqe,
    /// Every frame, in either direction.
    Frame,
    /// Every access to BAR 0.
    Register,
}

/// Asynchronous events that the device itself has no cause for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AsyncEvent {
    /// Path migration of a QP succeeded.
    PathMigrated,
    /// Path migration of a QP failed.
    PathMigrationFailed,
    /// Communication of a QP is established.
    CommunicationEstablished,
    /// The send queue of a QP is drained.
    SendQueueDrained,
    /// Local catastrophic error of a QP's work queues.
    WqCatastrophicError,
    /// Invalid request at a QP.
    WqInvalidRequestError,
    /// Access violation at a QP.
    WqAccessError,
    /// Catastrophic error of an SRQ.
    SrqCatastrophicError,
    /// The limit of an SRQ is reached.
    SrqRqLimit,
    /// The LID of the port changed.
    LidChange,
    /// The port's GUID table changed.
    GuidChange,
    /// A client wants to be registered again.
    ClientReregister,
}

impl Kind for NicFault {
    fn door(&self) -> u32 {
        let door = match self {
            Self::FrameLoss { .. }
            | Self::FrameDuplicate { .. }
            | Self::FrameReorder { .. }
            | Self::FrameCorrupt { .. }
            | Self::FrameDelay { .. }
            | Self::FrameRate { .. }
            | Self::RnrNak { .. } => Door::Wire,
            Self::CommandRefused { .. }
            | Self::CommandLate { .. }
            | Self::CommandLost { .. }
            | Self::ReservedBits { .. } => Door::Command,
            Self::CqeLost { .. } | Self::CqeLate { .. } | Self::CqeError { .. } | Self::CqOverrun => Door::Completion,
            Self::EqeLost { .. } | Self::EqeLate { .. } | Self::EqeDuplicate { .. } => Door::Event,
            Self::InterruptLost | Self::InterruptLate { .. } | Self::InterruptSpurious { .. } => Door::Interrupt,
            Self::DmaFailed { .. } | Self::DmaSlow { .. } => Door::Memory,
            Self::BarDead | Self::Health { .. } | Self::HealthStuck | Self::CommandTimeout { .. } => Door::Bar,
            Self::QpError { on, .. }
            | Self::AsyncEvent { on, .. }
            | Self::LinkFlap { on, .. }
            | Self::FunctionReset { on }
            | Self::PageRequestStorm { on, .. } => on.door(),
        };
        door as u32
    }

    fn object_name(&self, object: u32) -> Option<String> {
        match self {
            Self::CommandRefused { .. }
            | Self::CommandLate { .. }
            | Self::CommandLost { .. }
            | Self::ReservedBits { .. }
            | Self::FunctionReset { on: Occasion::Command } => {
                let opcode = Opcode(u16::try_from(object).ok()?);
                Some(opcode.to_string())
            }
            Self::DmaFailed { .. } | Self::DmaSlow { .. } => {
                let purpose = Purpose::NAMES.get(usize::try_from(object).ok()?)?;
                Some((*purpose).to_owned())
            }
            _ => None,
        }
    }
}

impl Occasion {
    pub(super) fn door(self) -> Door {
        match self {
            Self::Now => Door::Now,
            Self::Command => Door::Command,
            Self::Cqe => Door::Completion,
            Self::Frame => Door::Wire,
            Self::Register => Door::Bar,
        }
    }
}

fn one() -> u64 {
    1
}

/// 0.64 ms.
fn default_timer() -> u8 {
    12
}

fn default_queue() -> Delay {
    Delay(std::time::Duration::from_millis(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that serde expects in place of one that does not exist.
    fn names(refusal: &str) -> Vec<String> {
        let expected = refusal.split("expected one of").nth(1).expect(refusal);
        expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn every_kind_and_every_event_is_documented() {
        let page = include_str!("../../../docs/faults.md");
        let refusal = serde_json::from_str::<NicFault>(r#"{"kind": ""}"#)
            .unwrap_err()
            .to_string();
        let kinds = names(&refusal);
        assert!(kinds.len() > 25, "{kinds:?}");
        for kind in &kinds {
            assert!(
                page.contains(&format!("\n| `{kind}` |")),
                "{kind} is not in docs/faults.md"
            );
        }
        let section = page
            .split("\n## ")
            .find(|section| section.starts_with("What stock drivers do"));
        let faults: Vec<&str> = section
            .expect("a section")
            .lines()
            .filter_map(|row| row.split(" | ").next())
            .collect();
        for kind in &kinds {
            let kind = format!("`{kind}`");
            let is_in_a_row = |fault: &&str| fault.starts_with("| ") && fault.contains(&kind);
            assert!(
                faults.iter().any(is_in_a_row),
                "no row has what stock drivers do under {kind}"
            );
        }
        let refusal = serde_json::from_str::<AsyncEvent>(r#""""#).unwrap_err().to_string();
        for event in names(&refusal) {
            assert!(page.contains(&format!("`{event}`")), "{event} is not in docs/faults.md");
        }
    }

    #[test]
    fn a_command_is_named_as_in_the_kernel() {
        let known = serde_json::from_str::<CommandName>(r#""CREATE_CQ""#).unwrap();
        assert_eq!(known.0, Opcode::CREATE_CQ);
        assert!(serde_json::from_str::<CommandName>(r#""CREATE_CP""#).is_err());
    }
}
