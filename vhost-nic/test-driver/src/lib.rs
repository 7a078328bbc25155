#![doc = include_str!("../README.md")]

pub mod buffer;
pub mod command;
pub mod cq;
pub mod device;
pub mod domain;
pub mod eq;
mod event_ring;
pub mod fuzz;
pub mod hca;
pub mod interrupts;
pub mod machine;
pub mod memory;
pub mod mkey;
pub mod netdev;
pub mod node;
pub mod qp;
pub mod region;
pub mod request;
pub mod rq;
pub mod sq;
pub mod srq;
pub mod steering;
pub mod tis_tir_rqt;
#[cfg(feature = "vfio-user")]
pub mod vfio_user;
pub mod wait;
