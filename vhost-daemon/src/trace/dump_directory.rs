//! A directory of numbered dumps, of which the latest are kept.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};

/// Permissions of a dump: it has addresses of the guests.
const OWN: Mode = Mode::RUSR.union(Mode::WUSR);
const EXTENSION: &str = ".pftrace";
/// Follows the name of a dump that is being written.
const UNFINISHED: &str = ".part";

/// A directory with the dumps of a daemon, `PREFIX-NNNNNN.pftrace`. Numbers grow, across daemons as well. Other files
/// are left alone, and no link is followed but the path of the directory itself.
#[derive(Debug)]
pub struct DumpDirectory {
    path: PathBuf,
    directory: OwnedFd,
    prefix: String,
    limit: usize,
}

/// A dump that is being written.
#[derive(Debug)]
pub struct UnfinishedDump {
    /// The file.
    pub file: File,
    name: String,
}

impl DumpDirectory {
    /// Opens a directory for at most `limit` dumps of a prefix.
    pub fn open(path: &Path, prefix: &str, limit: usize) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            path: path.to_owned(),
            directory: openat(CWD, path, flags, Mode::empty())?,
            prefix: format!("{prefix}-"),
            limit,
        })
    }

    /// Creates the next dump.
    pub fn create(&self) -> io::Result<UnfinishedDump> {
        let last = self.names(&format!("{EXTENSION}{UNFINISHED}"))?.pop();
        let last = last.max(self.names(EXTENSION)?.pop()).map_or(0, |(number, _)| number);
        let name = format!("{}{:06}{EXTENSION}", self.prefix, last + 1);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, format!("{name}{UNFINISHED}"), flags, OWN)?;
        Ok(UnfinishedDump {
            file: file.into(),
            name,
        })
    }

    /// Gives a dump its name, and removes the oldest beyond the limit. Returns the path.
    pub fn complete(&self, dump: UnfinishedDump) -> io::Result<PathBuf> {
        let unfinished = format!("{}{UNFINISHED}", dump.name);
        let directory = &self.directory;
        renameat_with(directory, unfinished, directory, &dump.name, RenameFlags::NOREPLACE)?;
        let names = self.names(EXTENSION)?;
        let surplus = names.len().saturating_sub(self.limit);
        for (_, name) in &names[..surplus] {
            unlinkat(directory, name, AtFlags::empty())?;
        }
        Ok(self.path.join(dump.name))
    }

    /// Removes a dump that could not be written.
    pub fn discard(&self, dump: &UnfinishedDump) {
        let _ = unlinkat(&self.directory, format!("{}{UNFINISHED}", dump.name), AtFlags::empty());
    }

    /// Returns number and name of the files with an extension, in the order of their numbers.
    fn names(&self, extension: &str) -> io::Result<Vec<(u64, String)>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            if let Some(number) = self.number(OsStr::to_str(entry_name(&entry)), extension) {
                names.push(number);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn number(&self, name: Option<&str>, extension: &str) -> Option<(u64, String)> {
        let name = name?;
        let digits = name.strip_prefix(&self.prefix)?.strip_suffix(extension)?;
        let is_number = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse().ok().filter(|number| is_number && *number < u64::MAX)?;
        Some((number, name.to_owned()))
    }
}

fn entry_name(entry: &rustix::fs::DirEntry) -> &OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(entry.file_name().to_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn list(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_latest_dumps_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("nic-000006.pftrace"), "of an earlier daemon").unwrap();
        for other in [
            "nic-1.pftrace",
            "nic-00000x.pftrace",
            "ism-000001.pftrace",
            "nic-000001.txt",
        ] {
            fs::write(directory.path().join(other), "another file").unwrap();
        }
        let others = list(directory.path()).len() - 1;
        let dumps = DumpDirectory::open(directory.path(), "nic", 2).unwrap();
        for number in 7..10 {
            let dump = dumps.create().unwrap();
            let path = dumps.complete(dump).unwrap();
            assert_eq!(path, directory.path().join(format!("nic-{number:06}.pftrace")));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        }
        let mut names = list(directory.path());
        names.retain(|name| name.starts_with("nic-00000") && !name.contains('x') && name.ends_with("pftrace"));
        assert_eq!(names, ["nic-000008.pftrace", "nic-000009.pftrace"]);
        assert_eq!(list(directory.path()).len(), others + 2);
    }

    #[test]
    fn no_link_is_followed_and_no_file_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let other = directory.path().join("other");
        fs::write(&other, "precious").unwrap();
        let dumps = DumpDirectory::open(directory.path(), "nic", 2).unwrap();
        // A link in the place of the file is skipped, as its number is taken.
        symlink(&other, directory.path().join("nic-000001.pftrace.part")).unwrap();
        let dump = dumps.create().unwrap();
        assert_eq!(dump.name, "nic-000002.pftrace");
        symlink(&other, directory.path().join("nic-000002.pftrace")).unwrap();
        assert_eq!(dumps.complete(dump).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
    }
}
