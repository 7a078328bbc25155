//! Ranges that were unmapped recently: an access to one comes too late, any other is to the wrong address.

use std::collections::VecDeque;
use std::ops::Range;

/// Ranges remembered; the oldest are forgotten.
const REMEMBERED: usize = 64;

/// Guest addresses that were mapped and are no longer.
#[derive(Debug, Default)]
pub(super) struct Unmapped(VecDeque<Range<u64>>);

impl Unmapped {
    /// Remembers a range that was unmapped.
    pub(super) fn add(&mut self, range: Range<u64>) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(range);
    }

    /// Forgets the parts of ranges that are mapped again.
    pub(super) fn forget(&mut self, mapped: Range<u64>) {
        for range in std::mem::take(&mut self.0) {
            let before = range.start..range.end.min(mapped.start);
            let behind = range.start.max(mapped.end)..range.end;
            for rest in [before, behind] {
                if !rest.is_empty() {
                    self.add(rest);
                }
            }
        }
    }

    /// Whether a byte of the range was unmapped.
    pub(super) fn touches(&self, range: &Range<u64>) -> bool {
        self.0
            .iter()
            .any(|gone| gone.start < range.end && range.start < gone.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_mapped_again_is_remembered() {
        let mut unmapped = Unmapped::default();
        unmapped.add(0x1000..0x5000);
        unmapped.forget(0x2000..0x3000);
        let touched =
            [0xfff, 0x1000, 0x1fff, 0x2000, 0x2fff, 0x3000, 0x4fff, 0x5000].map(|at| unmapped.touches(&(at..at + 1)));
        assert_eq!(touched, [false, true, true, false, false, true, true, false]);
    }

    #[test]
    fn the_oldest_ranges_are_forgotten() {
        let mut unmapped = Unmapped::default();
        for number in 0..REMEMBERED as u64 + 1 {
            unmapped.add(number * 2..number * 2 + 1);
        }
        assert!(!unmapped.touches(&(0..1)));
        assert!(unmapped.touches(&(2..3)));
        assert_eq!(unmapped.0.len(), REMEMBERED);
    }
}
