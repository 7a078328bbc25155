//! The Debian packages of scripts/package: installed, used under systemd, and the driver's built by DKMS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use guest_harness::{Image, Result, cache_dir, program, target_dir};

use crate::fixture::Folder;

/// Output of the services.
const EXPECTED: &str = "\
# verify
root:kvm 660 /run/vhost-nic/lan/a.sock
root:kvm 660 /run/vhost-nic/lan/b.sock
root:kvm 660 /run/vhost-nic/lan/c.sock
root:kvm 660 /run/vhost-nic/lan/d.sock
root:kvm 660 /run/vhost-ism/lan/a.sock
# the first connection starts the daemon
inactive
3 guests on each socket, 6 frames compared
active
1
# a daemon that stops leaves the sockets to the next
success
3 guests on each socket, 6 frames compared
# a daemon that dies is started again
3 guests on each socket, 6 frames compared
# options of an instance
3 guests on each socket, 6 frames compared
begun: true
3 guests on each socket, 6 frames compared
recorded
# the other daemon
active
# beside the units
";

/// Returns the package of a name.
fn package(name: &str) -> PathBuf {
    let packages = fs::read_dir(target_dir().join("package")).expect("scripts/package makes them");
    let mut paths = packages.map(|entry| entry.expect("a directory").path());
    let is_wanted = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        file.starts_with(&format!("{name}_")) && file.ends_with(".deb")
    };
    paths.find(is_wanted).expect("scripts/package makes it")
}

/// Runs a program of the host; returns what it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().expect("scripts/test installs it");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{command:?}: {text:?}");
    text.concat()
}

/// Installs packages in an empty root.
fn install(root: &Path, names: &[&str]) {
    let state = root.join("var/lib/dpkg");
    for directory in ["updates", "info"] {
        fs::create_dir_all(state.join(directory)).expect("a new root");
    }
    for file in ["status", "available"] {
        fs::write(state.join(file), "").expect("a new root");
    }
    let mut dpkg = Command::new("dpkg");
    dpkg.arg(format!("--root={}", root.display()))
        .args(["--force-depends", "--force-not-root", "--install"])
        .args(names.iter().map(|name| package(name)));
    run(&mut dpkg);
    let verify = run(Command::new("dpkg")
        .arg(format!("--root={}", root.display()))
        .arg("--verify"));
    assert_eq!(verify, "");
}

#[test]
#[ignore = "long: needs the packages, and a root file system with systemd"]
fn installed_services_serve_guest_after_guest() {
    for name in ["vhost-nic", "vhost-ism", "virtio-ism-dkms"] {
        let mut lintian = Command::new("lintian");
        run(lintian.args(["--allow-root", "--fail-on", "error"]).arg(package(name)));
    }
    let folder = Folder::new();
    install(&folder.share().join("root"), &["vhost-nic", "vhost-ism"]);
    let exchange = program("examples/exchange").expect("scripts/test builds it");
    fs::copy(exchange, folder.share().join("exchange")).expect("a copy");
    folder.write("services.sh", include_str!("services.sh"));
    let rootfs = cache_dir().join("rootfs+systemd/rootfs.ext4");
    let rootfs = rootfs.to_str().expect("a path of text");
    let run = folder.run(&["--rootfs", rootfs, "--", "bash services.sh"], "");
    assert_eq!(run.status, Some(0));
    let lines: Vec<&str> = run
        .stdout
        .lines()
        .filter(|line| !line.starts_with("Created symlink"))
        .collect();
    let (last, first) = lines.split_at(lines.len() - 2);
    assert_eq!(last.join("\n") + "\n", EXPECTED);
    assert!(
        first[0].contains("Overall exposure level") && first[0].contains("SAFE"),
        "{first:?}"
    );
    assert_eq!(first[1], "0", "sockets are left");
}

#[test]
#[ignore = "long: needs the packages, and DKMS"]
fn dkms_builds_the_guest_driver() -> Result<()> {
    let folder = Folder::new();
    let (root, tree) = (folder.share().join("root"), folder.share().join("tree"));
    fs::create_dir(&tree).expect("a new directory");
    run(Command::new("dpkg-deb")
        .arg("--extract")
        .arg(package("virtio-ism-dkms"))
        .arg(&root));
    let image = Image::load()?;
    let build = image.kernel_build.expect("a build tree");
    let kernel = format!("{}/x86_64", image.kernel_release);
    let mut dkms = Command::new("dkms");
    dkms.args([
        "build",
        "-m",
        "virtio-ism",
        "-v",
        env!("CARGO_PKG_VERSION"),
        "-k",
        &kernel,
    ]);
    dkms.arg("--sourcetree")
        .arg(root.join("usr/src"))
        .arg("--dkmstree")
        .arg(&tree);
    run(dkms.arg("--kernelsourcedir").arg(build));
    let module = format!("virtio-ism/{}/{kernel}/module/virtio_ism.ko", env!("CARGO_PKG_VERSION"));
    let magic = run(Command::new("modinfo").args(["-F", "vermagic"]).arg(tree.join(module)));
    assert!(magic.starts_with(&format!("{} ", image.kernel_release)), "{magic}");
    Ok(())
}
