//! Reserved bits of inputs, which a driver must leave 0, and of outputs, which it must ignore.

use fastrand::Rng;
use mlx5_prm::COMPLETE;
use mlx5_prm::layout::{Declaration, set};

/// Reserved bits of every output (`struct mlx5_outbox_hdr`): between status and syndrome.
const OF_HEADER: std::ops::Range<usize> = 8..32;

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
    // Inputs are mostly zeros, and this is done for every command.
    let set = input.iter().enumerate().filter(|(_, byte)| **byte != 0);
    set.flat_map(|(at, byte)| {
        (0..8)
            .filter(move |bit| byte & 0x80 >> bit != 0)
            .map(move |bit| at * 8 + bit)
    })
    .find(|bit| !is_field(*bit))
}

/// Fills the reserved bits of an output at random: those of every output, and those of its layouts at their offsets in
/// bits, as far as they are known. The layouts may be longer or shorter than the output.
pub(super) fn fill(output: &mut [u8], layouts: &[(usize, Declaration)], random: &mut Rng) {
    let mut reserved: Vec<usize> = OF_HEADER.collect();
    for (start, layout) in layouts {
        find(layout, *start, &mut reserved);
    }
    let end = output.len() / 4 * 32;
    for bit in reserved.into_iter().filter(|bit| *bit < end) {
        set(output, bit, 1, random.bool().into());
    }
}

/// Appends the reserved bits of a layout at bit `start`, those of its fields that are layouts included.
fn find(layout: &Declaration, start: usize, reserved: &mut Vec<usize>) {
    let is_complete = COMPLETE.contains(&layout.ifc);
    let mut at = 0;
    let mut fields = layout.fields.to_vec();
    fields.sort_unstable_by_key(|field| field.offset);
    for field in fields {
        if is_complete {
            reserved.extend((at..field.offset).map(|bit| start + bit));
        }
        if let Some(inner) = field.inner {
            find(inner, start + field.offset, reserved);
        }
        at = at.max(field.offset + field.width);
    }
    if is_complete {
        reserved.extend((at..layout.size * 8).map(|bit| start + bit));
    }
}

#[cfg(test)]
mod tests {
    use mlx5_prm::cq::QueryCqOut;
    use mlx5_prm::domain::DeallocPdIn;
    use mlx5_prm::layout::Layout;
    use mlx5_prm::layouts;
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

    /// Bits of the fields that have no layout of their own, all of them if the layout is not complete.
    fn bits_in_use(layout: &Declaration, start: usize, used: &mut [u8]) {
        if !COMPLETE.contains(&layout.ifc) {
            (0..layout.size * 8).for_each(|bit| set(used, start + bit, 1, 1));
        }
        for field in layout.fields {
            match field.inner {
                Some(inner) => {
                    // What the layout does not declare may be reserved further inside.
                    (0..field.width).for_each(|bit| set(used, start + field.offset + bit, 1, 0));
                    bits_in_use(inner, start + field.offset, used);
                }
                None => (0..field.width).for_each(|bit| set(used, start + field.offset + bit, 1, 1)),
            }
        }
    }

    #[test]
    fn every_reserved_bit_of_an_output_and_no_other_is_random() {
        let outputs = layouts().filter(|layout| layout.ifc.ends_with("_out"));
        for layout in outputs {
            let mut used = vec![0; layout.size];
            bits_in_use(layout, 0, &mut used);
            OF_HEADER.for_each(|bit| set(&mut used, bit, 1, 0));
            let (mut ones, mut zeros) = (vec![0; layout.size], vec![0xff; layout.size]);
            for seed in 0..64 {
                let mut output = used.clone();
                fill(&mut output, &[(0, *layout)], &mut Rng::with_seed(seed));
                for (index, byte) in output.iter().enumerate() {
                    ones[index] |= byte;
                    zeros[index] &= byte;
                }
            }
            assert!(ones.iter().all(|byte| *byte == 0xff), "{}: {ones:02x?}", layout.ifc);
            assert!(zeros == used, "{}: {zeros:02x?}, not {used:02x?}", layout.ifc);
        }
    }

    #[test]
    fn reserved_bits_inside_of_a_context_are_filled() {
        let mut reserved = Vec::new();
        find(&Declaration::of::<QueryCqOut>(), 0, &mut reserved);
        // Of the output, behind the syndrome, and of the context in it (`mlx5_ifc_cqc_bits`), behind the status.
        for bit in [0x40, 0x80 + 0x4] {
            assert!(reserved.contains(&bit), "{bit:#x}");
        }
        assert!(!reserved.contains(&0x80), "the status");
    }

    #[test]
    fn an_output_shorter_than_its_layout_is_filled_as_far_as_it_goes() {
        for length in [0, 3, 8, 16] {
            let mut ones = vec![0; length];
            for seed in 0..64 {
                let mut output = vec![0; length];
                fill(
                    &mut output,
                    &[(0, Declaration::of::<QueryCqOut>())],
                    &mut Rng::with_seed(seed),
                );
                ones.iter_mut().zip(&output).for_each(|(ones, byte)| *ones |= byte);
            }
            // The status, reserved bits, the syndrome, and reserved bits again, in whole words.
            let mut expected = vec![0xff; 16];
            expected[0] = 0;
            expected[4..8].fill(0);
            expected.truncate(length & !3);
            expected.resize(length, 0);
            assert_eq!(ones, expected);
        }
    }
}
