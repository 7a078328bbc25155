//! Choice of the guests' kernel.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use guest_harness::{Image, workspace_dir};

use crate::args::Arguments;

/// Series of Debian's kernels that `images/build stock` fetches, the default last.
const SERIES: [&str; 3] = ["6.1", "6.12", "7.x"];

/// Loads the image with the kernel of the command line. What has to be packed goes below `scratch`.
pub fn image(arguments: &Arguments, scratch: &Path) -> Result<Image> {
    let default = if arguments.ism { "own" } else { SERIES[2] };
    let kernel = arguments.kernel.as_deref().unwrap_or(default);
    let mut image = match (&arguments.tree, kernel) {
        (Some(tree), _) => of_tree(tree, scratch)?,
        (None, "own") => Image::load()?,
        (None, "debug") => Image::load_debug()?,
        (None, series) if SERIES.contains(&series) => Image::load_stock(series)?,
        (None, path) => {
            let path = PathBuf::from(path);
            ensure!(
                path.is_file(),
                "there is no kernel {}: it is neither a file nor one of own, debug, {}",
                path.display(),
                SERIES.join(", ")
            );
            let Some(modules) = &arguments.modules else {
                bail!(
                    "the modules of {} are missing; name them with --modules",
                    path.display()
                );
            };
            packed(&path, modules, scratch)?
        }
    };
    if let Some(rootfs) = &arguments.rootfs {
        ensure!(
            rootfs.is_file(),
            "there is no root file system {}; see --packages of scripts/in-guest",
            rootfs.display()
        );
        image.rootfs.clone_from(rootfs);
    }
    Ok(image)
}

/// Installs the modules of a built tree, and packs them.
fn of_tree(tree: &Path, scratch: &Path) -> Result<Image> {
    let kernel = tree.join("arch/x86/boot/bzImage");
    ensure!(
        kernel.is_file(),
        "{} is not built: there is no {}",
        tree.display(),
        kernel.display()
    );
    let modules = scratch.join("modules");
    let install = Command::new("make")
        .arg("-C")
        .arg(tree)
        .arg(format!("INSTALL_MOD_PATH={}", modules.display()))
        .args(["INSTALL_MOD_STRIP=1", "modules_install"])
        .output()
        .context("cannot run make")?;
    ensure!(
        install.status.success(),
        "make modules_install in {} failed: {}",
        tree.display(),
        String::from_utf8_lossy(&install.stderr).trim()
    );
    let mut image = packed(&kernel, &modules, scratch)?;
    image.kernel_build = Some(tree.to_owned());
    Ok(image)
}

/// Packs a kernel's modules as guests take them; QEMU and the root file system are those of Debian's kernels.
fn packed(kernel: &Path, modules: &Path, scratch: &Path) -> Result<Image> {
    let mut image = SERIES
        .iter()
        .rev()
        .find_map(|series| Image::load_stock(series).ok())
        .map_or_else(Image::load, Ok)?;
    let release = release(modules)?;
    let pack = Command::new(workspace_dir().join("images/pack-kernel"))
        .args([modules.join("lib/modules").join(&release).as_path(), scratch])
        .output()
        .context("cannot run images/pack-kernel")?;
    ensure!(
        pack.status.success(),
        "cannot pack the modules of {release}: {}",
        String::from_utf8_lossy(&pack.stderr).trim()
    );
    image.kernel = kernel.to_owned();
    image.kernel_release = release;
    image.kernel_build = None;
    image.initrd = Some(scratch.join("initrd"));
    image.modules = scratch.join("modules.ext4");
    Ok(image)
}

/// Returns the only release that a folder of modules has.
fn release(modules: &Path) -> Result<String> {
    let folder = modules.join("lib/modules");
    let entries = folder
        .read_dir()
        .with_context(|| format!("cannot read {}", folder.display()))?;
    let names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    match &names[..] {
        [release] => Ok(release.clone()),
        [] => bail!("there are no modules in {}", folder.display()),
        _ => bail!(
            "{} has modules of {}: one kernel's are wanted",
            folder.display(),
            names.join(" and ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_modules_has_one_release() {
        let folder = tempfile::tempdir().unwrap();
        let error = format!("{:#}", release(folder.path()).unwrap_err());
        assert!(error.starts_with("cannot read"), "{error}");
        let modules = folder.path().join("lib/modules");
        std::fs::create_dir_all(modules.join("7.3.4")).unwrap();
        assert_eq!(release(folder.path()).unwrap(), "7.3.4");
        std::fs::create_dir(modules.join("7.3.5")).unwrap();
        assert!(release(folder.path()).is_err());
    }
}
