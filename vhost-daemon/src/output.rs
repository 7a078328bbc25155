//! Output of a capture or a record: a file, a FIFO or standard output, opened so that no other file is hit.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fchmod, fcntl_setfl, fstat, ftruncate, open};
use rustix::io::Errno;
use rustix::process::geteuid;
use thiserror::Error;

/// Permissions of the file: it has the guests' data and keys.
const OWN: Mode = Mode::RUSR.union(Mode::WUSR);

/// An output that cannot be used.
#[derive(Debug, Error)]
pub enum OutputError {
    /// The path names a symbolic link, which is not followed.
    #[error("it is a symbolic link")]
    Link,
    /// The path names a file of another type.
    #[error("it exists and is neither a regular file nor a FIFO")]
    Type,
    /// The file is another user's.
    #[error("it belongs to another user")]
    Foreign,
    /// The file has several names, one of which may be another program's.
    #[error("it exists and has other hard links")]
    Shared,
    /// No process has opened the FIFO for reading; a socket is the same to the kernel.
    #[error("it is a FIFO that no process reads from, or a socket")]
    NoReader,
    /// Standard output, or a FIFO, where a regular file is needed.
    #[error("it is not a regular file")]
    Irregular,
    /// Standard output is a terminal.
    #[error("standard output is a terminal")]
    Terminal,
    /// Another error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for OutputError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::LOOP => Self::Link,
            Errno::NXIO => Self::NoReader,
            error => Self::Io(error.into()),
        }
    }
}

/// An open output.
#[derive(Debug)]
pub struct Output {
    /// The file, in blocking mode.
    pub file: File,
    /// Whether it is a file with a length, not a pipe.
    pub is_regular: bool,
}

impl Output {
    /// Opens an output: `-` is standard output, a FIFO must have a reader, and a regular file of this user is
    /// replaced.
    pub fn open(path: &Path) -> Result<Self, OutputError> {
        if path == Path::new("-") {
            return Self::stdout();
        }
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match open(path, flags | OFlags::CREATE | OFlags::EXCL, OWN) {
            Ok(file) => Ok(Self {
                file: file.into(),
                is_regular: true,
            }),
            // A FIFO without a reader must not block.
            Err(Errno::EXIST) => Self::existing(open(path, flags | OFlags::NONBLOCK, Mode::empty())?),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a regular file in the same way.
    pub fn open_file(path: &Path) -> Result<File, OutputError> {
        let output = Self::open(path)?;
        match output.is_regular {
            true => Ok(output.file),
            false => Err(OutputError::Irregular),
        }
    }

    /// Takes an existing file. It is checked once it is open, and not replaced before.
    fn existing(file: OwnedFd) -> Result<Self, OutputError> {
        let status = fstat(&file)?;
        let is_regular = match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => true,
            FileType::Fifo => false,
            _ => return Err(OutputError::Type),
        };
        if status.st_uid != geteuid().as_raw() {
            return Err(OutputError::Foreign);
        }
        if is_regular {
            if status.st_nlink != 1 {
                return Err(OutputError::Shared);
            }
            fchmod(&file, OWN)?;
            ftruncate(&file, 0)?;
        }
        fcntl_setfl(&file, OFlags::empty())?;
        Ok(Self {
            file: file.into(),
            is_regular,
        })
    }

    fn stdout() -> Result<Self, OutputError> {
        let stdout = io::stdout();
        if stdout.is_terminal() {
            return Err(OutputError::Terminal);
        }
        let file: File = stdout.as_fd().try_clone_to_owned()?.into();
        let is_regular = file.metadata()?.is_file();
        Ok(Self { file, is_regular })
    }
}

#[cfg(test)]
mod tests;
