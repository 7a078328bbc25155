//! The sockets a daemon listens on, and their removal.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use thiserror::Error;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A socket that the daemon cannot listen on.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The path names a file of another type.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// A live process listens on the path.
    #[error("another process listens on {}", .0.display())]
    InUse(PathBuf),
    /// The socket of a dead process cannot be removed.
    #[error("cannot remove the stale socket {}", .0.display())]
    Stale(PathBuf, #[source] io::Error),
    /// The socket cannot be created.
    #[error("cannot create the socket {}", .0.display())]
    Create(PathBuf, #[source] io::Error),
    /// The inherited descriptor is not open, or is a standard stream.
    #[error("--fd {0} is not an open descriptor")]
    NotOpen(RawFd),
    /// The inherited descriptor is not a listening socket.
    #[error("--fd {0} is not a listening socket")]
    NotListening(RawFd),
    /// The environment of socket activation is malformed.
    #[error("cannot take the sockets of the service manager")]
    Activation(#[source] io::Error),
    /// There is no socket activation.
    #[error("the service manager has passed no socket (LISTEN_FDS)")]
    NotActivated,
    /// A socket of the service manager is of a kind that no VMM connects to.
    #[error("socket {0} of the service manager is not a listening stream socket with a path")]
    Unsuitable(RawFd),
    /// A socket of the service manager is named as an inherited one, too.
    #[error("descriptor {0} is a socket of the service manager already (LISTEN_FDS)")]
    Twice(RawFd),
    /// A socket of the service manager for this user alone admits others.
    #[error("socket {} of the service manager admits others than its user (SocketMode=0600 does not)", .0.display())]
    NotPrivate(PathBuf),
}

/// The socket that one guest's VMM connects to.
#[derive(Debug)]
pub struct GuestSocket {
    /// Name of the guest in logs and counters: the file name of its socket, without the extension.
    pub name: String,
    /// The listening socket.
    pub listener: UnixListener,
}

/// Permissions of a socket: those who may connect.
#[derive(Clone, Copy, Debug)]
pub struct SocketAccess {
    /// Permissions, as of a file.
    pub mode: u32,
    /// Group, if it is not that of the process.
    pub group: Option<u32>,
}

impl Default for SocketAccess {
    /// The daemon's user alone.
    fn default() -> Self {
        Self {
            mode: 0o600,
            group: None,
        }
    }
}

/// Sockets that this process listens on: those that it creates, which are removed when this is dropped, and those that
/// the service manager has created.
#[derive(Debug, Default)]
pub struct OwnSockets {
    access: SocketAccess,
    sockets: Vec<OwnSocket>,
    passed: Vec<(PathBuf, UnixListener)>,
}

#[derive(Debug)]
struct OwnSocket {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl OwnSockets {
    /// Creates no socket yet.
    pub fn new(access: SocketAccess) -> Self {
        Self {
            access,
            sockets: Vec::new(),
            passed: Vec::new(),
        }
    }

    /// Takes the sockets that the service manager has passed (sd_listen_fds(3)), and returns their paths in its order.
    /// To listen on one of these paths takes the socket that is there.
    pub fn take_passed(&mut self) -> Result<Vec<PathBuf>, SocketError> {
        let descriptors = sd_notify::listen_fds().map_err(SocketError::Activation)?;
        self.passed = descriptors.map(passed).collect::<Result<_, _>>()?;
        match self.passed.is_empty() {
            true => Err(SocketError::NotActivated),
            false => Ok(self.passed.iter().map(|(path, _)| path.clone()).collect()),
        }
    }

    /// Refuses descriptors that are sockets of the service manager, to be inherited once more.
    pub fn refuse_passed(&self, inherited: &[RawFd]) -> Result<(), SocketError> {
        let is_passed = |fd: &&RawFd| self.passed.iter().any(|(_, passed)| passed.as_raw_fd() == **fd);
        match inherited.iter().find(is_passed) {
            Some(fd) => Err(SocketError::Twice(*fd)),
            None => Ok(()),
        }
    }

    /// Returns the paths of the sockets that this process has created.
    pub fn created(&self) -> impl Iterator<Item = &Path> {
        self.sockets.iter().map(|socket| socket.path.as_path())
    }

    /// Listens on a new socket. Replaces the socket of a dead process, and no other file.
    pub fn listen(&mut self, path: &Path) -> Result<UnixListener, SocketError> {
        self.bind(path, self.access)
    }

    /// Does the same as [`OwnSockets::listen`], for a socket that only this user can connect to.
    pub fn listen_privately(&mut self, path: &Path) -> Result<UnixListener, SocketError> {
        let is_passed = self.passed.iter().any(|(passed, _)| passed == path);
        let of_others = |metadata: fs::Metadata| metadata.permissions().mode() & 0o077 != 0;
        if is_passed && fs::symlink_metadata(path).is_ok_and(of_others) {
            return Err(SocketError::NotPrivate(path.to_owned()));
        }
        self.bind(path, SocketAccess::default())
    }

    /// Binds a new datagram socket. Replaces the socket of a dead process, and no other file.
    pub fn bind_datagram(&mut self, path: &Path) -> Result<UnixDatagram, SocketError> {
        let socket = self.create(path, SocketType::DGRAM, self.access)?;
        Ok(UnixDatagram::from(socket))
    }

    fn bind(&mut self, path: &Path, access: SocketAccess) -> Result<UnixListener, SocketError> {
        if let Some(index) = self.passed.iter().position(|(passed, _)| passed == path) {
            return Ok(self.passed.swap_remove(index).1);
        }
        let socket = self.create(path, SocketType::STREAM, access)?;
        // Nobody could connect before it listens.
        listen(&socket, BACKLOG).map_err(|error| SocketError::Create(path.to_owned(), error.into()))?;
        Ok(UnixListener::from(socket))
    }

    fn create(&mut self, path: &Path, kind: SocketType, access: SocketAccess) -> Result<OwnedFd, SocketError> {
        if let Ok(metadata) = fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            if is_in_use(path, kind) {
                return Err(SocketError::InUse(path.to_owned()));
            }
            fs::remove_file(path).map_err(|error| SocketError::Stale(path.to_owned(), error))?;
        }
        let failed = |error| SocketError::Create(path.to_owned(), error);
        let socket = bind_at(path, kind, access).map_err(failed)?;
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        self.sockets.push(OwnSocket {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
        });
        Ok(socket)
    }

    /// Does the same as [`OwnSockets::listen`], for a guest named after the path.
    pub fn listen_for_guest(&mut self, path: &Path) -> Result<GuestSocket, SocketError> {
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
        Ok(GuestSocket {
            name: name.into_owned(),
            listener: self.listen(path)?,
        })
    }
}

impl Drop for OwnSockets {
    fn drop(&mut self) {
        for socket in &self.sockets {
            // Not the socket of a successor, if this one was removed from outside.
            let is_own = fs::symlink_metadata(&socket.path)
                .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == (socket.device, socket.inode));
            if is_own {
                let _ = fs::remove_file(&socket.path);
            }
        }
    }
}

/// Binds a new socket.
fn bind_at(path: &Path, kind: SocketType, access: SocketAccess) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    if access.group.is_some() {
        lchown(path, None, access.group)?;
    }
    fs::set_permissions(path, Permissions::from_mode(access.mode))?;
    Ok(socket)
}

