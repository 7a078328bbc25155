//! The PCIe account of stock drivers between two guests: transactions of each way to post a message.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{env, fs};

use guest_harness::{Job, NicOptions, Result, workspace_dir};
use serde_json::{Value, json};

use crate::fixture::{Fixture, Setup, step};

const PROGRAM: &str = include_str!("pcie_account.py");
const PATH: &str = "/tmp/pcie_account.py";
const PATIENCE: Duration = Duration::from_secs(300);
/// Messages of a measurement, and those of a list or up to a signaled one.
const MESSAGES: u64 = 64;
const LIST: u64 = 16;
const LISTS: u64 = MESSAGES / LIST;
/// Attempts at a measurement in which the host's scheduler cuts off no copy to a BlueFlame register.
const ATTEMPTS: usize = 5;
/// Model time of a round trip in nanoseconds: enough to stand out under emulation, where a store to a register takes a
/// tenth of a millisecond.
const ROUND_TRIP: u64 = 1_000_000;
/// Name of the place in the file of times.
const PLACE: &str = "two guests";
/// Place of bytes that depend on the driver: those of a receive WQE.
const STRIDE: u64 = 0;

/// Transactions of each kind: count and bytes.
type Account = BTreeMap<&'static str, (u64, u64)>;

/// Kinds of transactions and their places in the statistics of a queue pair. Those with a field in place of a pointer
/// are of the completion queue that the field names.
const HERE: [(&str, &str); 6] = [
    ("doorbell", "/pcie/doorbells"),
    ("BlueFlame", "/pcie/blue_flame"),
    ("WQE read", "/pcie/wqe_reads"),
    ("payload read", "/requester/payload/reads"),
    ("payload write", "/requester/payload/writes"),
    ("CQE", "send_cq"),
];
const THERE: [(&str, &str); 4] = [
    ("receive WQE read", "/responder/wqe_reads"),
    ("payload read, peer", "/responder/payload/reads"),
    ("payload write, peer", "/responder/payload/writes"),
    ("CQE, peer", "receive_cq"),
];

