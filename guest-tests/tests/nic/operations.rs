//! Every verbs operation at every boundary size, by `operations.py`, which checks all bytes and completions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use guest_harness::{Guest, Job, NicOptions, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Setup, step};

const PROGRAM: &str = include_str!("operations.py");
const PATH: &str = "/tmp/operations.py";
/// Module imported by the program.
const CASES: &str = include_str!("cases.py");
const CASES_PATH: &str = "/tmp/cases.py";
/// Limit on the time of an order, set by the largest messages.
const PATIENCE: Duration = Duration::from_secs(300);

/// Path MTU at an interface MTU of 1500 bytes.
const MTU: usize = 1024;
/// The largest path MTU, and an interface MTU with room for its packets.
const LARGE_MTU: usize = 4096;
const JUMBO: u32 = 4200;
/// The smallest path MTU.
const SMALL_MTU: usize = 256;
const MIB: usize = 1 << 20;
const HUGE: usize = 64 * MIB;
/// The longest message that is also sent inline.
const INLINE: usize = 65;

const SENDS: [&str; 2] = ["send", "send_imm"];
const CONNECTED: [&str; 4] = ["send", "send_imm", "write", "write_imm"];
/// Not `send_inv`: XRC has no receive queue whose memory window could be invalidated.
const EXTENDED: [&str; 5] = ["send", "send_imm", "write", "write_imm", "read"];
const RELIABLE: [&str; 6] = ["send", "send_imm", "send_inv", "write", "write_imm", "read"];
pub const ATOMIC: [&str; 4] = ["compare_swap", "compare_swap_differs", "fetch_add", "fetch_add_wraps"];
const VARIANTS: [&str; 3] = ["plain", "inline", "parts"];

/// Sizes around the capacity of a completion, a cache line and a packet, and a long one.
fn edges(mtu: usize) -> Vec<usize> {
    vec![0, 1, 31, 32, 33, 63, 64, 65, mtu - 1, mtu, mtu + 1, MIB]
}

/// Report of the program for an order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Executed cases by operation and variant.
    #[serde(default)]
    done: BTreeMap<String, usize>,
    /// Completions by kind.
    #[serde(default)]
    completions: BTreeMap<String, usize>,
    fault: Option<String>,
    seconds: f64,
}

/// A device in a guest, and the address that selects its GID.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub guest: &'a Guest,
    pub device: &'a str,
    pub address: IpAddr,
    /// `RoCE v1` or `RoCE v2`.
    pub gid_type: &'a str,
}

/// A requester with a responder in another guest or in the same process.
#[derive(Debug)]
pub struct Pair {
    driver: Job,
    _responder: Option<Job>,
}

impl Pair {
    /// Starts a requester in one guest and a responder in another.
    pub fn between(fixture: &Fixture, requester: usize, responder: usize) -> Result<Self> {
        Self::connect(
            fixture,
            (requester, NicOptions::address(requester).into()),
            (responder, NicOptions::address(responder).into()),
        )
    }

    /// Starts both with the addresses to use.
    fn connect(fixture: &Fixture, requester: (usize, IpAddr), responder: (usize, IpAddr)) -> Result<Self> {
        let ((requester, own), (responder, address)) = (requester, responder);
        let job = Self::start(fixture, responder, &format!("answer {address}"))?;
        job.wait_line("ready", PATIENCE)?;
        let driver = Self::start(fixture, requester, &format!("drive {own} {address}"))?;
        Ok(Self {
            driver,
            _responder: Some(job),
        })
    }

    /// Starts both in one guest.
    pub fn within(fixture: &Fixture, guest: usize) -> Result<Self> {
        let driver = Self::start(fixture, guest, &format!("drive {}", NicOptions::address(guest)))?;
        Ok(Self {
            driver,
            _responder: None,
        })
    }