/// Returns whether a process has a socket open, also one that accepts nobody at the moment.
fn is_in_use(path: &Path, kind: SocketType) -> bool {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connected = socket_with(AddressFamily::UNIX, kind, flags, None)
        .and_then(|socket| connect(&socket, &SocketAddrUnix::new(path)?));
    !matches!(connected, Err(Errno::CONNREFUSED | Errno::NOENT))
}

/// Takes ownership of a listening socket inherited as this descriptor.
pub fn inherited(fd: RawFd) -> Result<GuestSocket, SocketError> {
    Ok(GuestSocket {
        name: format!("fd{fd}"),
        listener: inherited_listener(fd)?,
    })
}

/// Takes ownership of a socket of the service manager; returns its path as well.
fn passed(fd: RawFd) -> Result<(PathBuf, UnixListener), SocketError> {
    let listener = inherited_listener(fd).map_err(|_| SocketError::Unsuitable(fd))?;
    let address = listener.local_addr().ok();
    let path = address.as_ref().and_then(SocketAddr::as_pathname);
    let is_stream = rustix::net::sockopt::socket_type(&listener) == Ok(SocketType::STREAM);
    let path = path.filter(|_| is_stream).ok_or(SocketError::Unsuitable(fd))?;
    Ok((path.to_owned(), listener))
}

#[expect(unsafe_code, reason = "the descriptor arrives as a number")]
fn inherited_listener(fd: RawFd) -> Result<UnixListener, SocketError> {
    if fd <= 2 || !Path::new(&format!("/proc/self/fd/{fd}")).exists() {
        return Err(SocketError::NotOpen(fd));
    }
    // SAFETY: the descriptor is open, and the process that started this one handed it over for this use alone.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    let listening = rustix::net::sockopt::socket_acceptconn(&owned).unwrap_or(false);
    if !listening {
        return Err(SocketError::NotListening(fd));
    }
    Ok(UnixListener::from(owned))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_socket_has_its_permissions_and_its_group_whatever_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut own = OwnSockets::default();
        own.listen(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(own);
        let group = fs::metadata(dir.path()).unwrap().gid();
        let mut own = OwnSockets::new(SocketAccess {
            mode: 0o666,
            group: Some(group),
        });
        own.listen(&path).unwrap();
        assert_eq!((mode(&path), fs::metadata(&path).unwrap().gid()), (0o666, group));
    }

    #[test]
    fn the_socket_of_a_successor_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut first = OwnSockets::default();
        let old = first.listen(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let mut second = OwnSockets::default();
        let _new = second.listen(&path).unwrap();
        drop((old, first));
        assert!(path.exists());
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_process_that_accepts_nobody_is_found_without_waiting_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&socket, 0).unwrap();
        // The backlog is full.
        let _waiting = UnixStream::connect(&path).unwrap();
        let refused = OwnSockets::default().listen(&path);
        assert!(matches!(refused, Err(SocketError::InUse(_))));
    }

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
    fn a_private_socket_is_the_users_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut own = OwnSockets::default();
        let listener = own.listen_privately(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        drop(own);
        assert!(!path.exists());
    }

    #[test]
    fn a_passed_socket_that_others_may_connect_to_is_not_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut own = OwnSockets::default();
        for (mode, admits) in [(0o660, true), (0o606, true), (0o600, false)] {
            let _ = fs::remove_file(&path);
            let listener = UnixListener::bind(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            own.passed = vec![(path.clone(), listener)];
            let refused = own.listen_privately(&path).map(drop);
            assert_eq!(matches!(refused, Err(SocketError::NotPrivate(_))), admits, "{mode:o}");
        }
    }

    #[test]
    fn a_passed_socket_is_not_inherited_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let mut own = OwnSockets::default();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let fd = listener.as_raw_fd();
        own.passed = vec![(dir.path().join("s"), listener)];
        assert!(matches!(own.refuse_passed(&[fd + 1, fd]), Err(SocketError::Twice(twice)) if twice == fd));
        assert!(own.refuse_passed(&[fd + 1]).is_ok());
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
