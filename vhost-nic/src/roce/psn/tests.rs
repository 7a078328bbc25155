use super::Psn;
use proptest::prelude::*;

#[test]
fn counting_wraps_at_24_bits() {
    assert_eq!(Psn::new(0xff_ffff) + 1, Psn::new(0));
    assert_eq!(Psn::new(0) - 1, Psn::new(0xff_ffff));
    let mut psn = Psn::new(0xff_fffe);
    psn += 3;
    assert_eq!(psn.value(), 1);
}

#[test]
fn only_24_bits_of_a_word_count() {
    assert_eq!(Psn::new(0x8012_3456).value(), 0x12_3456);
}

#[test]
fn order_holds_across_the_wrap() {
    let last = Psn::new(0xff_ffff);
    let first = Psn::new(0);
    assert!(last.is_before(first) && first.is_after(last));
    assert!(!first.is_before(last) && !last.is_after(first));
    assert!(!first.is_before(first) && !first.is_after(first));
    assert_eq!(first.distance(last), 1);
    assert_eq!(last.distance(first), -1);
}

#[test]
fn half_of_the_space_lies_ahead() {
    let psn = Psn::new(0x90_0000);
    assert_eq!((psn + 0x7f_ffff).distance(psn), 0x7f_ffff);
    assert_eq!((psn + 0x80_0000).distance(psn), -0x80_0000);
}

#[test]
fn a_range_may_span_the_wrap() {
    let (first, last) = (Psn::new(0xff_fffe), Psn::new(1));
    for inside in [0xff_fffe, 0xff_ffff, 0, 1] {
        assert!(Psn::new(inside).is_within(first, last), "{inside:#x}");
    }
    for outside in [0xff_fffd, 2, 0x80_0000] {
        assert!(!Psn::new(outside).is_within(first, last), "{outside:#x}");
    }
}

proptest! {
    #[test]
    fn distance_undoes_addition(start: u32, ahead in -0x80_0000..0x80_0000i32) {
        let start = Psn::new(start);
        let other = start + ahead as u32;
        prop_assert_eq!(other.distance(start), ahead);
        prop_assert_eq!(other - ahead as u32, start);
        prop_assert_eq!(other.is_before(start), ahead < 0);
        prop_assert_eq!(other.is_after(start), ahead > 0);
    }
}
