//! Build of the caller's kernel modules for the guests' kernel.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use guest_harness::{Image, workspace_dir};

/// Builds the module of a folder against the image's kernel; returns the files that guests see as `/host/NAME.ko`.
pub fn build(folder: &Path, image: &Image) -> Result<Vec<PathBuf>> {
    let folder = folder
        .canonicalize()
        .with_context(|| format!("cannot build the module in {}", folder.display()))?;
    let make = match &image.kernel_build {
        Some(tree) => Command::new("make")
            .arg("-C")
            .arg(tree)
            .arg(format!("M={}", folder.display()))
            .args(["ARCH=x86_64", "modules"])
            .output(),
        None => Command::new(workspace_dir().join("images/build-module"))
            .arg(&image.kernel_release)
            .arg(&folder)
            .output(),
    };
    let make = make.context("cannot run make")?;
    ensure!(
        make.status.success(),
        "the module in {} does not build for {}:\n{}{}",
        folder.display(),
        image.kernel_release,
        String::from_utf8_lossy(&make.stdout),
        String::from_utf8_lossy(&make.stderr).trim_end()
    );
    let modules = modules(&folder)?;
    ensure!(!modules.is_empty(), "make built no module in {}", folder.display());
    Ok(modules)
}

fn modules(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = folder
        .read_dir()
        .with_context(|| format!("cannot read {}", folder.display()))?;
    let mut modules: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ko"))
        .collect();
    modules.sort();
    Ok(modules)
}
