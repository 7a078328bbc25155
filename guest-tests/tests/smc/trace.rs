//! The execution trace of two guests with SMC-D, in Perfetto's trace processor.

use std::path::Path;
use std::process::Command;

use guest_harness::{IsmOptions, Result, assert_in_summary, query_trace, workspace_dir};

/// Writes what the flight recorder of a daemon has to a file, and compares the times in the summary with those that
/// Perfetto's trace processor finds.
pub fn check_summary(control: &Path, trace: &Path) -> Result<()> {
    let mut command = Command::new(IsmOptions::program()?);
    command.args(["trace", "--recent", "--seconds", "0", "--control-socket"]);
    command.arg(control).arg("--output").arg(trace);
    let output = command.output().expect("the trace command runs");
    assert!(output.status.success(), "{output:?}");
    let summary = String::from_utf8(output.stdout).expect("the summary is text");
    println!("{summary}");
    let answers = query_trace(
        trace,
        &[
            LOSSES,
            "select deliver.end - bell.end as time from flow \
             cross join event bell on bell.id = slice_out cross join event deliver on deliver.id = slice_in \
             where bell.name = 'bell' and deliver.name = 'deliver'",
            "select dur as time from event where label glob 'ALLOC_FOR_PEER*' and name = 'request'",
            "select dur as time from event where label glob 'ATTACH*' and name = 'request'",
            "select dur as time from event where name = 'map'",
        ],
    )?;
    assert_eq!(answers[0], [], "the trace processor has lost something");
    let rows = ["bell to delivery", "ALLOC_FOR_PEER", "ATTACH", "map"];
    for (name, answer) in rows.iter().zip(&answers[1..]) {
        let times = answer.iter().map(|row| row["time"].as_u64().expect("a time"));
        assert_in_summary(&summary, name, times.collect());
    }
    Ok(())
}

/// Errors of the trace processor's import, and data that it lost.
const LOSSES: &str = "select name, value from stats where severity in ('error', 'data_loss') and value > 0";

#[test]
fn perfetto_answers_sql_about_the_trace_of_a_replay() -> Result<()> {
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("trace.pftrace");
    let record = workspace_dir().join("vhost-ism/tests/records/linux.record");
    let mut command = Command::new(IsmOptions::program()?);
    command.arg("replay").arg(record).arg("--trace").arg(&trace);
    let output = command.output().expect("the replay command runs");
    assert!(output.status.success(), "{output:?}");
    let answers = query_trace(
        &trace,
        &[
            LOSSES,
            "select sum(dur < 0) as open, sum(name = 'request') as requests, \
             sum(name = 'request' and dur > 0) as lasting from event",
            "select distinct guest || '/' || track as name from event",
            "select (select count(*) from event where name = 'bell') as bells, \
             (select count(*) from flow cross join event bell on bell.id = slice_out \
              cross join event deliver on deliver.id = slice_in where bell.name = 'bell' \
              and deliver.name = 'deliver' and bell.guest <> deliver.guest) as delivered",
            "select count(*) as n from event join args using (arg_set_id) \
             where name = 'request' and key = 'debug.status' and int_value = 0",
        ],
    )?;
    assert_eq!(answers[0], [], "the trace processor has lost something");
    let number = |answer: usize, column: &str| answers[answer][0][column].as_u64().expect("a number");
    assert_eq!(number(1, "open"), 0);
    let requests = number(1, "requests");
    assert!(requests > 0 && number(1, "lasting") == requests, "{:?}", answers[1]);
    assert!(number(4, "n") > 0, "no request is granted");
    assert!(number(3, "delivered") > 100, "{:?}", answers[3]);
    assert!(number(3, "bells") > 100, "{:?}", answers[3]);
    let tracks: Vec<&str> = answers[2].iter().filter_map(|row| row["name"].as_str()).collect();
    for guest in ["ism-0", "ism-1"] {
        for object in ["control_queue", "dmb 0x", "event_queue"] {
            let track = format!("{guest}/{object}");
            assert!(
                tracks.iter().any(|name| name.starts_with(&track)),
                "no {track}: {tracks:?}"
            );
        }
    }
    Ok(())
}
