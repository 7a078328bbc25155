//! Data in completions (scatter-to-CQE): who asks for it gets it, nobody else, and the data are right either way.

use guest_harness::Result;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Setup, step};
use crate::operations::{ATOMIC, Pair};

const SIZES: [u64; 9] = [0, 1, 8, 31, 32, 33, 63, 64, 65];

/// How the library is told, or is not, to ask for data in completions.
const ENVIRONMENT: [Option<&str>; 2] = [None, Some("0")];
/// The same for one queue pair, by flags of mlx5dv_create_qp.
const FLAGS: [Option<&str>; 3] = [None, Some("allow"), Some("disable")];

/// How completions come to have 128 bytes, if they do.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Large {
    No,
    /// By mlx5dv_create_cq.
    Attribute,
    /// By MLX5_CQE_SIZE.
    Environment,
}

/// What queues are like, and the requests on them.
#[derive(Debug, Clone, Copy)]
struct Way {
    environment: Option<&'static str>,
    flag: Option<&'static str>,
    large: Large,
    signal_all: bool,
    unsignaled: bool,
}

impl Way {
    fn all() -> impl Iterator<Item = Self> {
        let signals = [(true, false), (false, false), (false, true), (true, true)];
        ENVIRONMENT.into_iter().flat_map(move |environment| {
            FLAGS.into_iter().flat_map(move |flag| {
                [Large::No, Large::Attribute, Large::Environment]
                    .into_iter()
                    .flat_map(move |large| {
                        signals.into_iter().map(move |(signal_all, unsignaled)| Self {
                            environment,
                            flag,
                            large,
                            signal_all,
                            unsignaled,
                        })
                    })
            })
        })
    }

    /// Most bytes that a completion may have when the queue pair asks for data in them.
    fn limit(self) -> u64 {
        // The flags have the last word (create_qp, providers/mlx5/verbs.c).
        let asks = match self.flag {
            Some(flag) => flag == "allow",
            None => self.environment != Some("0"),
        };
        match (asks, self.large) {
            (false, _) => 0,
            (true, Large::No) => 32,
            (true, _) => 64,
        }
    }

    fn order(self, service: &str, operations: &[&str]) -> Value {
        let mut environment = json!({});
        if let Some(value) = self.environment {
            environment["MLX5_SCATTER_TO_CQE"] = json!(value);
        }
        if self.large == Large::Environment {
            environment["MLX5_CQE_SIZE"] = json!("128");
        }
        let mut order = json!({
            "service": service, "operations": operations, "sizes": SIZES, "ways": ["plain", "parts"],
            "environment": environment, "signal_all": self.signal_all, "unsignaled": self.unsignaled,
        });
        if let Some(flag) = self.flag {
            order["scatter"] = json!(flag);
        }
        if self.large == Large::Attribute {
            order["cqe_size"] = json!(128);
        }
        if self.large != Large::No && service == "rc" {
            order["miscopied"] = json!(self.answer_limit());
        }
        order
    }

    /// The same, for answers.
    fn answer_limit(self) -> u64 {
        let configured = self.signal_all || self.flag == Some("allow");
        let completes = self.signal_all || !self.unsignaled;
        if configured && completes { self.limit() } else { 0 }
    }

    /// Of received sends (`mlx5_ib` sets cs_res, infiniband/hw/mlx5/qp.c).
    fn received(self, kinds: u64) -> Inline {
        Inline::of_all_sizes(self.limit(), kinds)
    }

    /// Of reads and atomics (`configure_requester_scat_cqe`, infiniband/hw/mlx5/qp.c): only if all complete, or if it was allowed
    /// explicitly, and only those that do complete.
    fn answered(self) -> Inline {
        let mut inline = Inline::of_all_sizes(self.answer_limit(), 1);
        if self.answer_limit() > 0 {
            inline.short += ATOMIC.len() as u64;
        }
        inline
    }
}

/// Completions with data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Inline {
    /// In the completion itself.
    short: u64,
    /// In the lower half of a large one.
    long: u64,
}

