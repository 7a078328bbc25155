//! Reserved bits of inputs, which a driver must leave 0.

use mlx5_prm::COMPLETE;
use mlx5_prm::layout::{Declaration, get};

/// Returns the offset of the first reserved bit that is set, in bits. Only layouts of which every field is declared
/// have known reserved bits.
pub(super) fn first_set(input: &[u8], layout: &Declaration) -> Option<usize> {
    if !COMPLETE.contains(&layout.ifc) {
        return None;
    }
    let input = input.get(..layout.size)?;
    let is_field = |bit: usize| {
        layout
            .fields
            .iter()
            .any(|field| (field.offset..field.offset + field.width).contains(&bit))
    };
    (0..layout.size * 8).find(|bit| get(input, *bit, 1) != 0 && !is_field(*bit))
}

#[cfg(test)]
mod tests {
    use mlx5_prm::domain::DeallocPdIn;
    use mlx5_prm::layout::Layout;
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn only_bits_outside_of_fields_are_reserved() {
        let layout = Declaration::of::<DeallocPdIn>();
        let mut input = DeallocPdIn::default();
        input.as_mut_bytes().fill(0xff);
        // opcode, uid and op_mod, pd: the first gap is between the second and the third.
        assert_eq!(first_set(input.as_bytes(), &layout), Some(0x20));
        input.as_mut_bytes()[4..6].fill(0);
        assert_eq!(first_set(input.as_bytes(), &layout), Some(0x40));
        input.as_mut_bytes()[8] = 0;
        assert_eq!(first_set(input.as_bytes(), &layout), Some(0x60));
        input.as_mut_bytes()[12..].fill(0);
        assert_eq!(first_set(input.as_bytes(), &layout), None);
        assert_eq!(layout.size, DeallocPdIn::SIZE);
    }
}
