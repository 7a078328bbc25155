//! Steps that a delivery may take on the thread of its sender: flow tables and groups, copies, descriptors, and ranges
//! of indirect keys. The receiver has made them all.
//!
//! A delivery that exceeds its budget is given up without an effect besides memory that will be written again, and
//! begins anew on the receiver's own thread, where nothing limits it but the limits of the device.

use std::cell::Cell;

/// Largest budget; more steps are none.
const MOST: i64 = 1 << 48;

thread_local! {
    /// Steps left for the delivery in progress on this thread; negative if it wanted more.
    static LEFT: Cell<i64> = const { Cell::new(i64::MAX) };
}

/// Restores the budget of an outer delivery, also after a panic.
struct Outer(i64);

impl Drop for Outer {
    fn drop(&mut self) {
        LEFT.set(self.0);
    }
}

/// Calls `act` with a budget of its own.
pub fn limited<T>(steps: u64, act: impl FnOnce() -> T) -> T {
    let steps = i64::try_from(steps).unwrap_or(MOST).min(MOST);
    let _outer = Outer(LEFT.replace(steps));
    act()
}

/// Calls `act` without a budget.
pub fn unlimited<T>(act: impl FnOnce() -> T) -> T {
    let _outer = Outer(LEFT.replace(i64::MAX));
    act()
}

/// Adds steps for work that the sender has asked for. Without a budget, changes nothing.
pub fn add(steps: u64) {
    let left = LEFT.get();
    if (0..=MOST).contains(&left) {
        LEFT.set(left.saturating_add_unsigned(steps));
    }
}

/// Takes steps from the budget. Returns false if it does not have them, from then on.
pub fn take(steps: u64) -> bool {
    let left = LEFT.get().saturating_sub_unsigned(steps);
    LEFT.set(left);
    left >= 0
}

/// Number of steps left.
pub fn left() -> u64 {
    LEFT.get().max(0) as u64
}

/// Whether there is a budget.
pub fn is_limited() -> bool {
    LEFT.get() <= MOST
}

/// Whether more steps were wanted than there were.
pub fn is_exceeded() -> bool {
    LEFT.get() < 0
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn a_delivery_within_another_has_a_budget_of_its_own() {
        limited(10, || {
            assert!(take(4));
            limited(3, || {
                assert!(take(3) && !is_exceeded());
                assert!(!take(1) && !take(0) && is_exceeded());
                assert_eq!(left(), 0);
            });
            unlimited(|| {
                add(1);
                assert!(take(u64::from(u32::MAX)) && !is_limited());
            });
            add(1);
            assert!(take(1) && is_limited());
            assert_eq!((left(), is_exceeded()), (6, false));
        });
        assert!(take(u64::from(u32::MAX)));
    }

    #[test]
    fn a_panic_ends_the_budget() {
        let panic = catch_unwind(|| {
            limited(1, || {
                assert!(!take(2));
                panic!("a mistake in the device");
            })
        });
        assert!(panic.is_err() && !is_exceeded() && take(1 << 40));
    }
}
