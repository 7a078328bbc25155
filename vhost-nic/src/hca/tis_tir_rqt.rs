//! What is between queues and the wire: TIS, TIR, RQT.

use std::sync::Arc;

use mlx5_prm::tis_tir_rqt::{Rqtc, Tirc, Tisc};
use parking_lot::RwLock;
use serde::{Serialize, Serializer};

use super::inspect::{self, Numbered};
use super::refcount::{RefCount, Reference};
use super::rq::Rq;
use crate::frame::rss::{HashFunction, L3Protocol, L4Protocol, RssHash, Toeplitz};

/// A transport interface send.
#[derive(Debug, Serialize)]
pub struct Tis {
    /// Its number.
    pub number: u32,
    /// As the guest gave it.
    #[serde(serialize_with = "inspect::tisc")]
    pub context: RwLock<Tisc>,
    /// The send queues on it.
    pub references: RefCount,
    /// Of its transport domain.
    #[serde(skip)]
    pub domain: Reference,
}

/// A receive queue table.
#[derive(Debug, Serialize)]
pub struct Rqt {
    /// Its number.
    pub number: u32,
    /// The TIRs on it.
    pub references: RefCount,
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
                queues: used(queues),
            }),
        }
    }

    /// Replaces the queues. The largest number of them stays.
    pub fn set_queues(&self, queues: Vec<Arc<Rq>>) {
        let mut entries = self.entries.write();
        entries.context.set_rqt_actual_size(queues.len() as u16);
        entries.queues = used(queues);
    }

    /// The queue for a hash.
    pub fn queue(&self, hash: u32) -> Option<Arc<Rq>> {
        let entries = self.entries.read();
        let count = entries.queues.len();
        let (queue, _) = entries.queues.get(hash as usize % count.max(1))?;
        Some(queue.clone())
    }

    /// The context, and the numbers of the queues.
    pub fn query(&self) -> (Rqtc, Vec<u32>) {
        let entries = self.entries.read();
        (
            entries.context.clone(),
            entries.queues.iter().map(|(queue, _)| queue.number).collect(),
        )
    }
}

fn used(queues: Vec<Arc<Rq>>) -> Vec<(Arc<Rq>, Reference)> {
    queues
        .into_iter()
        .map(|queue| (queue.clone(), queue.references.acquire()))
        .collect()
}

/// Where a TIR sends packets.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dispatch {
    /// To one queue.
    Direct(
        #[serde(serialize_with = "inspect::number")] Arc<Rq>,
        #[serde(skip)] Reference,
    ),
    /// To the queues of a table, by hash.
    Indirect(
        #[serde(serialize_with = "inspect::number")] Arc<Rqt>,
        #[serde(skip)] Reference,
    ),
    /// To nobody: it is destroyed.
    Nowhere,
}

/// A transport interface receive.
#[derive(Debug, Serialize)]
pub struct Tir {
    /// Its number.
    pub number: u32,
    /// The flow table entries that send to it.
    pub references: RefCount,
    /// As the guest gave it, and what follows from that.
    pub state: RwLock<TirState>,
    /// Of its transport domain.
    #[serde(skip)]
    pub domain: Reference,
}

impl Tir {
    /// The guest destroys it: it sends to nobody any more, whoever still holds it for a moment.
    pub fn retire(&self) {
        self.state.write().dispatch = Dispatch::Nowhere;
    }
}

/// The part of a TIR that changes.
#[derive(Debug, Serialize)]
pub struct TirState {
    #[serde(serialize_with = "inspect::tirc")]
    context: Tirc,
    /// Where it sends packets.
    pub dispatch: Dispatch,
    /// The hash of its packets.
    #[serde(skip)]
    pub hash: RssHash,
}

impl TirState {
    /// What a context says.
    pub fn new(context: Tirc, dispatch: Dispatch) -> Self {
        Self {
            hash: hash(&context),
            context,
            dispatch,
        }
    }

    /// As the guest gave it.
    pub fn context(&self) -> &Tirc {
        &self.context
    }

    /// Changes the context.
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
