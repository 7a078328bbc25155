//! Perfetto's trace processor, which answers SQL about a trace.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, io};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::locate::workspace_dir;

/// The events of a trace with their guest and the name of their track.
const EVENTS: &str = "create perfetto table event as \
    select slice.id, category as name, slice.name as label, guest.name as guest, object.name as track, \
    ts + dur as end, dur, arg_set_id from slice \
    join track object on slice.track_id = object.id join track guest on object.parent_id = guest.id";

/// Asks Perfetto's trace processor about the trace of a daemon in a file. Returns for each query the rows of its
/// answer, maps from columns to values.
///
/// Besides Perfetto's tables there is `event`, with the columns `id` (as in `slice`), `name`, `label`, `guest`,
/// `track`, `end` and `dur` (nanoseconds), and `arg_set_id`.
pub fn query_trace(trace: &Path, queries: &[&str]) -> Result<Vec<Vec<Map<String, Value>>>> {
    let installed = |variable: &str| {
        env::var_os(variable).ok_or_else(|| Error::Missing {
            what: "Perfetto's trace processor".to_owned(),
            path: variable.into(),
            hint: "run scripts/test, which installs it".to_owned(),
        })
    };
    let io = |doing: &str| {
        let doing = doing.to_owned();
        move |source| Error::Io { doing, source }
    };
    let mut child = Command::new(installed("VHOST_TEST_PERFETTO")?)
        .arg(workspace_dir().join("guest-tests/tests/query_trace.py"))
        .arg(installed("VHOST_TEST_PERFETTO_ENGINE")?)
        .arg(trace)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io("run Python"))?;
    let queries: Vec<&str> = [EVENTS].iter().chain(queries).copied().collect();
    let request = serde_json::to_vec(&queries).map_err(|error| io("write the queries")(error.into()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&request).map_err(io("pass the queries to Python"))?;
    }
    let output = child.wait_with_output().map_err(io("wait for Python"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io("query the trace")(io::Error::other(text)));
    }
    let answers: Vec<_> =
        serde_json::from_slice(&output.stdout).map_err(|error| io("read the answers")(error.into()))?;
    // The table has none.
    Ok(answers.into_iter().skip(1).collect())
}

/// Asserts that the summary of a trace has a row with this name that is made of these times in nanoseconds.
///
/// # Panics
///
/// Panics if there is no such row, or no time.
#[track_caller]
pub fn assert_in_summary(summary: &str, name: &str, mut times: Vec<u64>) {
    assert!(!times.is_empty(), "no times of {name:?}");
    times.sort_unstable();
    // Nearest rank.
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1] as f64 / 1000.0;
    let numbers = [0, 50, 99].map(|percent| format!("{:.2}", at(percent)));
    let words = name.split_whitespace().map(ToOwned::to_owned);
    let row: Vec<String> = words.chain([times.len().to_string()]).chain(numbers).collect();
    let mut rows = summary.lines().map(|line| line.split_whitespace());
    assert!(
        rows.any(|shown| shown.eq(row.iter().map(String::as_str))),
        "no {row:?} in {summary}"
    );
}
