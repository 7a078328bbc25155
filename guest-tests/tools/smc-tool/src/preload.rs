//! Running an unmodified program with SMC instead of TCP.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// File name of the library, which lies next to this program.
pub const LIBRARY: &str = "libsmc_preload.so";

/// The program cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum PreloadError {
    /// Where this program lies is unknown.
    #[error("cannot find the directory of this program")]
    Directory(#[source] io::Error),
    /// The library is missing.
    #[error("{} is missing", .0.display())]
    Missing(PathBuf),
    /// The program could not be started.
    #[error("cannot run {}", .0.display())]
    Run(PathBuf, #[source] io::Error),
}

/// Replaces this process by the program. Comes back only with an error.
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
