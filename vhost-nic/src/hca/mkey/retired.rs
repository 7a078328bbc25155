//! Keys that were destroyed or invalidated recently: their use is another mistake than that of a key that never was.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Keys remembered; the oldest are forgotten.
const REMEMBERED: usize = 256;

/// Keys, as WQEs name them, that are no longer valid.
#[derive(Debug, Default)]
pub struct RetiredKeys(Mutex<VecDeque<u32>>);

impl RetiredKeys {
    /// Remembers a key.
    pub fn add(&self, key: u32) {
        let mut keys = self.0.lock();
        if keys.len() == REMEMBERED {
            keys.pop_front();
        }
        keys.push_back(key);
    }

    /// Whether a key was valid.
    pub fn contains(&self, key: u32) -> bool {
        self.0.lock().contains(&key)
    }

    /// Forgets all keys.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_keys_are_forgotten() {
        let keys = RetiredKeys::default();
        (0..=REMEMBERED as u32).for_each(|key| keys.add(key));
        assert_eq!(
            [0, 1, REMEMBERED as u32].map(|key| keys.contains(key)),
            [false, true, true]
        );
    }
}
