//! Content for transfers.

/// Returns pseudo-random bytes, the same in every run, in which lost, repeated or reordered data show.
pub fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}
