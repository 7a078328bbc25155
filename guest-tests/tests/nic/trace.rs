//! The execution trace of a stock driver and a program between two guests.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use guest_harness::{NicOptions, Result, workspace_dir};
use serde_json::Value;

use crate::fixture::{Fixture, Setup, step};

/// Messages of the program in each direction.
const MESSAGES: usize = 200;

/// Runs the `trace` command over what the flight recorder has. Returns the summary.
fn trace(control: &Path, format: &str, output: &Path) -> Result<String> {
    let mut command = Command::new(NicOptions::program()?);
    command.args(["trace", "--recent", "--seconds", "0", "--format", format]);
    command.arg("--control-socket").arg(control).arg("--output").arg(output);
    let output = command.output().expect("the trace command runs");
    assert!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout).expect("the summary is text"))
}

/// Events of a trace, by id.
struct Events(Vec<Value>);

impl Events {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("the trace was written");
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("each line is JSON"));
        Self(lines.collect())
    }

    /// Names of an event and its causes, each with `*` if it is of another guest than the event.
    fn causes(&self, event: &Value) -> Vec<String> {
        let parent = |event: &&Value| self.0.get(event["parent"].as_u64()? as usize);
        let name = |cause: &Value| {
            let mark = if cause["guest"] == event["guest"] { "" } else { "*" };
            format!("{}{mark}", cause["event"].as_str().expect("an event has a name"))
        };
        std::iter::successors(Some(event), parent).map(name).collect()
    }

    fn of<'a>(&'a self, guest: &'a str, event: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0
            .iter()
            .filter(move |line| line["guest"] == guest && line["event"] == event)
    }
}

fn check_causes(events: &Events, client: &str) {
    let mut chains = HashMap::<Vec<String>, usize>::new();
    for cqe in events.of(client, "cqe") {
        *chains.entry(events.causes(cqe)).or_default() += 1;
    }
    let expected = [
        "cqe",
        "packet_in",
        "packet_out*",
        "packet_in*",
        "packet_out",
        "wqe",
        "doorbell",
    ];
    let sent = chains.get(&expected.map(str::to_owned)[..]).copied().unwrap_or(0);
    assert!(
        sent >= MESSAGES,
        "{sent} CQEs have the causes of an RC send: {chains:#?}"
    );
    let received = ["cqe", "packet_in", "packet_out*", "wqe*", "doorbell*"];
    let received = chains.get(&received.map(str::to_owned)[..]).copied().unwrap_or(0);
    assert!(received >= MESSAGES, "{received} CQEs are of a receive: {chains:#?}");
    // Commands of the driver end with an event and an interrupt.
    let interrupt = events
        .of(client, "interrupt")
        .find(|interrupt| events.causes(interrupt) == ["interrupt", "eqe", "command", "command_doorbell"]);
    assert!(interrupt.is_some(), "no command was followed by an interrupt");
    for command in ["INIT_HCA", "CREATE_QP", "RTR2RTS_QP"] {
        let found = events.of(client, "command").any(|line| line["label"] == command);
        assert!(found, "no {command}");
    }
}

/// Reads a trace with Perfetto's own descriptors.
fn check_perfetto(path: &Path, events: usize) {
    let python = env::var_os("VHOST_TEST_PERFETTO").expect("run scripts/test, which installs Perfetto's package");
    let script = workspace_dir().join("guest-tests/tests/nic/read_trace.py");
    let output = Command::new(python)
        .arg(script)
        .arg(path)
        .output()
        .expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).expect("the report is JSON");
    for field in ["unknown_fields", "open_slices", "loose_flows"] {
        assert_eq!(found[field], 0, "{field}: {found:#}");
    }
    assert!(found["events"].as_u64() >= Some(events as u64), "{found:#}");
    assert!(found["flows"].as_u64() >= Some(2 * MESSAGES as u64 * 6), "{found:#}");
    let tracks: Vec<&str> = found["tracks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for expected in [
        "nic-0/command_queue",
        "nic-1/command_queue",
        "nic-0/cq 0x",
        "nic-1/queue 0x",
    ] {
        assert!(
            tracks.iter().any(|track| track.starts_with(expected)),
            "no {expected}: {tracks:?}"
        );
    }
}

#[test]
fn a_trace_shows_where_the_time_of_a_send_went() -> Result<()> {
    let control = env::temp_dir().join(format!("nic-trace-{}", std::process::id()));
    let args = ["--flight-recorder", "--control-socket"].map(str::to_owned);
    let options = NicOptions::default().args(args).args([control.display().to_string()]);
    let fixture: Fixture = Setup::new("nic-trace", 2).options(options).start()?;
    step("ib_send_lat", || {
        let program = format!("ib_send_lat -d mlx5_0 -x 1 -F -I 0 -n {MESSAGES}");
        fixture
            .flow(1, 0)
            .converse_alike(&program, Duration::from_secs(120))
            .map(drop)
    })?;
    let logs = fixture.testbed().logs();
    let (json, perfetto) = (logs.join("trace.json"), logs.join("trace.pftrace"));
    let summary = trace(&control, "json", &json)?;
    println!("{summary}");
    assert!(
        summary.lines().next().is_some_and(|line| line.ends_with(" 0 lost")),
        "{summary}"
    );
    for stage in [
        "doorbell to WQE",
        "WQE to packet",
        "packet to peer",
        "packet to CQE",
        "CQE to EQE",
        "EQE to interrupt",
    ] {
        assert!(summary.contains(stage), "{stage}: {summary}");
    }
    let events = Events::read(&json);
    check_causes(&events, "nic-1");
    trace(&control, "perfetto", &perfetto)?;
    check_perfetto(&perfetto, events.0.len());
    fixture.finish()
}
