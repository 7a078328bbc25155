//! Records of stock kernels: the load of the drivers, a program between two guests, and the unload.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use guest_harness::{NicOptions, Result, workspace_dir};

use crate::fixture::{Setup, step};

/// Replays a record with more arguments. Returns what the command prints.
#[track_caller]
fn replay(record: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(NicOptions::program()?);
    let output = command.arg("replay").arg(record).args(arguments).output();
    let output = output.expect("the replay command runs");
    let text = String::from_utf8(output.stdout).expect("the report is text");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}{errors}", record.display());
    Ok(text)
}

/// Records two guests and replays them. With `UPDATE=1`, keeps the record of the first for the tests of vhost-nic.
fn record(series: &'static str) -> Result<()> {
    let fixture = Setup::new("nic-replay", 2)
        .stock_kernel(series)
        .options(NicOptions::default().recorded())
        .start()?;
    step("ibv_rc_pingpong", || {
        let program = "ibv_rc_pingpong -d mlx5_0 -g 3 -c -n 10 -s 1024";
        let said = fixture.flow(1, 0).converse_alike(program, Duration::from_secs(120))?;
        assert!(said.client.stdout.contains("iters in"), "{}", said.client);
        Ok(())
    })?;
    let commands = [0, 1].map(|guest| fixture.stats(guest).map(|stats| stats["commands"].as_u64()));
    let logs = fixture.finish_with_logs()?;
    for (guest, commands) in commands.into_iter().enumerate() {
        let commands = commands?.expect("the number of commands");
        let record = logs.join(NicOptions::record(guest));
        let text = replay(&record, &[])?;
        println!("{text}");
        assert!(text.ends_with("\nall outputs are equal\n"), "{text}");
        // More follow when the drivers are unloaded.
        let words: Vec<&str> = text.split([' ', '(']).collect();
        let count = words
            .windows(2)
            .find(|pair| pair[1] == "commands),")
            .map(|pair| pair[0]);
        let executed: u64 = count.expect("the number of commands").parse().expect("a number");
        assert!(executed > commands, "{commands}: {text}");
    }
    if std::env::var_os("UPDATE").is_some() {
        let kept = workspace_dir().join(format!("vhost-nic/tests/records/linux-{series}.record"));
        let kept = kept.to_str().expect("a path in text");
        replay(&logs.join(NicOptions::record(0)), &["--output", kept])?;
    }
    fs::remove_dir_all(logs).expect("the logs can be removed");
    Ok(())
}

#[test]
fn linux_6_1_of_debian_is_replayed() -> Result<()> {
    record("6.1")
}

#[test]
fn linux_6_12_of_debian_is_replayed() -> Result<()> {
    record("6.12")
}

#[test]
fn linux_7_of_debian_is_replayed() -> Result<()> {
    record("7.x")
}
