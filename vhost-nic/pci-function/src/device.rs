//! The device behind a function.

/// Registers behind BAR 0, without the MSI-X table and the pending bits, which belong to the function.
///
/// Accesses arrive as the guest makes them: of any width, at any offset within the BAR, from several threads.
pub trait Device: Send + Sync {
    /// Fills `data` with the registers at `offset`.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Writes `data` to the registers at `offset`.
    fn write(&self, offset: u64, data: &[u8]);

    /// Drops all state that the guest has set up. After it returns, the device touches no guest memory and raises no
    /// interrupt until the guest sets it up again.
    fn reset(&self);

    /// Drops what outlives a reset as well, after one: the next guest must not find the traces of the last.
    fn power_cycle(&self) {}
}
