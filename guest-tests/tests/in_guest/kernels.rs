//! Kernels and modules of the caller.

use guest_harness::{Image, Result};

use crate::fixture::{Folder, install_kernel, write_module};

const LOAD: &str = "insmod /host/hello.ko; status=$?; dmesg | grep 'hello from'; exit $status";

/// With our own kernel, whose build tree is there; scripts/in-guest fetches the headers of Debian's.
#[test]
fn a_module_is_built_and_loaded() {
    let folder = Folder::new();
    write_module(&folder.share(), 0);
    let run = folder.run(&["--kernel", "own", "--module", ".", "--", LOAD], "");
    assert_eq!(run.status, Some(0));
    assert!(run.stdout.ends_with("hello from a module\n"), "{}", run.stdout);
}

#[test]
fn a_module_that_does_not_build_is_no_run() {
    let folder = Folder::new();
    folder.write("hello.c", "#error no such thing\n");
    folder.write("Kbuild", "obj-m := hello.o\n");
    let run = folder.run(&["--kernel", "own", "--module", ".", "--", "true"], "");
    assert_eq!(run.status, Some(125));
    assert!(run.stderr.contains("#error no such thing"), "{}", run.stderr);
}

/// A kernel as a caller has it: a bzImage and what `make modules_install` leaves. It is our own, whose modules are the
/// content of a disk.
#[test]
fn a_kernel_with_its_modules_boots() -> Result<()> {
    let folder = Folder::new();
    let image = Image::load()?;
    let kernel = install_kernel(&folder.share()).display().to_string();
    let run = folder.run(
        &[
            "--kernel",
            &kernel,
            "--modules",
            ".",
            "--",
            "uname -r; ls /sys/class/infiniband",
        ],
        "",
    );
    assert_eq!(run.status, Some(0));
    assert_eq!(run.stdout, format!("{}\nmlx5_0\n", image.kernel_release));
    Ok(())
}

/// The build folder of our own kernel stands for a caller's tree.
#[test]
fn a_built_tree_boots_and_modules_are_built_for_it() -> Result<()> {
    let folder = Folder::new();
    write_module(&folder.share(), 0);
    let image = Image::load()?;
    let tree = image.kernel_build.expect("a build tree").display().to_string();
    let script = format!("uname -r; {LOAD}");
    let run = folder.run(&["--tree", &tree, "--module", ".", "--", &script], "");
    assert_eq!(run.status, Some(0));
    assert!(
        run.stdout.starts_with(&format!("{}\n", image.kernel_release)),
        "{}",
        run.stdout
    );
    assert!(run.stdout.ends_with("hello from a module\n"), "{}", run.stdout);
    Ok(())
}
