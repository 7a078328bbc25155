//! TIS, TIR and RQT: the objects between work queues and the wire.

use std::sync::Arc;

use mlx5_prm::tis_tir_rqt::{Rqtc, Tirc, Tisc};
use parking_lot::{Mutex, RwLock};
use serde::{Serialize, Serializer};

use super::inspect::{self, Numbered};
use super::refcount::{RefCount, Reference};
use super::rq::Rq;
use crate::frame::rss::{HashFunction, L3Protocol, L4Protocol, RssHash, Toeplitz};

/// A transport interface send.
#[derive(Debug, Serialize)]
pub struct Tis {
    /// TIS number (24 bits).
    pub number: u32,
    /// Context as given by the guest.
    #[serde(serialize_with = "inspect::tisc")]
    pub context: RwLock<Tisc>,
    /// References by send queues.
    pub references: RefCount,
    /// Reference to the transport domain.
    #[serde(skip)]
    pub(crate) domain: Mutex<Option<Reference>>,
}

impl Tis {
    /// Drops the reference to the transport domain, even if an `Arc` outlives DESTROY_TIS.
    pub fn retire(&self) {
        *self.domain.lock() = None;
    }
}

/// A receive queue table.
#[derive(Debug, Serialize)]
pub struct Rqt {
    /// RQT number (24 bits).
    pub number: u32,
    /// References by TIRs.
    pub references: RefCount,
    /// Lock order: behind the state of a TIR.
    entries: RwLock<Entries>,
}

#[derive(Debug, Serialize)]
struct Entries {
    #[serde(serialize_with = "inspect::rqtc")]
    context: Rqtc,
    #[serde(serialize_with = "numbers")]
    queues: Vec<(Arc<Rq>, Reference)>,
}

impl Numbered for Rqt {
    fn number(&self) -> Option<u32> {
        Some(self.number)
    }
}

fn numbers<S: Serializer>(queues: &[(Arc<Rq>, Reference)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(queues.iter().map(|(queue, _)| queue.number))
}

impl Rqt {
    pub(crate) fn new(number: u32, context: Rqtc, queues: Vec<Arc<Rq>>) -> Self {
        Self {
            number,
            references: RefCount::default(),
            entries: RwLock::new(Entries {
                context,
                queues: with_references(queues),
            }),
        }
    }

    /// Replaces the queues (MODIFY_RQT). `rqt_max_size` stays.
    pub fn set_queues(&self, queues: Vec<Arc<Rq>>) {
        let mut entries = self.entries.write();
        entries.context.set_rqt_actual_size(queues.len() as u16);
        entries.queues = with_references(queues);
    }

    /// Returns the receive queue for a hash.
    pub fn queue(&self, hash: u32) -> Option<Arc<Rq>> {
        let entries = self.entries.read();
        let count = entries.queues.len();
        let (queue, _) = entries.queues.get(hash as usize % count.max(1))?;
        Some(queue.clone())
    }

    /// Returns the context and the numbers of the receive queues (QUERY_RQT).
    pub fn query(&self) -> (Rqtc, Vec<u32>) {
        let entries = self.entries.read();
        (
            entries.context.clone(),
            entries.queues.iter().map(|(queue, _)| queue.number).collect(),
        )
    }
}

fn with_references(queues: Vec<Arc<Rq>>) -> Vec<(Arc<Rq>, Reference)> {
    queues
        .into_iter()
        .map(|queue| (queue.clone(), queue.references.acquire()))
        .collect()
}

/// Destination of a TIR's packets.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dispatch {
    /// One receive queue.
    Direct(
        #[serde(serialize_with = "inspect::number")] Arc<Rq>,
        #[serde(skip)] Reference,
    ),
    /// Receive queues of an RQT, by hash.
    Indirect(
        #[serde(serialize_with = "inspect::number")] Arc<Rqt>,
        #[serde(skip)] Reference,
    ),
    /// None: the TIR is destroyed.
    Nowhere,
}

/// A transport interface receive.
#[derive(Debug, Serialize)]
pub struct Tir {
    /// TIR number (24 bits).
    pub number: u32,
    /// References by flow table entries.
    pub references: RefCount,
    /// Mutable state.
    pub state: RwLock<TirState>,
    /// Reference to the transport domain.
    #[serde(skip)]
    pub(crate) domain: Mutex<Option<Reference>>,
}

impl Tir {
    /// Stops dispatch and drops the references to the RQ or RQT and to the transport domain, even if an `Arc` outlives
    /// DESTROY_TIR.
    pub fn retire(&self) {
        self.state.write().dispatch = Dispatch::Nowhere;
        *self.domain.lock() = None;
    }
}

/// Mutable state of a TIR.
#[derive(Debug, Serialize)]
pub struct TirState {
    #[serde(serialize_with = "inspect::tirc")]
    context: Tirc,
    /// Destination of packets.
    pub dispatch: Dispatch,
    /// Receive hash, from the context.
    #[serde(skip)]
    pub hash: RssHash,
}

impl TirState {
    /// Derives the state from a context.
    pub fn new(context: Tirc, dispatch: Dispatch) -> Self {
        Self {
            hash: hash(&context),
            context,
            dispatch,
        }
    }

    /// Context as given by the guest.
    pub fn context(&self) -> &Tirc {
        &self.context
    }

    /// Changes the context, and the hash with it.
    pub fn modify(&mut self, change: impl FnOnce(&mut Tirc)) {
        change(&mut self.context);
        self.hash = hash(&self.context);
    }
}

/// `MLX5_RX_HASH_FN_TOEPLITZ`.
const HASH_TOEPLITZ: u8 = 2;

fn hash(context: &Tirc) -> RssHash {
    let selector = context.rx_hash_field_selector_outer();
    RssHash {
        function: match context.rx_hash_fn() {
            HASH_TOEPLITZ => HashFunction::Toeplitz(Toeplitz::new(context.rx_hash_toeplitz_key())),
            _ => HashFunction::InvertedXor8,
        },
        symmetric: context.rx_hash_symmetric(),
        l3: if selector.l3_prot_type() {
            L3Protocol::Ipv6
        } else {
            L3Protocol::Ipv4
        },
        l4: if selector.l4_prot_type() {
            L4Protocol::Udp
        } else {
            L4Protocol::Tcp
        },
        fields: selector.selected_fields(),
    }
}
