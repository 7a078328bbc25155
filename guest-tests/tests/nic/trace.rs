//! The execution trace of a stock driver and a program between two guests.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use guest_harness::{NicOptions, Result, assert_in_summary, query_trace, workspace_dir};
use serde_json::{Map, Value};

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
fn check_fields(path: &Path) {
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
}

/// SQL that counts the events at the end of a chain, in which each leads to the next by a flow. A name with `*` is of
/// another guest than the first.
///
/// CROSS JOIN keeps the order of the tables: any other takes minutes.
fn count_chains(names: &[&str]) -> String {
    let mut sql = format!("select count(distinct e{}.id) as n from event e0", names.len() - 1);
    for (index, name) in names.iter().enumerate().skip(1) {
        let cause = index - 1;
        let (name, guest) = match name.strip_suffix('*') {
            Some(name) => (name, "<>"),
            None => (*name, "="),
        };
        sql += &format!(
            " cross join flow f{index} on f{index}.slice_out = e{cause}.id \
             cross join event e{index} on e{index}.id = f{index}.slice_in \
             and e{index}.name = '{name}' and e{index}.guest {guest} e0.guest"
        );
    }
    sql + &format!(" where e0.name = '{}'", names[0])
}

/// The way of a send over RC, of its receive, of a frame to an interrupt, and of a command: the least number of events
/// at the end.
const CHAINS: [(&[&str], usize); 5] = [
    (
        &[
            "doorbell",
            "wqe",
            "packet_out",
            "packet_in*",
            "packet_out*",
            "packet_in",
            "cqe",
        ],
        2 * MESSAGES,
    ),
    (&["doorbell", "wqe", "packet_out", "packet_in*", "cqe*"], 2 * MESSAGES),
    (
        &[
            "doorbell",
            "wqe",
            "packet_out",
            "packet_in*",
            "cqe*",
            "eqe*",
            "interrupt*",
        ],
        1,
    ),
    (&["doorbell", "frame_wqe", "frame_in*", "cqe*", "eqe*", "interrupt*"], 1),
    (&["command_doorbell", "command", "eqe", "interrupt"], 50),
];

/// Stages of the summary, and the events that they are between.
const STAGES: [(&str, &str, &str); 10] = [
    ("doorbell to WQE", "doorbell", "wqe"),
    ("WQE to packet", "wqe", "packet_out"),
    ("packet to peer", "packet_out", "packet_in"),
    ("packet to CQE", "packet_in", "cqe"),
    ("doorbell to frame WQE", "doorbell", "frame_wqe"),
    ("frame WQE to peer", "frame_wqe", "frame_in"),
    ("frame to CQE", "frame_in", "cqe"),
    ("CQE to EQE", "cqe", "eqe"),
    ("command to EQE", "command", "eqe"),
    ("EQE to interrupt", "eqe", "interrupt"),
];

/// Asks Perfetto's trace processor about a trace, whose summary is given.
fn check_sql(path: &Path, events: usize, summary: &str) -> Result<()> {
    let mut queries = vec![
        "select name, value from stats where severity in ('error', 'data_loss') and value > 0".to_owned(),
        "select count(*) as n, sum(dur < 0) as open from event".to_owned(),
        "select distinct guest || '/' || track as name from event".to_owned(),
        // Arguments: those of the events are the labels of the JSON.
        "select count(*) as n from event join args using (arg_set_id) where name = 'wqe' \
         and key = 'debug.packets' and int_value = 1"
            .to_owned(),
        "select cause.name as cause, effect.name as effect, effect.end - cause.end as time from flow \
         cross join event cause on cause.id = slice_out cross join event effect on effect.id = slice_in"
            .to_owned(),
    ];
    queries.extend(CHAINS.iter().map(|(names, _)| count_chains(names)));
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let answers = query_trace(path, &queries)?;
    assert_eq!(answers[0], [], "the trace processor has lost something");
    let count = |answer: &[Map<String, Value>], column: &str| answer[0][column].as_u64().expect("a number");
    assert!(count(&answers[1], "n") >= events as u64, "{:?}", answers[1]);
    assert_eq!(count(&answers[1], "open"), 0);
    let tracks: Vec<&str> = answers[2].iter().filter_map(|row| row["name"].as_str()).collect();
    for guest in ["nic-0", "nic-1"] {
        for object in ["command_queue", "queue 0x", "cq 0x", "eq", "vector", "dma cqe"] {
            let track = format!("{guest}/{object}");
            assert!(
                tracks.iter().any(|name| name.starts_with(&track)),
                "no {track}: {tracks:?}"
            );
        }
    }
    assert!(count(&answers[3], "n") >= 2 * MESSAGES as u64, "{:?}", answers[3]);
    for ((names, least), answer) in CHAINS.iter().zip(&answers[5..]) {
        assert!(count(answer, "n") >= *least as u64, "{names:?}: {answer:?}");
    }
    for (stage, cause, effect) in STAGES {
        let of_stage = |row: &&Map<String, Value>| row["cause"] == cause && row["effect"] == effect;
        let times = answers[4].iter().filter(of_stage);
        let times = times.map(|row| row["time"].as_u64().expect("a time")).collect();
        assert_in_summary(summary, stage, times);
    }
    Ok(())
}

#[test]
fn a_trace_shows_where_the_time_of_a_send_went() -> Result<()> {
    let control = env::temp_dir().join(format!("nic-trace-{}", std::process::id()));
    let args = ["--flight-recorder", "--control-socket"].map(str::to_owned);
    let options = NicOptions::default().args(args).args([control.display().to_string()]);
    let fixture: Fixture = Setup::new("nic-trace", 2).options(options).start()?;
    step("ib_send_lat", || {
        let program = format!("ib_send_lat -d mlx5_0 -x 3 -F -I 0 -n {MESSAGES}");
        fixture
            .flow(1, 0)
            .converse_alike(&program, Duration::from_secs(120))
            .map(drop)
    })?;
    step("ibv_rc_pingpong, with events", || {
        let program = "ibv_rc_pingpong -d mlx5_0 -g 3 -c -e -n 20";
        fixture
            .flow(1, 0)
            .converse_alike(program, Duration::from_secs(120))
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
    let summary = trace(&control, "perfetto", &perfetto)?;
    check_fields(&perfetto);
    check_sql(&perfetto, events.0.len(), &summary)?;
    fixture.finish()
}
