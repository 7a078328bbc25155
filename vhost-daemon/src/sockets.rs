//! The sockets a daemon listens on, and their removal.

use std::fs;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Where one guest's VMM connects.
#[derive(Debug)]
pub struct GuestSocket {
    /// What the guest is called in logs and counters: the file name of its socket, without the extension.
    pub name: String,
    /// The socket.
    pub listener: UnixListener,
}

/// Sockets made by this process; removed when dropped.
#[derive(Debug, Default)]
pub struct OwnSockets(Vec<PathBuf>);

impl OwnSockets {
    /// Listens on a new socket. Takes the place of one that a dead process left behind, and of nothing else.
    pub fn listen(&mut self, path: &Path) -> Result<UnixListener> {
        if let Ok(metadata) = fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                bail!("{} exists and is not a socket.", path.display());
            }
            if UnixStream::connect(path).is_ok() {
                bail!("Another process listens on {}.", path.display());
            }
            fs::remove_file(path).with_context(|| format!("The stale socket {} cannot be removed", path.display()))?;
        }
        let listener =
            UnixListener::bind(path).with_context(|| format!("The socket {} cannot be made", path.display()))?;
        self.0.push(path.to_owned());
        Ok(listener)
    }

    /// As [`OwnSockets::listen`], for a guest that the path gives its name.
    pub fn listen_for_guest(&mut self, path: &Path) -> Result<GuestSocket> {
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
        Ok(GuestSocket {
            name: name.into_owned(),
            listener: self.listen(path)?,
        })
    }
}

impl Drop for OwnSockets {
    fn drop(&mut self) {
        for path in &self.0 {
            // Somebody else may have removed it.
            let _ = fs::remove_file(path);
        }
    }
}

/// Takes over a listening socket inherited as this descriptor.
pub fn inherited(fd: RawFd) -> Result<GuestSocket> {
    if fd <= 2 || !Path::new(&format!("/proc/self/fd/{fd}")).exists() {
        bail!("--fd {fd} is not an open descriptor.");
    }
    // SAFETY: the descriptor is open, and whoever started this process handed it over for this use alone.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    let listening = rustix::net::sockopt::socket_acceptconn(&owned).unwrap_or(false);
    if !listening {
        bail!("--fd {fd} is not a listening socket.");
    }
    Ok(GuestSocket {
        name: format!("fd{fd}"),
        listener: UnixListener::from(owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_sockets_are_replaced_and_live_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let mut own = OwnSockets::default();
        let listener = own.listen(&path).unwrap();
        assert!(OwnSockets::default().listen(&path).is_err());
        drop(listener);
        drop(own);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_in_the_way_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::write(&path, "x").unwrap();
        assert!(OwnSockets::default().listen(&path).is_err());
        assert!(path.exists());
    }

    #[test]
    fn a_guest_is_named_after_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let socket = OwnSockets::default()
            .listen_for_guest(&dir.path().join("left.sock"))
            .unwrap();
        assert_eq!(socket.name, "left");
    }

    #[test]
    fn descriptors_that_do_not_listen_are_refused() {
        assert!(inherited(0).is_err());
        assert!(inherited(9999).is_err());
    }
}
