//! Mistakes of programs in a guest: found, shown in a trace, and repeated by a replay of the record.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use guest_harness::{Guest, NicOptions, Result, query_trace};
use serde_json::{Value, json};

use crate::fixture::{Fixture, Setup, step};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/nic/seeded_bugs.c");
const PATH: &str = "/tmp/seeded_bugs";
const LIMIT: Duration = Duration::from_secs(60);
/// Messages of the program that writes WQEs itself: the last one is posted in the wrong order.
const MESSAGES: usize = 5;
/// `IBV_WC_LOC_QP_OP_ERR` and `IBV_WC_LOC_PROT_ERR` (rdma-core, libibverbs/verbs.h).
const LOC_QP_OP_ERR: u64 = 2;
const LOC_PROT_ERR: u64 = 4;

/// Compiles the programs; `scripts/test` installs what they include.
fn compile(directory: &Path) -> PathBuf {
    let program = directory.join("seeded_bugs");
    let output = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-Werror", SOURCE, "-o"])
        .arg(&program)
        .args(["-libverbs", "-lmlx5"])
        .output()
        .expect("cc runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "libibverbs-dev is needed: {errors}");
    program
}

/// Runs a program with a bug; returns what it says of its requester, key and completions.
fn run(guest: &Guest, bug: &str) -> Result<Value> {
    let output = guest.shell(&format!("{PATH} {bug}")).timeout(LIMIT).run()?.check()?;
    Ok(serde_json::from_str(&output.stdout).expect("the program prints JSON"))
}

/// Findings of one kind, as the control socket lists them.
fn findings(control: &Path, kind: &str) -> Vec<Value> {
    let mut command = Command::new(NicOptions::program().expect("the daemon is built"));
    command.args(["ctl", "--json", "--control-socket"]).arg(control);
    let output = command.arg("findings").output().expect("ctl runs");
    assert!(output.status.success(), "{output:?}");
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list of findings");
    all.into_iter().filter(|finding| finding["finding"] == kind).collect()
}

/// Replays the shortest part of a record that shows a finding. Returns what the command prints, and the file with the
/// trace.
fn replay(record: &Path, kind: &str) -> (String, PathBuf) {
    let trace = record.with_extension("pftrace");
    let mut command = Command::new(NicOptions::program().expect("the daemon is built"));
    command
        .arg("replay")
        .arg(record)
        .args(["--find", &format!("finding={kind}")]);
    let output = command
        .arg("--trace")
        .arg(&trace)
        .output()
        .expect("the replay command runs");
    let text = String::from_utf8(output.stdout).expect("the report is text");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    (text, trace)
}

/// Asserts that a trace has one finding of this kind, about this object, whose cause is an event of this name.
fn assert_traced(trace: &Path, kind: &str, number: u64, cause: &str) -> Result<()> {
    let finding = format!(
        "select event.guest, event.label, cause.name as cause, cause.guest as of \
         from event left join flow on flow.slice_in = event.id left join event cause on cause.id = flow.slice_out \
         where event.name = 'finding' and event.track = 'finding {kind}'"
    );
    let answers = query_trace(trace, &[&finding])?;
    let [rows] = &answers[..] else { panic!("{answers:?}") };
    let expected = json!([{
        "guest": "nic-0",
        "label": format!("{kind} {number:#x}"),
        "cause": cause,
        "of": "nic-0",
    }]);
    assert_eq!(json!(rows), expected);
    Ok(())
}

/// The finding that the program shows: with this evidence, and once.
fn expect(control: &Path, kind: &str, object: &str, number: u64, evidence: &str) {
    let found = findings(control, kind);
    let [finding] = &found[..] else {
        panic!("{kind}: {found:#?}")
    };
    assert_eq!(finding["guest"], "nic-0");
    assert_eq!(finding["count"], 1, "{finding:#}");
    assert_eq!(
        (&finding["object"], &finding["number"]),
        (&json!(object), &json!(number)),
        "{finding:#}"
    );
    assert_eq!(finding["evidence"], evidence, "{finding:#}");
}

/// The hexadecimal digits of 32-bit words in network byte order.
fn words(words: &[u64]) -> String {
    words.iter().map(|word| format!("{word:08x}")).collect()
}

/// Returns the number of the queue pair.
fn late_wqe(fixture: &Fixture, control: &Path) -> Result<u64> {
    let said = run(fixture.guest(0), "early-doorbell")?;
    let mut statuses = vec![0; MESSAGES];
    statuses[MESSAGES - 1] = LOC_QP_OP_ERR;
    assert_eq!(said["statuses"], json!(statuses));
    let qpn = said["qpn"].as_u64().expect("a number");
    // The doorbell: WQE index and opcode, queue pair and length. Then what is in memory: a block that was never used.
    let doorbell = words(&[((MESSAGES as u64 - 1) << 8) | 0x8, (qpn << 8) | 3]);
    expect(
        control,
        "doorbell_before_wqe",
        "queue",
        qpn,
        &(doorbell + &words(&[0; 4])),
    );
    Ok(qpn)
}

/// Returns the key.
fn key_under_read(fixture: &Fixture, control: &Path) -> Result<u64> {
    let said = run(fixture.guest(0), "key-under-read")?;
    assert_eq!(said["statuses"], json!([LOC_PROT_ERR]));
    let found = findings(control, "stale_key");
    let [finding] = &found[..] else { panic!("{found:#?}") };
    let key = said["key"].as_u64().expect("a number");
    assert!(
        finding["evidence"].as_str().expect("bytes").contains(&words(&[key])),
        "{finding:#}"
    );
    Ok(key)
}

#[test]
fn mistakes_of_programs_are_found_and_repeated() -> Result<()> {
    let control = env::temp_dir().join(format!("nic-seeded-{}", std::process::id()));
    let options = NicOptions::default()
        .recorded()
        .args(["--control-socket".to_owned(), control.display().to_string()]);
    let fixture = Setup::new("nic-seeded-bugs", 1).options(options).start()?;
    let program = compile(fixture.testbed().logs());
    fixture.guest(0).put(&program, PATH)?;
    let mut numbers = [0; 2];
    step("a doorbell before its WQE", || {
        numbers[0] = late_wqe(&fixture, &control)?;
        Ok(())
    })?;
    step("a key that is destroyed under a read", || {
        numbers[1] = key_under_read(&fixture, &control)?;
        Ok(())
    })?;
    let logs = fixture.finish_with_logs()?;
    let record = logs.join(NicOptions::record(0));
    // The data of the read find the key gone.
    let kinds = [("doorbell_before_wqe", "doorbell"), ("stale_key", "packet_in")];
    for ((kind, cause), number) in kinds.into_iter().zip(numbers) {
        let (text, trace) = replay(&record, kind);
        assert!(text.contains(&format!("finding {kind} in entry")), "{text}");
        assert!(text.contains("\nall outputs are equal\n"), "{text}");
        assert_traced(&trace, kind, number, cause)?;
    }
    fs::remove_dir_all(logs).expect("the logs can be removed");
    Ok(())
}
