//! The dibs devices in sysfs (drivers/dibs/dibs_main.c); unlike netlink, sysfs includes loopback.

use std::io;
use std::path::Path;

use serde::Serialize;

/// The dibs class in sysfs.
pub const CLASS: &str = "/sys/class/dibs";

/// A dibs device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DibsDevice {
    /// Device name.
    pub name: String,
    /// GID, as a UUID.
    pub gid: Option<String>,
    /// Fabric ID, called CHID by SMC.
    pub fabric_id: Option<String>,
    /// Parent device, as a path in sysfs.
    pub parent: Option<String>,
}

/// Lists the devices of a directory like [`CLASS`] by name; a missing directory has none.
///
/// # Errors
///
/// Fails when the directory cannot be read.
pub fn list(class: &Path) -> io::Result<Vec<DibsDevice>> {
    let entries = match class.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut devices = Vec::new();
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let value = |file: &str| {
            std::fs::read_to_string(path.join(file))
                .ok()
                .map(|text| text.trim().to_owned())
        };
        devices.push(DibsDevice {
            name: entry.file_name().to_string_lossy().into_owned(),
            gid: value("gid"),
            fabric_id: value("fabric_id"),
            parent: parent(&path),
        });
    }
    devices.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(devices)
}

/// Returns the parent device: two directories up from `.../PARENT/dibs/NAME`.
fn parent(path: &Path) -> Option<String> {
    let real = path.canonicalize().ok()?;
    Some(real.parent()?.parent()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join("devices/pci0000:00/0000:00:04.0/dibs/vism0");
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("gid"), "00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        std::fs::write(device.join("fabric_id"), "0xff00\n").unwrap();
        let class = directory.path().join("class");
        std::fs::create_dir(&class).unwrap();
        std::os::unix::fs::symlink(&device, class.join("vism0")).unwrap();
        let devices = list(&class).unwrap();
        assert_eq!(devices.len(), 1);
        assert_eq!(devices[0].name, "vism0");
        assert_eq!(devices[0].fabric_id.as_deref(), Some("0xff00"));
        assert!(devices[0].parent.as_deref().unwrap().ends_with("0000:00:04.0"));
    }

    #[test]
    fn no_class_is_no_device() {
        assert!(list(Path::new("/nonexistent")).unwrap().is_empty());
    }
}
