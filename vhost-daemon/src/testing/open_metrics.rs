//! A strict reader of OpenMetrics text over HTTP, independent of the library that writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Sends bytes to a metrics socket and returns the whole answer.
#[track_caller]
pub fn http(socket: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).expect("the metrics socket is served");
    stream.write_all(request).expect("the request can be sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer is text");
    answer
}

/// Returns the samples of a metrics socket: values by name and labels, as in `name{label="value"}`.
///
/// # Panics
///
/// Panics if the answer is not HTTP, or not of the format (OpenMetrics 1.0, "Text Format"): families with HELP and TYPE
/// in front of their samples and in one piece, names of their types, no sample twice, and `# EOF` at the end.
#[track_caller]
pub fn read_metrics(socket: &Path) -> BTreeMap<String, u64> {
    let answer = http(socket, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("the head ends");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{head}"
    );
    assert!(
        head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
        "{head}"
    );
    let body = body.strip_suffix("# EOF\n").expect("the last line is # EOF");
    let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
    let (mut family, mut suffix) = (String::new(), "");
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a family has a help");
            assert!(families.insert(name.to_owned()) && !help.is_empty(), "{line}");
            family = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a family has a type");
            assert_eq!(name, family, "{line}");
            suffix = if kind == "counter" { "_total" } else { "" };
            assert!(matches!(kind, "counter" | "gauge"), "{line}");
        } else {
            let (key, value) = line.rsplit_once(' ').expect("a sample has a value");
            let (name, labels) = key.split_at(key.find('{').unwrap_or(key.len()));
            assert_eq!(name, format!("{family}{suffix}"), "{line}");
            assert!(labels.is_empty() || labels.ends_with("\"}"), "{line}");
            let value = value.parse().expect("the value is a number");
            assert!(samples.insert(key.to_owned(), value).is_none(), "{line}");
        }
    }
    samples
}
