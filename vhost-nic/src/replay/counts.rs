//! Counts of a replay.

use std::fmt;

/// Inputs and outputs of a NIC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Register accesses.
    pub accesses: u64,
    /// Commands that the NIC executed.
    pub commands: u64,
    /// Reads of guest memory.
    pub memory_reads: u64,
    /// Writes to guest memory, atomic updates included.
    pub memory_writes: u64,
    /// Interrupts.
    pub interrupts: u64,
    /// Frames that the NIC received.
    pub frames_in: u64,
    /// Frames that the NIC sent.
    pub frames_out: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "({} register accesses, {} commands), {} memory reads, {} frames in",
            self.accesses, self.commands, self.memory_reads, self.frames_in
        )?;
        write!(
            f,
            "{} memory writes, {} interrupts, {} frames out",
            self.memory_writes, self.interrupts, self.frames_out
        )
    }
}
