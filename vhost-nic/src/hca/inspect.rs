//! Serialization of live objects for statistics.
//!
//! Each object derives `Serialize`; a mutex or lock serializes what it protects, locked for as long as that takes. No
//! object is serialized inside of another one, and so at most one lock is held at a time: an object refers to others
//! by number.

use std::sync::Arc;

use mlx5_prm::cq::Cqc;
use mlx5_prm::eq::Eqc;
use mlx5_prm::mkey::Mkc;
use mlx5_prm::tis_tir_rqt::{Rqtc, Tirc, Tisc};
use mlx5_prm::wq::{Rmpc, Rqc, Sqc, XrcSrqc};
use parking_lot::{Mutex, RwLock};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// An object that others refer to by number.
pub(super) trait Numbered {
    /// Returns the number, if there is an object.
    fn number(&self) -> Option<u32>;
}

impl<T: Numbered> Numbered for Arc<T> {
    fn number(&self) -> Option<u32> {
        (**self).number()
    }
}

impl<T: Numbered> Numbered for Option<T> {
    fn number(&self) -> Option<u32> {
        self.as_ref()?.number()
    }
}

/// Serializes an object as its number.
pub(super) fn number<S: Serializer>(object: &impl Numbered, serializer: S) -> Result<S::Ok, S::Error> {
    object.number().serialize(serializer)
}

macro_rules! contexts {
    ($($name:ident: $context:ty $(=> $lock:ident)? { $($field:ident),* $(,)? })*) => { $(
        /// Serializes fields of a context.
        pub(super) fn $name<S: Serializer>(context: &$context, serializer: S) -> Result<S::Ok, S::Error> {
            $(let context = context.$lock();)?
            let mut map = serializer.serialize_map(None)?;
            $(map.serialize_entry(stringify!($field), &context.$field())?;)*
            map.end()
        }
    )* };
}

contexts! {
    eqc: Eqc { log_eq_size, intr, uar_page }
    cqc: Cqc { log_cq_size, cqe_sz, c_eqn_or_apu_element, cq_period, cq_max_count, oi }
    mkc: Mkc { free, pd, qpn, start_addr, len, length64, access_mode_4_2, access_mode_1_0, lr, lw, rr, rw, a, umr_en }
    sqc: Sqc { cqn, tis_num_0, user_index }
    rqc: Rqc { cqn, user_index }
    rmpc: Mutex<Rmpc> => lock { state }
    xrc_srqc: Mutex<XrcSrqc> => lock { pd, xrcd, cqn }
    tisc: RwLock<Tisc> => read { transport_domain, prio }
    tirc: Tirc { disp_type, transport_domain, rx_hash_fn, self_lb_block }
    rqtc: Rqtc { rqt_max_size, rqt_actual_size }
}
