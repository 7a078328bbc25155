//! Scratch.
use guest_tests::{IsmOptions, SmcOptions, Testbed};

#[test]
fn rmmod() {
    let bed = Testbed::builder("rmmod")
        .guests(1)
        .ism(IsmOptions::default())
        .start()
        .unwrap();
    bed.smc_up().unwrap();
    let a = bed.guest(0);
    println!(
        "{}",
        a.run("rmmod virtio_ism; insmod /host/virtio_ism.ko; sleep 1; dmesg | tail -5")
            .unwrap()
            .text()
    );
    bed.finish().unwrap();
}
#[test]
fn reset() {
    let bed = Testbed::builder("reset")
        .guests(1)
        .ism(IsmOptions::default())
        .start()
        .unwrap();
    bed.smc_up().unwrap();
    let a = bed.guest(0);
    a.reset().unwrap();
    a.smc_up(&SmcOptions::default()).unwrap();
    bed.finish().unwrap();
}
#[test]
fn reboot() {
    let bed = Testbed::builder("reboot")
        .guests(1)
        .ism(IsmOptions::default())
        .start()
        .unwrap();
    bed.smc_up().unwrap();
    let a = bed.guest(0);
    let _ = a.run("(sleep 1; echo b > /proc/sysrq-trigger) & exit 0");
    std::thread::sleep(std::time::Duration::from_secs(15));
    a.smc_up(&SmcOptions::default()).unwrap();
    bed.finish().unwrap();
}
