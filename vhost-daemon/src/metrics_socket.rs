//! The metrics socket: OpenMetrics text over HTTP/1.1, a request per connection.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::controlled::Controlled;
use crate::metrics::Metrics;
use crate::socket_server::{DOCUMENT_TIME, Serve, send_within};

/// Longest head of a request in bytes.
const MAX_HEAD: usize = 8192;
/// Time a client may take for its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers every connection with the metrics of its moment.
pub struct MetricsService<D>(Weak<D>);

/// Refusal of a request: status code and reason.
type Refusal = (u16, &'static str);

impl<D: Controlled> MetricsService<D> {
    /// Creates the service of a daemon, for as long as that exists.
    pub fn new(daemon: &Arc<D>) -> Self {
        Self(Arc::downgrade(daemon))
    }

    fn metrics(&self) -> Result<String, Refusal> {
        let daemon = self.0.upgrade().ok_or((503, "Service Unavailable"))?;
        let mut metrics = Metrics::new(&daemon.program().name.replace('-', "_"));
        daemon.metrics(&mut metrics);
        metrics.text().map_err(|_| (500, "Internal Server Error"))
    }
}

impl<D: Controlled> Serve for MetricsService<D> {
    fn serve(&self, stream: &UnixStream) -> io::Result<()> {
        let head = read_head(stream)?;
        let (status, content_type, body) = match check(&head).and_then(|()| self.metrics()) {
            Ok(text) => ("200 OK".to_owned(), OPEN_METRICS, text),
            Err((code, reason)) => (format!("{code} {reason}"), "text/plain", format!("{reason}\n")),
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        send_within(stream, &[head, body].concat().into_bytes(), DOCUMENT_TIME)
    }

    fn refuse(&self, mut stream: &UnixStream) -> io::Result<()> {
        stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    }
}

/// Reads a request up to the empty line behind its head, its longest length, or its end.
fn read_head(mut stream: &UnixStream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !is_complete(&head) && head.len() < MAX_HEAD {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part)? {
            0 => break,
            length => head.extend_from_slice(&part[..length]),
        }
    }
    Ok(head)
}

fn is_complete(head: &[u8]) -> bool {
    head.windows(4).any(|end| end == b"\r\n\r\n")
}

/// Checks that a request is one for the metrics.
fn check(head: &[u8]) -> Result<(), Refusal> {
    if !is_complete(head) && head.len() >= MAX_HEAD {
        return Err((431, "Request Header Fields Too Large"));
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    match words[..] {
        _ if !is_complete(head) => Err((400, "Bad Request")),
        [method, path, version] if version.starts_with(b"HTTP/1.") => match (method, path) {
            (b"GET", b"/" | b"/metrics") => Ok(()),
            (b"GET", _) => Err((404, "Not Found")),
            _ => Err((405, "Method Not Allowed")),
        },
        _ => Err((400, "Bad Request")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_for_the_metrics_passes() {
        let long = [b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'x'; MAX_HEAD]].concat();
        let cases: [(&[u8], Result<(), u16>); 11] = [
            (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Ok(())),
            (b"GET / HTTP/1.0\r\n\r\n", Ok(())),
            (b"GET /other HTTP/1.1\r\n\r\n", Err(404)),
            (b"POST /metrics HTTP/1.1\r\n\r\n", Err(405)),
            (b"GET /metrics HTTP/2\r\n\r\n", Err(400)),
            (b"GET /metrics\r\n\r\n", Err(400)),
            (b"GET  /metrics HTTP/1.1\r\n\r\n", Err(400)),
            (b"GET /metrics HTTP/1.1\r\n", Err(400)),
            (b"\xff\0\r\n\r\n", Err(400)),
            (b"", Err(400)),
            (&long, Err(431)),
        ];
        for (head, expected) in cases {
            let checked = check(head).map_err(|(code, _)| code);
            assert_eq!(checked, expected, "{:?}", head.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_head_is_read_in_parts_and_no_further_than_its_limit() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"GET / HTTP/1.1\r").unwrap();
        theirs.write_all(b"\n\r\n").unwrap();
        assert_eq!(read_head(&ours).unwrap(), b"GET / HTTP/1.1\r\n\r\n");
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[b'x'; 3 * MAX_HEAD]).unwrap();
        assert_eq!(read_head(&ours).unwrap().len(), MAX_HEAD);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"GET").unwrap();
        drop(theirs);
        assert_eq!(read_head(&ours).unwrap(), b"GET");
    }
}
