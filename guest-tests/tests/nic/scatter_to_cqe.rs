//! Scatter-to-CQE: data are in completions exactly when requested, and are correct in both cases.

use guest_harness::Result;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Setup, step};
use crate::operations::{ATOMIC, Pair};

const SIZES: [u64; 9] = [0, 1, 8, 31, 32, 33, 63, 64, 65];

/// Values of MLX5_SCATTER_TO_CQE.
const ENVIRONMENT: [Option<&str>; 2] = [None, Some("0")];
/// Scatter flags of mlx5dv_create_qp.
const FLAGS: [Option<&str>; 3] = [None, Some("allow"), Some("disable")];

/// Request of 128-byte CQEs.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Large {
    No,
    /// By mlx5dv_create_cq.
    Attribute,
    /// By MLX5_CQE_SIZE.
    Environment,
}

/// Configuration of queues and requests.
#[derive(Debug, Clone, Copy)]
struct Variant {
    environment: Option<&'static str>,
    flag: Option<&'static str>,
    large: Large,
    signal_all: bool,
    unsignaled: bool,
}

impl Variant {
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

    /// Returns the maximum number of data bytes in a CQE.
    fn limit(self) -> u64 {
        // The flags override the environment (create_qp, providers/mlx5/verbs.c).
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
            "service": service, "operations": operations, "sizes": SIZES, "variants": ["plain", "parts"],
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

    /// Returns the maximum number of response data bytes in a requester's CQE.
    fn answer_limit(self) -> u64 {
        let configured = self.signal_all || self.flag == Some("allow");
        let completes = self.signal_all || !self.unsignaled;
        if configured && completes { self.limit() } else { 0 }
    }

    /// Returns the count expected for received sends (`mlx5_ib` sets cs_res, infiniband/hw/mlx5/qp.c).
    fn received(self, kinds: u64) -> Inline {
        Inline::of_all_sizes(self.limit(), kinds)
    }

    /// Returns the count expected for reads and atomics (`configure_requester_scat_cqe`, infiniband/hw/mlx5/qp.c): only
    /// if all requests are signaled or the flag allows it, and only for signaled ones.
    fn answered(self) -> Inline {
        let mut inline = Inline::of_all_sizes(self.answer_limit(), 1);
        if self.answer_limit() > 0 {
            inline.short += ATOMIC.len() as u64;
        }
        inline
    }
}

/// Number of CQEs with inline data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Inline {
    /// Up to 32 bytes, in the CQE itself.
    short: u64,
    /// Up to 64 bytes, in the first half of a 128-byte CQE.
    long: u64,
}

impl Inline {
    /// Returns the count expected for `kinds` messages of each size, in one segment and in three.
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

    /// Reads the counters of a guest's NIC.
    fn counted(fixture: &Fixture, guest: usize) -> Result<Self> {
        let stats = fixture.stats(guest)?;
        let count = |name: &str| stats["completions"][name].as_u64().expect("a counter of completions");
        Ok(Self {
            short: count("inline_32"),
            long: count("inline_64"),
        })
    }

    /// Executes an order and returns the increase in each guest.
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

/// Operations with inline data: RC sends at the receiver, reads and atomics at the requester.
const SENDS: [&str; 3] = ["send", "send_imm", "send_inv"];
const REQUESTS: [&str; 5] = ["read", ATOMIC[0], ATOMIC[1], ATOMIC[2], ATOMIC[3]];
/// Operations that never have inline data.
const WRITES: [&str; 2] = ["write", "write_imm"];

#[test]
fn completions_have_data_when_asked_to_and_only_then() -> Result<()> {
    let fixture = Setup::new("nic-scatter", 2).start()?;
    let pair = Pair::within(&fixture, 0)?;
    step("within a guest, all combinations", || {
        for variant in Variant::all() {
            let [sends] = Inline::added(&fixture, [0], &pair, &variant.order("rc", &SENDS))?;
            assert_eq!(sends, variant.received(SENDS.len() as u64), "sends, {variant:?}");
            let [requests] = Inline::added(&fixture, [0], &pair, &variant.order("rc", &REQUESTS))?;
            assert_eq!(requests, variant.answered(), "reads and atomics, {variant:?}");
            let [writes] = Inline::added(&fixture, [0], &pair, &variant.order("rc", &WRITES))?;
            assert_eq!(writes, Inline::default(), "writes, {variant:?}");
        }
        Ok(())
    })?;
    step("within a guest, other services", || {
        for variant in Variant::all().filter(|variant| variant.signal_all && !variant.unsignaled) {
            let [sends] = Inline::added(&fixture, [0], &pair, &variant.order("uc", &SENDS[..2]))?;
            assert_eq!(sends, variant.received(2), "sends of UC, {variant:?}");
            let [datagrams] = Inline::added(&fixture, [0], &pair, &variant.order("ud", &SENDS[..2]))?;
            assert_eq!(datagrams, Inline::default(), "UD, {variant:?}");
            // XRC has no scatter flags.
            if variant.flag.is_none() {
                let [extended] = Inline::added(&fixture, [0], &pair, &variant.order("xrc", &["send", "read"]))?;
                assert_eq!(extended, Inline::default(), "XRC, {variant:?}");
            }
        }
        Ok(())
    })?;
    drop(pair);
    let pair = Pair::between(&fixture, 0, 1)?;
    step("between two guests", || {
        for variant in Variant::all()
            .filter(|variant| variant.signal_all && !variant.unsignaled && variant.large != Large::Environment)
        {
            let order = variant.order("rc", &["send", "read"]);
            let [requester, responder] = Inline::added(&fixture, [0, 1], &pair, &order)?;
            assert_eq!(
                requester,
                Inline::of_all_sizes(variant.limit(), 1),
                "reads, {variant:?}"
            );
            assert_eq!(responder, variant.received(1), "sends, {variant:?}");
        }
        Ok(())
    })?;
    drop(pair);
    fixture.finish()
}
