//! What the drivers make of a device that lacks one capability, for each that the device has. It tells what the drivers need, and guards
//! the device's table of capabilities.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use guest_tests::{Guest, KernelMessage, NIC, NicOptions, Result, Testbed};
use serde_json::Value;

use crate::golden;

/// Beds at the same time.
const BEDS: usize = 2;

#[test]
#[ignore = "long: boots a guest for every capability"]
fn what_the_drivers_do_without_each_capability_is_as_ever() {
    let mut names = vec![String::new()];
    names.extend(capabilities());
    assert!(names.len() > 20, "{names:?}");
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(vec![String::new(); names.len()]));
    thread::scope(|scope| {
        for _ in 0..BEDS {
            scope.spawn(|| {
                while let Some((index, name)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    names.get(index).map(|name| (index, name))
                } {
                    let outcome = without(name).unwrap_or_else(|error| format!("the bed failed: {error}"));
                    let shown = if name.is_empty() { "(none zeroed)" } else { name };
                    eprintln!("{shown}: {outcome}");
                    rows.lock().expect("no thread panics with it")[index] = format!("{shown}: {outcome}\n");
                }
            });
        }
    });
    let table = rows.into_inner().expect("no thread panicked").concat();
    golden::assert_same("capabilities.txt", &table);
}

/// The names of all capabilities the device has.
fn capabilities() -> Vec<String> {
    let output = Command::new(NicOptions::program().expect("the daemon is built"))
        .arg("--print-capabilities")
        .output()
        .expect("the daemon starts");
    let printed: Value = serde_json::from_slice(&output.stdout).expect("the daemon prints JSON");
    let names = printed["device"]["capabilities"].as_array();
    let names = names.unwrap_or_else(|| panic!("the device's capabilities in {printed}"));
    let names = names.iter().filter_map(|name| name.as_str().map(str::to_owned));
    names.collect()
}

/// What becomes of the drivers without one capability, in a few words that are the same every time.
fn without(name: &str) -> Result<String> {
    let mut options = NicOptions::default();
    if !name.is_empty() {
        options = options.args(["--zero-capability", name]);
    }
    let bed = Testbed::builder("nic-capability")
        .smp(1)
        .nic(options)
        .kernel_arg("log_buf_len=2M")
        .start()?;
    let guest = bed.guest(0);
    let outcome = drive(guest);
    let splats = guest.splats();
    let outcome = match (outcome, splats.first()) {
        (Ok(outcome), None) => outcome,
        // A guest that died tells no more than that.
        (_, Some(splat)) => format!("splat: {}", plain(splat.lines().next().unwrap_or_default())),
        (Err(error), None) => format!("failed: {error}"),
    };
    // Whatever happened in the guest, the daemon has to be well.
    assert!(
        bed.daemon_of("vhost-nic").is_some_and(|daemon| daemon.alive()),
        "{name}"
    );
    bed.allow_splat("");
    let _ = bed.finish();
    Ok(outcome)
}

/// Loads, sets up, looks, unloads.
fn drive(guest: &Guest) -> Result<String> {
    let mut found = Vec::new();
    let load = guest
        .shell("modprobe mlx5_core && modprobe mlx5_ib && modprobe ib_uverbs")
        .timeout(Duration::from_secs(120));
    if !load.run()?.success() {
        found.push("modules do not load".to_owned());
    }
    let bound = guest.run("ls -d /sys/bus/pci/drivers/mlx5_core/0000:*")?.success();
    if !bound {
        found.push("no probe".to_owned());
    } else if guest.nic_load(false).is_err() {
        found.push("no interface".to_owned());
    } else if guest.nic_configure(1500).is_err() {
        found.push("no carrier".to_owned());
    } else if !guest.run(&format!("ip link set {NIC} down"))?.success() {
        found.push("does not go down".to_owned());
    }
    if bound {
        let verbs = guest.run("ls /sys/class/infiniband/")?;
        if verbs.text().is_empty() {
            found.push("no RDMA device".to_owned());
        } else if !guest
            .run("cat /sys/class/infiniband/*/ports/1/gid_attrs/types/* 2>/dev/null | grep -q v2")?
            .success()
        {
            found.push("no RoCE v2 GID".to_owned());
        }
    }
    if guest.nic_unload().is_err() {
        found.push("does not unload".to_owned());
    }
    let log = guest.nic_log()?;
    if let Some(message) = log.iter().find(|message| KernelMessage::is_complaint(message)) {
        found.push(format!("complains: {}", plain(&message.text)));
    }
    Ok(if found.is_empty() {
        "works".to_owned()
    } else {
        found.join("; ")
    })
}

/// A kernel message without time stamp and numbers that differ from run to run.
fn plain(message: &str) -> String {
    let text = message.split_once("] ").map_or(message, |(_, text)| text);
    let mut words: Vec<&str> = text.split(' ').collect();
    for index in 0..words.len() {
        let after_pid = index > 0 && words[index - 1].to_lowercase().trim_end_matches(':').ends_with("pid");
        if after_pid || words[index].contains("0000:") || words[index].starts_with("0x") {
            words[index] = "*";
        }
    }
    words.join(" ")
}

#[test]
fn messages_are_compared_without_what_differs() {
    let message = "[   12.345678] mlx5_core 0000:00:08.0: probe_one:1234:(pid 77): failed with 0x12";
    assert_eq!(plain(message), "mlx5_core * probe_one:1234:(pid * failed with *");
}
