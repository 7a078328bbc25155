use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[test]
fn a_new_file_is_only_its_owners() {
    let directory = Directory::new();
    let output = Output::open(&directory.path("a")).unwrap();
    assert!(output.is_regular);
    assert_eq!(output.file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_own_file_is_replaced() {
    let directory = Directory::new();
    let path = directory.path("a");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut output = Output::open(&path).unwrap();
    assert!(output.is_regular);
    output.file.write_all(b"n").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn no_link_is_followed_and_no_other_file_is_touched() {
    let directory = Directory::new();
    let victim = directory.path("victim");
    fs::write(&victim, "precious").unwrap();
    let link = directory.path("link");
    symlink(&victim, &link).unwrap();
    assert!(matches!(Output::open(&link), Err(OutputError::Link)));
    let dangling = directory.path("dangling");
    symlink(directory.path("nothing"), &dangling).unwrap();
    assert!(matches!(Output::open(&dangling), Err(OutputError::Link)));
    assert!(!directory.path("nothing").exists());
    let hard = directory.path("hard");
    fs::hard_link(&victim, &hard).unwrap();
    assert!(matches!(Output::open(&hard), Err(OutputError::Shared)));
    assert!(matches!(Output::open(directory.0.path()), Err(OutputError::Io(_))));
    assert!(matches!(Output::open(Path::new("/dev/null")), Err(OutputError::Type)));
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert_eq!(fs::metadata(&victim).unwrap().nlink(), 2);
}

#[test]
fn a_fifo_needs_a_reader() {
    let directory = Directory::new();
    let path = directory.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, OWN, 0).unwrap();
    assert!(matches!(Output::open(&path), Err(OutputError::NoReader)));
    let nonblock = OFlags::NONBLOCK.bits() as i32;
    let mut reader = fs::OpenOptions::new()
        .read(true)
        .custom_flags(nonblock)
        .open(&path)
        .unwrap();
    let mut output = Output::open(&path).unwrap();
    assert!(!output.is_regular);
    let flags = rustix::fs::fcntl_getfl(&output.file).unwrap();
    assert!(!flags.contains(OFlags::NONBLOCK));
    output.file.write_all(b"block").unwrap();
    let mut bytes = [0; 5];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"block");
}
