//! Adapters that a function presents itself as.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Vendor ID of Mellanox.
pub(super) const VENDOR: u16 = 0x15b3;

/// An adapter that the mlx5 drivers know (mlx5_core_pci_table in the kernel's mlx5/core/main.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Identity {
    /// ConnectX-5.
    #[default]
    ConnectX5,
    /// ConnectX-5 Ex.
    ConnectX5Ex,
    /// ConnectX-6 Dx.
    ConnectX6Dx,
    /// ConnectX-7.
    ConnectX7,
    /// A virtual function of ConnectX-5 or later, as a guest sees one that was passed through.
    VirtualFunction,
}

/// Unknown name of an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown adapter {0:?}: expected connectx-5, connectx-5ex, connectx-6dx, connectx-7 or vf")]
pub struct UnknownIdentity(String);

impl Identity {
    /// All adapters.
    pub const ALL: [Self; 5] = [
        Self::ConnectX5,
        Self::ConnectX5Ex,
        Self::ConnectX6Dx,
        Self::ConnectX7,
        Self::VirtualFunction,
    ];

    /// Name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConnectX5 => "connectx-5",
            Self::ConnectX5Ex => "connectx-5ex",
            Self::ConnectX6Dx => "connectx-6dx",
            Self::ConnectX7 => "connectx-7",
            Self::VirtualFunction => "vf",
        }
    }

    /// Name of the product.
    pub const fn product(self) -> &'static str {
        match self {
            Self::ConnectX5 => "ConnectX-5",
            Self::ConnectX5Ex => "ConnectX-5 Ex",
            Self::ConnectX6Dx => "ConnectX-6 Dx",
            Self::ConnectX7 => "ConnectX-7",
            Self::VirtualFunction => "ConnectX virtual function",
        }
    }

    /// Number of the chip in the adapter's CR space (`*_HW_ID`, mstflint's mtcr_ul_icmd_cif.c).
    pub const fn hardware_id(self) -> u32 {
        match self {
            Self::ConnectX5 | Self::ConnectX5Ex | Self::VirtualFunction => 525,
            Self::ConnectX6Dx => 530,
            Self::ConnectX7 => 536,
        }
    }

    /// PCI Device ID.
    pub const fn device_id(self) -> u16 {
        match self {
            Self::ConnectX5 => 0x1017,
            Self::ConnectX5Ex => 0x1019,
            Self::ConnectX6Dx => 0x101d,
            Self::ConnectX7 => 0x1021,
            Self::VirtualFunction => 0x101e,
        }
    }

    /// PCI Subsystem ID of a Mellanox card, where the PCI ID database lists one.
    pub const fn subsystem_id(self) -> u16 {
        match self {
            // MCX515A-CCAT.
            Self::ConnectX5 => 0x0006,
            // MCX516A-CDAT.
            Self::ConnectX5Ex => 0x0008,
            Self::ConnectX6Dx | Self::ConnectX7 | Self::VirtualFunction => 0x0006,
        }
    }

    /// Whether this is a virtual function.
    pub const fn is_virtual(self) -> bool {
        matches!(self, Self::VirtualFunction)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Identity {
    type Err = UnknownIdentity;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|identity| identity.name() == name)
            .ok_or_else(|| UnknownIdentity(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_to_its_adapter() {
        for identity in Identity::ALL {
            assert_eq!(identity.to_string().parse(), Ok(identity));
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = "connectx-4".parse::<Identity>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown adapter \"connectx-4\": expected connectx-5, connectx-5ex, connectx-6dx, connectx-7 or vf"
        );
    }
}