    /// Starts a requester and a responder on devices of any kind.
    pub fn of_devices(requester: &Place<'_>, responder: &Place<'_>) -> Result<Self> {
        let job = Self::start_on(responder, &format!("answer {}", responder.address))?;
        job.wait_line("ready", PATIENCE)?;
        let driver = Self::start_on(requester, &format!("drive {} {}", requester.address, responder.address))?;
        Ok(Self {
            driver,
            _responder: Some(job),
        })
    }

    fn start(fixture: &Fixture, guest: usize, arguments: &str) -> Result<Job> {
        let place = Place {
            guest: fixture.guest(guest),
            device: "mlx5_0",
            address: NicOptions::address(guest).into(),
            gid_type: "RoCE v2",
        };
        Self::start_on(&place, arguments)
    }

    fn start_on(place: &Place<'_>, arguments: &str) -> Result<Job> {
        let Place {
            guest,
            device,
            gid_type,
            ..
        } = place;
        guest.put_bytes(PROGRAM.as_bytes(), PATH, 0o644)?;
        guest.put_bytes(CASES.as_bytes(), CASES_PATH, 0o644)?;
        guest
            .shell(&format!(
                "RDMA_DEVICE={device} GID_TYPE='{gid_type}' exec python3 {PATH} {arguments}"
            ))
            .stdin("")
            .spawn()
    }

    /// Executes an order; returns its report.
    pub fn order(&self, order: &Value) -> Result<Report> {
        self.driver.write(format!("{order}\n").as_bytes())?;
        let line = self.driver.read_line(PATIENCE)?.unwrap_or_else(|| {
            let (_, errors) = self.driver.peek();
            panic!("no report of {order}; {errors}")
        });
        Ok(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}")))
    }

    /// Executes an order; asserts that all cases succeeded and none was skipped.
    pub fn carry_out(&self, order: &Value) -> Result<()> {
        let report = self.order(order)?;
        eprintln!(
            "  {}: {} cases, {:.1} s",
            order["service"],
            report.done.values().sum::<usize>(),
            report.seconds
        );
        assert_eq!(report.fault, None, "{order}");
        assert_eq!(report.done, expected_cases(order), "{order}");
        assert_eq!(report.completions, expected_completions(order), "{order}");
        Ok(())
    }

    /// Executes an order and returns its fault, if there is one; asserts that no case was skipped otherwise.
    pub fn fault_of(&self, order: &Value) -> Result<Option<String>> {
        let report = self.order(order)?;
        if report.fault.is_none() {
            assert_eq!(report.done, expected_cases(order), "{order}");
            assert_eq!(report.completions, expected_completions(order), "{order}");
        }
        Ok(report.fault)
    }
}

/// Reads a list of strings from an order.
fn words<'a>(order: &'a Value, name: &str) -> Vec<&'a str> {
    let list = order[name].as_array().expect("a list");
    list.iter().map(|word| word.as_str().expect("a word")).collect()
}

