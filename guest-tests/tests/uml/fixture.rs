//! User Mode Linux guests with the NIC.

use std::env;

use guest_harness::{DaemonControl, NicOptions, NicSetup, Result, Testbed};

/// Kernel parameter of guests whose drivers are unbound. RDS would leave what it has of an RDMA device that goes to a
/// workqueue (`rds_ib_remove_one`, net/rds/ib.c), which comes too late one time in a hundred: the kernel warns or
/// crashes.
pub const WITHOUT_RDS: &str = "initcall_blacklist=rds_rdma_init";

/// Boots User Mode Linux guests and brings their NICs up.
pub fn nic_testbed(name: &str, guests: usize) -> Result<Testbed> {
    let testbed = Testbed::builder(name)
        .guests(0)
        .uml_guests(guests)
        .kernel_arg(WITHOUT_RDS)
        .nic(NicOptions::default())
        .start()?;
    testbed.each(|guest| guest.nic_up(&NicSetup::default()))?;
    Ok(testbed)
}

/// Boots User Mode Linux guests, with or without RDS, whose daemon takes plans of faults.
pub fn faulty_testbed(name: &str, guests: usize, rds: bool) -> Result<(Testbed, DaemonControl)> {
    let socket = env::temp_dir().join(format!("{name}-{}", std::process::id()));
    let options = NicOptions::default().args(["--control-socket".to_owned(), socket.display().to_string()]);
    let control = DaemonControl::new(NicOptions::program()?, socket);
    let mut builder = Testbed::builder(name)
        .guests(0)
        .uml_guests(guests)
        .nic(options)
        .kernel_arg("log_buf_len=2M");
    if !rds {
        builder = builder.kernel_arg(WITHOUT_RDS);
    }
    Ok((builder.start()?, control))
}

/// Asserts that the daemon holds no objects or pages of any guest.
pub fn assert_nothing_left(testbed: &Testbed) -> Result<()> {
    let stats = testbed.daemon().stats()?;
    for guest in stats["guests"].as_array().expect("the daemon's guests") {
        for (kind, count) in guest["objects"].as_object().expect("objects by kind") {
            assert_eq!(*count, 0, "{kind} left behind in {guest:#}");
        }
        assert_eq!(guest["pages"], 0, "pages left behind in {guest:#}");
    }
    Ok(())
}

/// Unloads all drivers and shuts down; asserts that the drivers logged no warnings and the daemon holds nothing.
pub fn finish(testbed: Testbed) -> Result<()> {
    testbed.each(|guest| {
        guest.nic_unload()?;
        guest.nic_check_log(&[])
    })?;
    assert_nothing_left(&testbed)?;
    testbed.finish()
}