/// A way to post messages.
struct Method {
    name: &'static str,
    order: Value,
    /// Expected transactions: kind, count for all messages, bytes of each. Other kinds have none.
    expected: Vec<(&'static str, u64, u64)>,
}

impl Method {
    /// Expected transactions, for receive WQEs of `stride` bytes. Copies to a BlueFlame register of which the host's
    /// scheduler makes `doorbells` are a doorbell and a fetch each.
    fn expected(&self, doorbells: u64, stride: u64) -> Account {
        let none = HERE.iter().chain(&THERE).map(|(kind, _)| (*kind, (0, 0)));
        let some = self.expected.iter().map(|&(kind, count, bytes)| {
            let bytes = if bytes == STRIDE { stride } else { bytes };
            (kind, (count, count * bytes))
        });
        let mut account: Account = none.chain(some).collect();
        let (writes, _) = account["BlueFlame"];
        if writes > 0 {
            assert!(
                doorbells < MESSAGES / 2,
                "{}: {doorbells} copies were cut off",
                self.name
            );
            let blocks = writes / MESSAGES;
            let copied = (MESSAGES - doorbells) * blocks;
            account.insert("BlueFlame", (copied, copied * 64));
            account.insert("doorbell", (doorbells, doorbells * 8));
            account.insert("WQE read", (doorbells, doorbells * blocks * 64));
        }
        account
    }
}

const SHUT_UP_BLUE_FLAME: (&str, &str) = ("MLX5_SHUT_UP_BF", "1");
const NO_SCATTER: (&str, &str) = ("MLX5_SCATTER_TO_CQE", "0");
const LARGE_CQES: (&str, &str) = ("MLX5_CQE_SIZE", "128");

fn method(
    name: &'static str,
    mut order: Value,
    environment: &[(&str, &str)],
    expected: &[(&'static str, u64, u64)],
) -> Method {
    order["messages"] = json!(MESSAGES);
    order["environment"] = json!(environment.iter().copied().collect::<BTreeMap<_, _>>());
    Method {
        name,
        order,
        expected: expected.to_vec(),
    }
}

/// Methods by doorbell come first: a register that was copied to delays the doorbells of its next owner.
fn methods() -> Vec<Method> {
    const N: u64 = MESSAGES;
    let plain = [SHUT_UP_BLUE_FLAME];
    let (no_scatter, large) = ([SHUT_UP_BLUE_FLAME, NO_SCATTER], [SHUT_UP_BLUE_FLAME, LARGE_CQES]);
    let large_no_scatter = [SHUT_UP_BLUE_FLAME, NO_SCATTER, LARGE_CQES];
    let (doorbell, fetch, cqe) = (("doorbell", N, 8), ("WQE read", N, 64), ("CQE", N, 64));
    let written = ("payload write, peer", N, 28);
    let write = |fields: Value| merged(json!({"operation": "write", "size": 28}), fields);
    let send = |size: u64| json!({"operation": "send", "size": size});
    let read = |size: u64| json!({"operation": "read", "size": size, "signal_all": true});
    let (receive, received) = (("receive WQE read", N, STRIDE), ("CQE, peer", N, 64));
    vec![
        method(
            "write",
            write(json!({})),
            &plain,
            &[doorbell, fetch, ("payload read", N, 28), cqe, written],
        ),
        method(
            "write, inline",
            write(json!({"inline": true})),
            &plain,
            &[doorbell, fetch, cqe, written],
        ),
        method(
            "write, inline, list of 16",
            write(json!({"inline": true, "list": LIST})),
            &plain,
            &[("doorbell", LISTS, 8), ("WQE read", LISTS, LIST * 64), cqe, written],
        ),
        method(
            "write, inline, 1 in 16 signaled",
            write(json!({"inline": true, "signaled": LIST})),
            &plain,
            &[doorbell, fetch, ("CQE", LISTS, 64), written],
        ),
        method(
            "write, inline, list of 16, 1 in 16 signaled",
            write(json!({"inline": true, "list": LIST, "signaled": LIST})),
            &plain,
            &[
                ("doorbell", LISTS, 8),
                ("WQE read", LISTS, LIST * 64),
                ("CQE", LISTS, 64),
                written,
            ],
        ),
        method(
            "send of 32 bytes, `MLX5_SCATTER_TO_CQE=0`",
            send(32),
            &no_scatter,
            &[
                doorbell,
                fetch,
                ("payload read", N, 32),
                cqe,
                receive,
                ("payload write, peer", N, 32),
                received,
            ],
        ),
        method(
            "send of 32 bytes, scatter to CQE",
            send(32),
            &plain,
            &[doorbell, fetch, ("payload read", N, 32), cqe, receive, received],
        ),
        method(
            "send of 64 bytes, CQEs of 128, `MLX5_SCATTER_TO_CQE=0`",
            send(64),
            &large_no_scatter,
            &[
                doorbell,
                fetch,
                ("payload read", N, 64),
                cqe,
                receive,
                ("payload write, peer", N, 64),
                received,
            ],
        ),
        method(
            "send of 64 bytes, CQEs of 128, scatter to CQE",
            send(64),
            &large,
            &[
                doorbell,
                fetch,
                ("payload read", N, 64),
                cqe,
                receive,
                ("CQE, peer", N, 128),
            ],
        ),
        method(
            "read of 32 bytes, `MLX5_SCATTER_TO_CQE=0`",
            read(32),
            &no_scatter,
            &[
                doorbell,
                fetch,
                ("payload write", N, 32),
                cqe,
                ("payload read, peer", N, 32),
            ],
        ),
        method(
            "read of 32 bytes, scatter to CQE",
            read(32),
            &plain,
            &[doorbell, fetch, cqe, ("payload read, peer", N, 32)],
        ),
        method(
            "read of 64 bytes, CQEs of 128, scatter to CQE",
            read(64),
            &large,
            &[doorbell, fetch, ("CQE", N, 128), ("payload read, peer", N, 64)],
        ),
        method(
            "write, BlueFlame",
            write(json!({})),
            &[],
            &[("BlueFlame", N, 64), ("payload read", N, 28), cqe, written],
        ),
        method(
            "write, inline, BlueFlame",
            write(json!({"inline": true})),
            &[],
            &[("BlueFlame", N, 64), cqe, written],
        ),
        method(
            "write of 92 bytes, inline, BlueFlame",
            write(json!({"inline": true, "size": 92})),
            &[],
            &[("BlueFlame", 2 * N, 64), cqe, ("payload write, peer", N, 92)],
        ),
    ]
}

fn merged(mut fields: Value, more: Value) -> Value {
    for (name, value) in more.as_object().into_iter().flatten() {
        fields[name] = value.clone();
    }
    fields
}

/// Requester and responder in two guests.
struct Pair<'a> {
    fixture: &'a Fixture,
    driver: Job,
    _responder: Job,
}

impl<'a> Pair<'a> {
    fn start(fixture: &'a Fixture) -> Result<Self> {
        let [own, peer] = [0, 1].map(NicOptions::address);
        let run = |guest: usize, arguments: String| {
            let guest = fixture.guest(guest);
            guest.put_bytes(PROGRAM.as_bytes(), PATH, 0o644)?;
            let command = format!("exec python3 {PATH} {arguments}");
            guest.shell(&command).stdin("").spawn()
        };
        let responder = run(1, format!("answer {peer}"))?;
        responder.wait_line("ready", PATIENCE)?;
        Ok(Self {
            fixture,
            driver: run(0, format!("drive {own} {peer}"))?,
            _responder: responder,
        })
    }

    /// Sends a line to the requester and returns its answer.
    fn ask(&self, line: &str) -> Result<Value> {
        self.driver.write(format!("{line}\n").as_bytes())?;
        let line = self.driver.read_line(PATIENCE)?.unwrap_or_else(|| {
            let (_, errors) = self.driver.peek();
            panic!("no answer; {errors}")
        });
        Ok(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}")))
    }

    /// Posts messages. Returns their transactions, the bytes of a receive WQE, and the median time of a message in
    /// microseconds.
    fn measure(&self, order: &Value) -> Result<(Account, u64, f64)> {
        let pair = self.ask(&order.to_string())?;
        let accounts = || -> Result<(Account, u64)> {
            let (mut account, _) = self.account(0, &pair["requester"], &HERE)?;
            let (there, stride) = self.account(1, &pair["responder"], &THERE)?;
            account.extend(there);
            Ok((account, stride))
        };
        let (before, stride) = accounts()?;
        let median = self.ask("go")?["median_us"].as_f64().expect("a time");
        let (mut account, _) = accounts()?;
        self.ask("end")?;
        for (kind, (count, bytes)) in &mut account {
            let (counted, moved) = before[kind];
            (*count, *bytes) = (*count - counted, *bytes - moved);
        }
        Ok((account, stride, median))
    }

    /// Transactions of a queue pair so far, and the bytes of its receive WQEs.
    fn account(&self, guest: usize, number: &Value, kinds: &[(&'static str, &str)]) -> Result<(Account, u64)> {
        let stats = self.fixture.stats(guest)?;
        let (queues, cqs) = (&stats["hca"]["queues"], &stats["hca"]["cqs"]);
        let pair = &queues[number.to_string()]["pair"];
        let account = kinds.iter().map(|(kind, place)| {
            let transactions = match place.strip_prefix('/') {
                Some(_) => pair.pointer(place).expect("an account"),
                None => &cqs[pair[place].to_string()]["state"]["cqe_writes"],
            };
            let number = |field: &str| transactions[field].as_u64().expect("a number");
            (*kind, (number("count"), number("bytes")))
        });
        let log_stride = pair["receives"]["own"]["log_stride"].as_u64().expect("a receive queue");
        Ok((account.collect(), 1 << log_stride))
    }
}

/// Measures every method; asserts all transactions. Returns the accounts and the median times.
fn measure_all(fixture: &Fixture) -> Result<Vec<(&'static str, Account, f64)>> {
    let pair = Pair::start(fixture)?;
    let mut measured = Vec::new();
    for method in methods() {
        step(method.name, || {
            let (mut account, mut stride, mut median) = pair.measure(&method.order)?;
            for _ in 1..ATTEMPTS {
                if account["doorbell"] == method.expected(0, stride)["doorbell"] {
                    break;
                }
                (account, stride, median) = pair.measure(&method.order)?;
            }
            let (doorbells, _) = account["doorbell"];
            assert_eq!(account, method.expected(doorbells, stride), "{}", method.name);
            measured.push((method.name, account, median));
            Ok(())
        })?;
    }
    Ok(measured)
}

/// Transactions per message, as a fraction.
fn per_message(count: u64) -> String {
    match count {
        0 => "0".to_owned(),
        _ if count.is_multiple_of(MESSAGES) => (count / MESSAGES).to_string(),
        _ if MESSAGES.is_multiple_of(count) => format!("1/{}", MESSAGES / count),
        _ => format!("{count}/{MESSAGES}"),
    }
}

/// Prints the transactions per message as a table.
fn print_table(measured: &[(&'static str, Account, f64)]) {
    let kinds = || HERE.iter().chain(&THERE).map(|(kind, _)| *kind);
    println!("| method | {} |", kinds().collect::<Vec<_>>().join(" | "));
    println!("|---|{}", "---|".repeat(kinds().count()));
    for (name, account, _) in measured {
        let cells: Vec<String> = kinds().map(|kind| per_message(account[kind].0)).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
}

fn options(round_trip: u64) -> NicOptions {
    let options = NicOptions::default().args(["--pcie-latency".to_owned(), round_trip.to_string()]);
    NicOptions {
        guest_settings: vec!["blue-flame=on".to_owned()],
        ..options
    }
}

/// With `UPDATE=1`, the times replace those of guests in docs/pcie-account.tsv, from which a test of vhost-nic makes
/// the plot.
#[test]
fn each_method_costs_its_transactions() -> Result<()> {
    let mut data = String::new();
    for round_trip in [0, ROUND_TRIP] {
        let fixture = Setup::new("nic-pcie-account", 2).options(options(round_trip)).start()?;
        let measured = measure_all(&fixture)?;
        if round_trip == 0 {
            print_table(&measured);
        }
        for (name, _, median) in measured {
            data += &format!("{PLACE}\t{round_trip}\t{name}\t{median:.2}\n");
        }
        fixture.finish()?;
    }
    println!("{data}");
    if env::var_os("UPDATE").is_some() {
        let path = workspace_dir().join("docs/pcie-account.tsv");
        let old = fs::read_to_string(&path).expect("the file of times is readable");
        let others = old.lines().filter(|line| !line.starts_with(PLACE));
        let kept: String = others.map(|line| format!("{line}\n")).collect();
        fs::write(path, kept + &data).expect("the file of times is writable");
    }
    Ok(())
}
