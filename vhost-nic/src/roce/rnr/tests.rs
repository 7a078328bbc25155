use super::RnrTimer;
use std::time::Duration;

#[test]
fn the_delays_are_those_of_the_specification() {
    // Milliseconds, of codes 0 to 31.
    let milliseconds = [
        655.36, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48, 0.64, 0.96, 1.28, 1.92, 2.56, 3.84,
        5.12, 7.68, 10.24, 15.36, 20.48, 30.72, 40.96, 61.44, 81.92, 122.88, 163.84, 245.76, 327.68, 491.52,
    ];
    for (code, milliseconds) in (0..).zip(milliseconds) {
        let microseconds = f64::round(milliseconds * 1000.0) as u64;
        assert_eq!(
            RnrTimer::new(code).delay(),
            Duration::from_micros(microseconds),
            "code {code}"
        );
    }
}

#[test]
fn a_code_has_five_bits() {
    assert_eq!(RnrTimer::new(0x2c).code(), 0x0c);
}
