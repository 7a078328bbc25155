//! WQEs that reach the device without a plain doorbell: through BlueFlame, and by polling before the doorbell.

use std::time::Duration;

use guest_harness::{NicOptions, Result};

use crate::fixture::{Fixture, Setup, step};

const TIMEOUT: Duration = Duration::from_secs(90);

fn blue_flame_wqes(fixture: &Fixture, guest: usize) -> Result<u64> {
    Ok(fixture.stats(guest)?["blue_flame_wqes"].as_u64().expect("a count"))
}

/// The driver tests write combining when a program first opens the device (`core/wc.c`) and warns if it does not work.
/// Then libmlx5 writes each WQE that is posted alone to the BlueFlame register.
fn blue_flame(setup: Setup) -> Result<()> {
    let options = NicOptions {
        guest_settings: vec!["blue-flame=on".to_owned()],
        ..NicOptions::default()
    };
    let fixture = setup.options(options).start()?;
    for guest in fixture.testbed().guests() {
        guest.run("ibv_devinfo")?.check()?;
        guest.nic_check_log(&[])?;
        let tried = blue_flame_wqes(&fixture, guest.index())?;
        assert!(tried > 0, "the driver's test reached the device through memory only");
    }
    for program in [
        "ibv_rc_pingpong -d mlx5_0 -g 3 -c -n 200",
        "ibv_ud_pingpong -d mlx5_0 -g 3 -c -s 512 -n 200",
        "ib_write_lat -d mlx5_0 -x 3 -F -n 200 -s 200 -I 220",
    ] {
        step(program, || {
            let before = blue_flame_wqes(&fixture, 1)?;
            fixture.flow(1, 0).converse_alike(program, TIMEOUT)?;
            let count = blue_flame_wqes(&fixture, 1)? - before;
            eprintln!("  {count} WQEs came through the register");
            // A WQE that is overtaken is executed from the ring.
            assert!(count >= 100, "{count} of 200 WQEs came through the register");
            Ok(())
        })?;
    }
    fixture.finish()
}

#[test]
fn wqes_come_through_the_doorbell_register() -> Result<()> {
    blue_flame(Setup::new("nic-blue-flame", 2))
}

/// The driver of Linux 6.1 tests write combining differently (mlx5_ib/mem.c).
#[test]
fn wqes_come_through_the_doorbell_register_of_an_older_driver() -> Result<()> {
    blue_flame(Setup::new("nic-blue-flame-6.1", 2).stock_kernel("6.1"))
}

#[test]
fn queues_may_stay_hot() -> Result<()> {
    let fixture = Setup::new("nic-hot", 2)
        .options(NicOptions::default().args(["--hot-period", "100"]))
        .start()?;
    for program in [
        "ibv_rc_pingpong -d mlx5_0 -g 3 -c",
        "ibv_uc_pingpong -d mlx5_0 -g 3 -c -n 200",
        "ib_send_bw -d mlx5_0 -x 3 -F -n 200 -l 8 -s 64",
    ] {
        step(program, || {
            fixture.flow(1, 0).converse_alike(program, TIMEOUT).map(drop)
        })?;
    }
    let ping = fixture.flow(0, 1).ping(50, 56)?;
    assert_eq!(ping.len(), 50);
    fixture.finish()
}
