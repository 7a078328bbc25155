//! Wire formats of the mlx5 programming interface: commands, contexts, queue entries, registers. No behaviour.
//!
//! Layouts the kernel declares by the bit keep their names of `include/linux/mlx5/mlx5_ifc.h`:
//! `struct mlx5_ifc_cqc_bits` is [`cq::Cqc`], and its field `log_cq_size` is read by `log_cq_size()` and written by
//! `set_log_cq_size()`. Layouts of queue entries (`device.h`, `qp.h`, `cq.h`) are plain structures of big-endian
//! integers.

#![forbid(unsafe_code)]

pub mod access_reg;
pub mod buffer_reg;
pub mod capability;
pub mod capability_group;
pub mod command;
mod complete;
pub mod cq;
pub mod domain;
pub mod eq;
pub mod init_hca;
pub mod init_segment;
pub mod layout;
pub mod management_reg;
pub mod mkey;
pub mod nv_config;
pub mod opcode;
pub mod port_counters;
pub mod qos_reg;
pub mod qp;
pub mod queue_entry;
pub mod rdma_wqe;
pub mod steering;
pub mod tis_tir_rqt;
pub mod tool_reg;
pub mod vnic_env;
pub mod vport;
pub mod wq;
pub mod wqe;

pub use complete::COMPLETE;
use layout::Declaration;

/// Returns every layout declared by the bit.
pub fn layouts() -> impl Iterator<Item = &'static Declaration> {
    [
        access_reg::LAYOUTS,
        buffer_reg::LAYOUTS,
        capability::LAYOUTS,
        capability_group::LAYOUTS,
        cq::LAYOUTS,
        eq::LAYOUTS,
        steering::LAYOUTS,
        init_hca::LAYOUTS,
        management_reg::LAYOUTS,
        mkey::LAYOUTS,
        port_counters::LAYOUTS,
        qos_reg::LAYOUTS,
        qp::LAYOUTS,
        tis_tir_rqt::LAYOUTS,
        domain::LAYOUTS,
        vnic_env::LAYOUTS,
        vport::LAYOUTS,
        wq::LAYOUTS,
    ]
    .into_iter()
    .flatten()
}
