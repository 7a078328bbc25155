//! Behaviour of the drivers on a device that lacks one capability, for each capability of the device. Shows what the
//! drivers need and guards the capability table. Each NIC is hot-plugged into a running guest.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{env, fs, slice, thread};

use guest_harness::{Daemon, Guest, KernelMessage, NIC, NicOptions, Result, Testbed};
use serde_json::{Value, json};

use crate::golden;

/// Testbeds in parallel.
const TESTBEDS: usize = 2;

#[test]
#[ignore = "long: loads the drivers once for every capability"]
fn what_the_drivers_do_without_each_capability_is_as_ever() {
    let mut names = vec![String::new()];
    names.extend(capabilities());
    // To examine a few capabilities only.
    if let Ok(only) = env::var("CAPABILITIES") {
        names.retain(|name| only.split(',').any(|chosen| chosen == name));
        eprintln!("{names:?} only");
    }
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(vec![String::new(); names.len()]));
    thread::scope(|scope| {
        for _ in 0..TESTBEDS {
            scope.spawn(|| {
                let mut slots = Slots::new().expect("a guest with slots");
                while let Some((index, name)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    names.get(index).map(|name| (index, name))
                } {
                    let outcome = slots
                        .without(name)
                        .unwrap_or_else(|error| format!("the testbed failed: {error}"));
                    let shown = if name.is_empty() { "(none zeroed)" } else { name };
                    eprintln!("{shown}: {outcome}");
                    rows.lock().expect("no thread panics with it")[index] = format!("{shown}: {outcome}\n");
                }
                // The table records all splats.
                slots.testbed.allow_splat("");
                slots.testbed.finish().expect("the guest does not power off");
            });
        }
    });
    let table = rows.into_inner().expect("no thread panicked").concat();
    golden::assert_same("capabilities.txt", &table);
}

/// Returns the names of all capabilities of the device.
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

/// Slots of a guest. A NIC stays in its slot until the guest restarts: QEMU 11.1 aborts when a vfio-user device is
/// unplugged.
const SLOTS: usize = 8;

/// A guest whose slots are filled with NICs one after the other.
struct Slots {
    testbed: Testbed,
    sockets: PathBuf,
    /// Daemons of the plugged NICs. QEMU does not survive the end of a daemon.
    daemons: Vec<Daemon>,
}

impl Slots {
    fn new() -> Result<Self> {
        let ports = (0..SLOTS).flat_map(|slot| {
            // Reserves room for the BAR of a NIC, which the firmware cannot see when it lays out the bridge windows.
            let port = format!("pcie-root-port,id=slot-{slot},chassis={},pref64-reserve=32M", slot + 1);
            ["-device".to_owned(), port]
        });
        let testbed = Testbed::builder("nic-capabilities").smp(1).qemu_args(ports).start()?;
        let sockets = testbed.share().with_file_name("nics");
        fs::create_dir(&sockets).expect("make a directory for sockets");
        Ok(Self {
            testbed,
            sockets,
            daemons: Vec::new(),
        })
    }

    /// Restarts the guest with empty slots.
    fn restart(&mut self) -> Result<()> {
        self.testbed.guest(0).kill()?;
        self.daemons.clear();
        self.testbed.guest(0).restart()
    }

    /// Plugs a NIC without one capability and returns a reproducible summary of what the drivers do.
    fn without(&mut self, name: &str) -> Result<String> {
        if self.daemons.len() == SLOTS {
            self.restart()?;
        }
        let slot = self.daemons.len();
        let guest = self.testbed.guest(0);
        let socket = self.sockets.join(slot.to_string());
        let mut command = Command::new(NicOptions::program()?);
        let settings = format!("path={},mac={}", socket.display(), NicOptions::mac(0));
        command.args(["--guest", &settings]);
        if !name.is_empty() {
            command.args(["--zero-capability", name]);
        }
        let log = self.testbed.logs().join(format!("vhost-nic-{name}.log"));
        let daemon = Daemon::start("vhost-nic", command, &log, slice::from_ref(&socket), None)?;
        self.daemons.push(daemon);

        let splats = guest.splats().len();
        guest.run("dmesg -C")?.check()?;
        let device = json!({
            "driver": "vfio-user-pci",
            "id": format!("nic-{slot}"),
            "bus": format!("slot-{slot}"),
            "socket": {"type": "unix", "path": socket},
        });
        guest.qmp()?.execute("device_add", device)?;
        let found =
            "for try in $(seq 100); do grep -qs 0x15b3 /sys/bus/pci/devices/*/vendor && exit; sleep 0.1; done; exit 1";
        guest.run(found)?.check()?;
        let outcome = drive(guest);
        // The next NIC must be the only one.
        let remove = "for d in /sys/bus/pci/drivers/mlx5_core/0000:*; do echo 1 > $d/remove; done; \
            for d in /sys/bus/pci/devices/*; do [ \"$(<$d/vendor)\" != 0x15b3 ] || echo 1 > $d/remove; done";
        let removed = guest.run(remove).is_ok();
        assert!(self.daemons[slot].alive(), "the daemon died without {name}");
        let splat = guest.splats().get(splats).cloned();
        if outcome.is_err() || splat.is_some() || !removed {
            // The guest may be in a bad state.
            self.restart()?;
        }
        match splat {
            Some(splat) => Ok(format!("splat: {}", plain(splat.lines().next().unwrap_or_default()))),
            None => outcome,
        }
    }
}

/// Loads, configures, inspects and unloads the drivers.
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

/// Strips a kernel message of its time stamp and of everything that differs between runs or kernel builds.
fn plain(message: &str) -> String {
    let text = message.split_once("] ").map_or(message, |(_, text)| text);
    // PCI and memory addresses, function offsets, source lines, processors and process ids.
    let varies = |word: &str| {
        let number = word.trim_end_matches([',', ')', ':']);
        ["0000:", "0x", "CPU#"].iter().any(|start| word.starts_with(start))
            || number.len() == 16 && number.chars().all(|digit| digit.is_ascii_hexdigit())
    };
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let after_pid = words.last().is_some_and(|last| last.ends_with("(pid"));
        let word = match word.split_once("+0x") {
            Some((function, _)) => function,
            None => word,
        };
        words.push(match word.split_once(':') {
            _ if after_pid || varies(word) => "*".to_owned(),
            Some((function, "(pid")) => function.to_owned() + ":(pid",
            Some((function, rest)) if rest.ends_with(":(pid") => function.to_owned() + ":(pid",
            _ => match word.split_once('/') {
                Some((program, number)) if number.parse::<u32>().is_ok() => program.to_owned(),
                _ => word.to_owned(),
            },
        });
    }
    words.join(" ")
}

#[test]
fn messages_are_compared_without_what_differs() {
    for (message, expected) in [
        (
            "[   12.345678] mlx5_core 0000:00:08.0: probe_one:1234:(pid 77): failed with 0x12",
            "mlx5_core * probe_one:(pid * failed with *",
        ),
        (
            "[    1.000000] WARNING: at mlx5e_attach_netdev+0x2f1/0x350 [mlx5_core], CPU#0: modprobe/176",
            "WARNING: at mlx5e_attach_netdev [mlx5_core], * modprobe",
        ),
        (
            "[    1.000000] BUG: kernel NULL pointer dereference, address: 00000000000001d0",
            "BUG: kernel NULL pointer dereference, address: *",
        ),
    ] {
        assert_eq!(plain(message), expected);
    }
}