/// Returns the expected number of cases by operation and variant.
fn expected_cases(order: &Value) -> BTreeMap<String, usize> {
    let sizes: Vec<u64> = order["sizes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|size| size.as_u64().expect("a size"))
        .collect();
    let inline = order["inline"].as_u64().unwrap_or(0);
    let mut cases = BTreeMap::new();
    for operation in words(order, "operations") {
        for variant in words(order, "variants") {
            let atomic = ATOMIC.contains(&operation);
            let count = sizes.iter().filter(|&&size| match variant {
                _ if atomic => size == 8 && variant == "plain",
                "inline" => size <= inline && operation != "read",
                "parts" => size >= 3,
                _ => true,
            });
            cases.insert(format!("{operation} {variant}"), count.count());
        }
    }
    cases.retain(|_, count| *count > 0);
    cases
}

/// Returns the expected number of completions by kind.
fn expected_completions(order: &Value) -> BTreeMap<String, usize> {
    let unreliable = order["service"] == "uc";
    let unsignaled = order["unsignaled"] == true;
    let mut completions: BTreeMap<String, usize> = BTreeMap::new();
    for (case, count) in expected_cases(order) {
        let operation = case.split(' ').next().expect("a word");
        let mut add = |kind: &str| *completions.entry(kind.to_owned()).or_default() += count;
        if unsignaled {
            add("follower");
        }
        if !unsignaled || order["signal_all"] != false {
            add("request");
        }
        match operation {
            "send_inv" => ["bind", "receive"].map(&mut add),
            "send" | "send_imm" | "write_imm" => [add("receive"), ()],
            // The follower proves the arrival of the write.
            "write" if unreliable => ["follower", "receive"].map(&mut add),
            _ => [(), ()],
        };
    }
    completions
}

/// Builds orders for all operations of all services.
fn orders(sizes: &[usize], variants: &[&str], mtu: usize) -> Vec<Value> {
    let order = |service: &str, operations: &[&str], sizes: &[usize]| {
        json!({
            "service": service, "operations": operations, "sizes": sizes, "variants": variants, "mtu": mtu,
            "inline": INLINE,
        })
    };
    let datagrams: Vec<usize> = sizes.iter().copied().filter(|&size| size <= mtu).collect();
    let mut orders = vec![
        order("rc", &RELIABLE, sizes),
        order("uc", &CONNECTED, sizes),
        order("ud", &SENDS, &datagrams),
        order("xrc", &EXTENDED, sizes),
    ];
    for service in ["rc", "xrc"] {
        let mut atomic = order(service, &ATOMIC, &[8]);
        atomic["variants"] = json!(["plain"]);
        orders.push(atomic);
    }
    orders.retain(|order| order["sizes"].as_array().is_some_and(|sizes| !sizes.is_empty()));
    orders
}

/// Tests the checks themselves: bytes corrupted by the responder must be found.
fn faults_are_found(fixture: &Fixture) -> Result<()> {
    for (spoil, place, operation, service) in [
        ("payload", "data", "write", "rc"),
        ("before", "before it", "send", "ud"),
        ("behind", "behind it", "send_imm", "rc"),
    ] {
        let pair = Pair::within(fixture, 0)?;
        let report = pair.order(&json!({
            "service": service, "operations": [operation], "sizes": [33], "spoil": spoil,
        }))?;
        let fault = report.fault.unwrap_or_default();
        assert!(
            fault.contains(&format!("{place}: 1 bytes differ")),
            "{spoil} of a {operation}: {fault:?}"
        );
    }
    Ok(())
}

#[test]
fn every_operation_carries_its_data_at_every_size() -> Result<()> {
    let fixture = Setup::new("nic-operations", 2).start()?;
    step("faults are found", || faults_are_found(&fixture))?;
    let all = |pair: &Pair, mtu: usize| {
        orders(&edges(mtu), &VARIANTS, mtu)
            .iter()
            .try_for_each(|order| pair.carry_out(order))
    };
    let huge = |pair: &Pair| {
        orders(&[HUGE], &["plain"], MTU)
            .iter()
            .try_for_each(|order| pair.carry_out(order))
    };
    let pair = Pair::between(&fixture, 1, 0)?;
    step("between two guests", || all(&pair, MTU))?;
    step("between two guests, 64 MiB", || huge(&pair))?;
    drop(pair);
    let pair = Pair::within(&fixture, 0)?;
    step("within a guest", || all(&pair, MTU))?;
    step("within a guest, 64 MiB", || huge(&pair))?;
    drop(pair);

    fixture.set_mtu(JUMBO)?;
    let [a, b] = [0, 1].map(|guest| (guest, NicOptions::address_v6(guest).into()));
    let pair = Pair::connect(&fixture, a, b)?;
    step("the largest packets, over IPv6", || all(&pair, LARGE_MTU))?;
    step("the smallest packets, over IPv6", || all(&pair, SMALL_MTU))?;
    drop(pair);
    fixture.finish()
}
