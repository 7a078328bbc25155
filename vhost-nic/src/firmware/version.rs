//! Version of the firmware.

/// Version of the firmware, of which the initialization segment and MCQI tell the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirmwareVersion {
    /// Major number: 16 is ConnectX-5.
    pub major: u8,
    /// Minor number.
    pub minor: u8,
    /// Sub-minor number.
    pub subminor: u16,
}

/// Version of this firmware.
pub const VERSION: FirmwareVersion = FirmwareVersion {
    major: 16,
    minor: 35,
    subminor: 4030,
};

impl FirmwareVersion {
    /// Returns the version as MCQI encodes it (`mlx5_fw_ver_major` and so on, core/devlink.c).
    pub fn encoded(self) -> u32 {
        u32::from(self.major) << 24 | u32::from(self.minor) << 16 | u32::from(self.subminor)
    }
}

impl std::fmt::Display for FirmwareVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{:04}", self.major, self.minor, self.subminor)
    }
}