impl Inline {
    /// Of messages of all sizes, `kinds` of each, whole and from three parts.
    fn of_all_sizes(limit: u64, kinds: u64) -> Self {
        let ways = |size| if size < 3 { 1 } else { 2 };
        let count = |from, to: u64| -> u64 {
            let sizes = SIZES.into_iter().filter(|size| (from..=to.min(limit)).contains(size));
            sizes.map(ways).sum::<u64>() * kinds
        };
        Self {
            short: count(1, 32),
            long: count(33, 64),
        }
    }

    /// So far, of a guest's NIC.
    fn counted(fixture: &Fixture, guest: usize) -> Result<Self> {
        let stats = fixture.stats(guest)?;
        let count = |name: &str| stats["completions"][name].as_u64().expect("a counter of completions");
        Ok(Self {
            short: count("inline_32"),
            long: count("inline_64"),
        })
    }

    /// What an order adds in each of the guests.
    fn added<const N: usize>(fixture: &Fixture, guests: [usize; N], pair: &Pair, order: &Value) -> Result<[Self; N]> {
        let counted = || -> Result<Vec<Self>> { guests.iter().map(|&guest| Self::counted(fixture, guest)).collect() };
        let before = counted()?;
        pair.carry_out(order)?;
        let after = counted()?;
        Ok(std::array::from_fn(|guest| Self {
            short: after[guest].short - before[guest].short,
            long: after[guest].long - before[guest].long,
        }))
    }
}

/// Sends of RC complete with data at the receiver, reads and atomics at the requester.
const SENDS: [&str; 3] = ["send", "send_imm", "send_inv"];
const REQUESTS: [&str; 5] = ["read", ATOMIC[0], ATOMIC[1], ATOMIC[2], ATOMIC[3]];
/// What never does.
const WRITES: [&str; 2] = ["write", "write_imm"];

#[test]
fn completions_have_data_when_asked_to_and_only_then() -> Result<()> {
    let fixture = Setup::new("nic-scatter", 2).start()?;
    let pair = Pair::within(&fixture, 0)?;
    step("within a guest, all combinations", || {
        for way in Way::all() {
            let [sends] = Inline::added(&fixture, [0], &pair, &way.order("rc", &SENDS))?;
            assert_eq!(sends, way.received(SENDS.len() as u64), "sends, {way:?}");
            let [requests] = Inline::added(&fixture, [0], &pair, &way.order("rc", &REQUESTS))?;
            assert_eq!(requests, way.answered(), "reads and atomics, {way:?}");
            let [writes] = Inline::added(&fixture, [0], &pair, &way.order("rc", &WRITES))?;
            assert_eq!(writes, Inline::default(), "writes, {way:?}");
        }
        Ok(())
    })?;
    step("within a guest, other services", || {
        for way in Way::all().filter(|way| way.signal_all && !way.unsignaled) {
            let [sends] = Inline::added(&fixture, [0], &pair, &way.order("uc", &SENDS[..2]))?;
            assert_eq!(sends, way.received(2), "sends of UC, {way:?}");
            let [datagrams] = Inline::added(&fixture, [0], &pair, &way.order("ud", &SENDS[..2]))?;
            assert_eq!(datagrams, Inline::default(), "UD, {way:?}");
            // Extended RC has no flags of its own.
            if way.flag.is_none() {
                let [extended] = Inline::added(&fixture, [0], &pair, &way.order("xrc", &["send", "read"]))?;
                assert_eq!(extended, Inline::default(), "XRC, {way:?}");
            }
        }
        Ok(())
    })?;
    drop(pair);
    let pair = Pair::between(&fixture, 0, 1)?;
    step("between two guests", || {
        for way in Way::all().filter(|way| way.signal_all && !way.unsignaled && way.large != Large::Environment) {
            let order = way.order("rc", &["send", "read"]);
            let [requester, responder] = Inline::added(&fixture, [0, 1], &pair, &order)?;
            assert_eq!(requester, Inline::of_all_sizes(way.limit(), 1), "reads, {way:?}");
            assert_eq!(responder, way.received(1), "sends, {way:?}");
        }
        Ok(())
    })?;
    drop(pair);
    fixture.finish()
}
