//! The caller's folder in the guests: the same path, over 9p.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Top-level folders that a guest has of its own.
const OWN: [&str; 15] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/host", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/tmp", "/usr",
    "/var",
];

/// Mount tag of the folder.
const TAG: &str = "caller";

/// A folder of the caller.
#[derive(Debug, PartialEq, Eq)]
pub struct Share {
    folder: PathBuf,
    directory: PathBuf,
}

impl Share {
    /// Shares `folder`. Commands run in `current` if the folder contains it, else in the folder.
    pub fn new(folder: &Path, current: &Path) -> Result<Self> {
        let folder = folder
            .canonicalize()
            .with_context(|| format!("cannot share {}", folder.display()))?;
        if !folder.is_dir() {
            bail!("cannot share {}: it is no folder", folder.display());
        }
        if folder.to_str().is_none() {
            bail!("cannot share {}: its name is not UTF-8", folder.display());
        }
        let text = folder.to_string_lossy();
        if OWN.contains(&&*text) || ["/dev/", "/proc/", "/sys/"].iter().any(|own| text.starts_with(own)) {
            bail!("cannot share {text}: guests have a {text} of their own; name another folder with --share");
        }
        let directory = if current.starts_with(&folder) {
            current.to_owned()
        } else {
            folder.clone()
        };
        Ok(Self { folder, directory })
    }

    /// Folder of the host, and of the guests.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Working directory of commands.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the arguments of QEMU. Files that a guest creates are the caller's, as QEMU has no other rights.
    pub fn qemu_args(&self) -> [String; 4] {
        let path = self.folder.display().to_string().replace(',', ",,");
        [
            "-fsdev".to_owned(),
            format!("local,id={TAG},security_model=none,multidevs=remap,path={path}"),
            "-device".to_owned(),
            format!("virtio-9p-pci,fsdev={TAG},mount_tag={TAG}"),
        ]
    }

    /// Returns the script that mounts the folder. `cache=mmap`: shared mappings work, and other guests and the caller
    /// see what is written.
    pub fn mount_script(&self) -> String {
        let folder = quote(&self.folder.display().to_string());
        format!(
            "mkdir -p {folder} && \
             mount -t 9p -o trans=virtio,version=9p2000.L,cache=mmap,msize=512000 {TAG} {folder}"
        )
    }
}

/// Quotes a word for a shell.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_run_where_the_caller_is_if_that_is_shared() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let inner = root.join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        assert_eq!(Share::new(&root, &inner).unwrap().directory(), inner);
        assert_eq!(Share::new(&inner, &root).unwrap().directory(), inner);
    }

    #[test]
    fn what_a_guest_needs_itself_is_refused_in_one_line() {
        for folder in ["/", "/usr", "/proc/self", "/sys/kernel"] {
            let error = Share::new(Path::new(folder), Path::new("/")).unwrap_err().to_string();
            assert!(error.contains("--share") && !error.contains('\n'), "{error}");
        }
        let error = Share::new(Path::new("/no/such"), Path::new("/")).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "cannot share /no/such: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn odd_names_are_escaped_for_qemu_and_for_the_shell() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("it's, a b");
        std::fs::create_dir(&odd).unwrap();
        let share = Share::new(&odd, Path::new("/")).unwrap();
        assert!(share.qemu_args()[1].ends_with("/it's,, a b"));
        assert!(share.mount_script().ends_with(r"/it'\''s, a b'"));
    }
}
