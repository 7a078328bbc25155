//! The two RDMA devices that are compared.

/// An RDMA device in each guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// Software RoCE on virtio-net.
    Rxe,
    Nic,
}

impl Device {
    /// Both, in the order of the tables.
    pub const BOTH: [Self; 2] = [Self::Rxe, Self::Nic];

    /// Returns the name of the RDMA device.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rxe => "rxe0",
            Self::Nic => "mlx5_0",
        }
    }
}
