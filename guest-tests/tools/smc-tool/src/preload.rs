//! Running an unmodified program over SMC instead of TCP.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// File name of the library, in the directory of this program.
pub const LIBRARY: &str = "libsmc_preload.so";

/// The program could not be run.
#[derive(Debug, thiserror::Error)]
pub enum PreloadError {
    /// The directory of this program is unknown.
    #[error("cannot find the directory of this program")]
    Directory(#[source] io::Error),
    /// The library does not exist.
    #[error("{} is missing", .0.display())]
    Missing(PathBuf),
    /// The program could not be started.
    #[error("cannot run {}", .0.display())]
    Run(PathBuf, #[source] io::Error),
}

/// Replaces this process with the program; returns only on error.
pub fn run(program: &OsString, arguments: &[OsString]) -> PreloadError {
    let library = match std::env::current_exe() {
        Ok(path) => path.with_file_name(LIBRARY),
        Err(error) => return PreloadError::Directory(error),
    };
    if !library.is_file() {
        return PreloadError::Missing(library);
    }
    let mut preload = library.into_os_string();
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    let error = Command::new(program).args(arguments).env("LD_PRELOAD", preload).exec();
    PreloadError::Run(program.into(), error)
}
