//! Guest images built by `images/build`.

use std::path::{Path, PathBuf};
use std::{env, fs};

use serde::Deserialize;

use crate::error::{Doing, Error, Result};
use crate::locate::{cache_dir, existing};

/// QEMU accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// Software emulation; works everywhere.
    Tcg,
    /// KVM, where a trial boot succeeded.
    Kvm,
}

/// QEMU with a matching kernel and root file system.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Image {
    /// The QEMU binary.
    pub qemu: PathBuf,
    /// Version of QEMU.
    pub qemu_version: String,
    /// The kernel's bzImage.
    pub kernel: PathBuf,
    /// Kernel release, as printed by `uname -r`.
    pub kernel_release: String,
    /// Build tree of the kernel, for building modules; `None` for a distribution kernel.
    #[serde(default)]
    pub kernel_build: Option<PathBuf>,
    /// Initramfs, if the kernel cannot mount the root file system itself.
    #[serde(default)]
    pub initrd: Option<PathBuf>,
    /// File system image with the kernel modules.
    pub modules: PathBuf,
    /// Root file system image.
    pub rootfs: PathBuf,
    /// Accelerator that works on this host.
    pub accel: Accel,
}

impl Image {
    /// Loads the image with the normal kernel: `.cache/image.json` or the file named by GUEST_IMAGE.
    pub fn load() -> Result<Self> {
        Self::from_json(&locate("GUEST_IMAGE", "image.json"))
    }

    /// Loads the image with the debug kernel (KASAN, lockdep): `.cache/image-debug.json` or the file named by
    /// GUEST_IMAGE_DEBUG.
    pub fn load_debug() -> Result<Self> {
        Self::from_json(&locate("GUEST_IMAGE_DEBUG", "image-debug.json"))
    }

    /// Loads the image with an unmodified Debian kernel: `.cache/image-stock-SERIES.json`. `images/build stock` defines
    /// the series.
    pub fn load_stock(series: &str) -> Result<Self> {
        let path = cache_dir().join(format!("image-stock-{series}.json"));
        Self::described(
            &path,
            "build it with `images/build stock`, or `images/build nic` for the newest",
        )
    }

    /// Loads an image description; its paths are relative to its directory.
    pub fn from_json(path: &Path) -> Result<Self> {
        Self::described(path, "build it with `images/build`")
    }

    fn described(path: &Path, hint: &str) -> Result<Self> {
        let path = existing("the guest image's description", path.to_owned(), hint)?;
        let text = fs::read(&path).doing(|| format!("read {}", path.display()))?;
        let mut image: Self = serde_json::from_slice(&text).map_err(|error| Error::Malformed {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let base = path.parent().unwrap_or(Path::new("."));
        image.kernel_build = image.kernel_build.map(|build| base.join(build));
        let files = [
            ("QEMU", &mut image.qemu),
            ("the guest kernel", &mut image.kernel),
            ("the image with the kernel's modules", &mut image.modules),
            ("the root file system", &mut image.rootfs),
        ];
        let initrd = image.initrd.as_mut().map(|initrd| ("the initial file system", initrd));
        for (what, file) in files.into_iter().chain(initrd) {
            *file = existing(what, base.join(&*file), hint)?;
        }
        Ok(image)
    }
}

fn locate(variable: &str, name: &str) -> PathBuf {
    env::var_os(variable).map_or_else(|| cache_dir().join(name), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_description() {
        let dir = env::temp_dir().join(format!("guest-tests-image-{}", std::process::id()));
        fs::create_dir_all(dir.join("k")).unwrap();
        for file in ["qemu", "k/bzImage", "modules.img"] {
            fs::write(dir.join(file), "").unwrap();
        }
        let json = dir.join("image.json");
        fs::write(
            &json,
            r#"{"qemu": "qemu", "qemu_version": "11.1.3", "kernel": "k/bzImage", "kernel_release": "7.3.4-lab",
                "kernel_build": "k", "modules": "modules.img", "rootfs": "rootfs.img", "accel": "tcg",
                "manifest": {"x": 1}}"#,
        )
        .unwrap();
        let error = Image::from_json(&json).unwrap_err().to_string();
        assert!(
            error.contains("rootfs.img") && error.contains("images/build"),
            "{error}"
        );
        fs::write(dir.join("rootfs.img"), "").unwrap();
        let image = Image::from_json(&json).unwrap();
        assert_eq!(image.kernel, dir.join("k/bzImage"));
        assert_eq!(image.accel, Accel::Tcg);
        assert_eq!((image.kernel_build, image.initrd), (Some(dir.join("k")), None));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_missing_description_says_how_to_build_it() {
        let error = Image::from_json(Path::new("/no/such/image.json")).unwrap_err();
        assert!(error.to_string().contains("images/build"));
    }
}
