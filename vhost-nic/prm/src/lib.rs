//! Wire formats of the mlx5 programming interface: commands, contexts, queue entries, registers. No behaviour.
//!
//! Layouts that the kernel declares by the bit keep their names of `include/linux/mlx5/mlx5_ifc.h`: `struct mlx5_ifc_cqc_bits` is
//! [`completion::Cqc`], and its field `log_cq_size` is read by `log_cq_size()` and written by `set_log_cq_size()`. Layouts of queue entries
//! (`device.h`, `qp.h`, `cq.h`) are plain structures of big-endian integers.

pub mod access;
pub mod capability;
pub mod command;
pub mod completion;
pub mod event;
pub mod flow;
pub mod hca;
pub mod init_segment;
pub mod layout;
pub mod mkey;
pub mod opcode;
pub mod queue_entry;
pub mod queue_pair;
pub mod rdma_wqe;
pub mod transport;
pub mod uar;
pub mod vport;
pub mod work_queue;
pub mod wqe;

use layout::Declaration;

/// Every layout that is declared by the bit.
pub fn layouts() -> impl Iterator<Item = &'static Declaration> {
    [
        access::LAYOUTS,
        capability::LAYOUTS,
        completion::LAYOUTS,
        event::LAYOUTS,
        flow::LAYOUTS,
        hca::LAYOUTS,
        mkey::LAYOUTS,
        queue_pair::LAYOUTS,
        transport::LAYOUTS,
        uar::LAYOUTS,
        vport::LAYOUTS,
        work_queue::LAYOUTS,
    ]
    .into_iter()
    .flatten()
}
