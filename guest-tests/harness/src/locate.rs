//! Locations of build results.

use std::env;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Returns the root of the source tree.
pub fn workspace_dir() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_owned()
}

/// Returns the directory with the results of the image and driver builds: GUEST_CACHE, or `.cache` in the source tree.
pub fn cache_dir() -> PathBuf {
    env::var_os("GUEST_CACHE").map_or_else(|| workspace_dir().join(".cache"), PathBuf::from)
}

/// Returns the directory with the binaries of the running executable's profile, such as `target/debug`.
fn profile_dir() -> Option<PathBuf> {
    let exe = env::current_exe().ok()?;
    let dir = exe.parent()?;
    // Tests and examples are one level deeper.
    let nested = ["deps", "examples"].iter().any(|name| dir.ends_with(name));
    Some(if nested { dir.parent()? } else { dir }.to_owned())
}

/// Returns Cargo's target directory, the one that contains the running executable.
pub fn target_dir() -> PathBuf {
    let built_in = profile_dir().and_then(|profile| {
        profile
            .ancestors()
            .skip(1)
            .find(|dir| dir.join("CACHEDIR.TAG").exists())
            .map(Path::to_owned)
    });
    built_in
        .or_else(|| env::var_os("CARGO_TARGET_DIR").map(PathBuf::from))
        .unwrap_or_else(|| workspace_dir().join("target"))
}

/// Finds a binary of this workspace: named by the environment variable `variable`, else of the running executable's
/// profile, else of another profile.
pub(crate) fn binary(name: &str, variable: Option<&str>) -> Result<PathBuf> {
    let hint = || {
        format!(
            "build it with `cargo build --workspace`, or run `scripts/test`, which does{}",
            variable
                .map(|variable| format!("; or set {variable}"))
                .unwrap_or_default()
        )
    };
    if let Some(path) = variable.and_then(env::var_os).map(PathBuf::from) {
        return existing(name, path, &hint());
    }
    let target = target_dir();
    let candidates: Vec<PathBuf> = profile_dir()
        .into_iter()
        .chain([target.join("release"), target.join("debug")])
        .map(|dir| dir.join(name))
        .collect();
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => existing(name, candidates[0].clone(), &hint()),
    }
}

/// Finds a program of this workspace: of the running executable's profile, else of another profile.
pub fn program(name: &str) -> Result<PathBuf> {
    binary(name, None)
}

/// Finds the guest driver built for a kernel release.
pub(crate) fn driver(kernel_release: &str) -> Result<PathBuf> {
    let path = env::var_os("VIRTIO_ISM_KO").map_or_else(
        || cache_dir().join("driver").join(kernel_release).join("virtio_ism.ko"),
        PathBuf::from,
    );
    let hint = "`scripts/test` and `scripts/demo` build it; or set VIRTIO_ISM_KO";
    existing("the guest driver virtio_ism.ko", path, hint)
}

/// Returns `path` if it is a file, else an error with `hint`.
pub(crate) fn existing(what: &str, path: PathBuf, hint: &str) -> Result<PathBuf> {
    if path.is_file() {
        Ok(path)
    } else {
        Err(Error::Missing {
            what: what.to_owned(),
            path,
            hint: hint.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_directory_holds_this_test() {
        let exe = env::current_exe().unwrap();
        assert!(exe.starts_with(target_dir()), "{exe:?}");
        assert!(target_dir().join("CACHEDIR.TAG").exists());
    }

    #[test]
    fn the_workspace_directory_holds_the_lock_file() {
        assert!(workspace_dir().join("Cargo.lock").exists());
    }

    #[test]
    fn a_missing_binary_is_an_error_that_says_what_to_do() {
        let error = binary("no-such-binary", None).unwrap_err().to_string();
        assert!(error.contains("cargo build"), "{error}");
    }
}
