//! Temporary.
use guest_tests::*;
use std::time::Duration;
#[test]
fn smc() -> Result<()> {
    let t = std::time::Instant::now();
    let bed = Testbed::builder("tmp-ism")
        .guests(2)
        .mesh()
        .ism(IsmOptions::default())
        .start()?;
    eprintln!("up {:?}", t.elapsed());
    bed.smc_up()?;
    eprintln!("smc {:?}", t.elapsed());
    println!(
        "{}",
        bed.guest(0)
            .run("/host/smc-tool --help; lsmod; dmesg | tail -20; ls -la /sys/class/dibs")?
    );
    println!("{}", bed.daemon().stats()?);
    bed.guest(0).reset()?;
    eprintln!("reset {:?}", t.elapsed());
    bed.guest(0).smc_up(&SmcOptions::default())?;
    bed.guest(1).restart()?;
    bed.guest(1).smc_up(&SmcOptions::default())?;
    eprintln!("restart {:?}", t.elapsed());
    assert!(bed.daemon().alive());
    let _ = Duration::ZERO;
    let r = bed.finish();
    eprintln!("finish {:?}", t.elapsed());
    r
}
