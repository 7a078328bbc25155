use serde_json::json;

use super::super::subscription::QUEUE;
use super::*;

crate::findings! {
    /// Two kinds.
    enum Two {
        /// An error.
        Broken = Error "broken" {
            rule: "Nothing breaks.",
            source: "a page",
            answer: "none",
        },
        /// A suspicion.
        Odd = Suspicion "odd" {
            rule: "Nothing is odd.",
            source: "another page",
            answer: "none",
        },
    }
}

const QUEUE_7: Object = Object::new("queue", 7);

fn report(findings: &Findings<Two>, kind: Two, times: u64) {
    for number in 0..times {
        findings.report(kind, QUEUE_7, &number.to_be_bytes(), format_args!("number {number}"));
    }
}

#[test]
fn findings_are_counted_by_kind_and_severity() {
    let findings = Findings::<Two>::new("a");
    report(&findings, Two::Odd, 3);
    assert_eq!((findings.count(Two::Broken), findings.count(Two::Odd)), (0, 3));
    let json = serde_json::to_value(&findings).unwrap();
    assert_eq!(
        json,
        json!({ "guest_errors": { "broken": 0 }, "suspicions": { "odd": 3 } })
    );
    for (index, kind) in Two::ALL.iter().enumerate() {
        assert_eq!(kind.index(), index);
    }
}

#[test]
fn a_record_has_object_evidence_rule_and_source() {
    let findings = Findings::<Two>::new("a");
    findings.report(
        Two::Broken,
        QUEUE_7,
        &[0xab; MAX_EVIDENCE + 1],
        format_args!("it broke"),
    );
    let [record] = &findings.recent()[..] else {
        panic!("one record");
    };
    let mut json = serde_json::to_value(&**record).unwrap();
    assert!(json["time_unix_ns"].take().as_u64().unwrap() > 1 << 60);
    let expected = json!({
        "sequence": 0, "time_unix_ns": null, "guest": "a", "finding": "broken", "severity": "error",
        "rule": "Nothing breaks.", "source": "a page", "count": 1, "object": "queue", "number": 7,
        "text": "it broke", "evidence": "ab".repeat(MAX_EVIDENCE),
    });
    assert_eq!(json, expected);
}

#[test]
fn the_first_of_each_kind_and_the_latest_of_all_are_kept() {
    let findings = Findings::<Two>::new("a");
    report(&findings, Two::Odd, 1);
    report(&findings, Two::Broken, 1000);
    let sequences: Vec<u64> = findings.recent().iter().map(|record| record.sequence).collect();
    let expected: Vec<u64> = (0..=FIRST_OF_KIND).chain(1001 - LATEST as u64..1001).collect();
    assert_eq!(sequences, expected);
}

#[test]
fn a_slow_subscriber_loses_findings_and_is_told_how_many() {
    let findings = Findings::<Two>::new("a");
    let (fast, slow) = (Subscription::default(), Subscription::default());
    report(&findings, Two::Odd, 1);
    findings.subscribe(&fast);
    findings.subscribe(&slow);
    report(&findings, Two::Broken, 2);
    let sequences = |records: Vec<Arc<Record>>| -> Vec<u64> { records.iter().map(|record| record.sequence).collect() };
    let (records, dropped) = fast.take(Duration::ZERO);
    assert_eq!((sequences(records), dropped), (vec![1, 2], 0));
    drop(fast);
    report(&findings, Two::Broken, QUEUE as u64 + 5);
    let (records, dropped) = slow.take(Duration::ZERO);
    assert_eq!(
        (records.len(), records[QUEUE - 1].sequence, dropped),
        (QUEUE, QUEUE as u64, 7)
    );
    assert_eq!(slow.take(Duration::ZERO), (Vec::new(), 0));
    assert_eq!(
        findings.kept.lock().subscribers.len(),
        1,
        "the one dropped is forgotten"
    );
}

#[test]
fn log_lines_are_limited_to_one_per_interval() {
    let start = Instant::now();
    let mut limit = RateLimit::default();
    assert_eq!(limit.admit(start), Some(0), "the first is logged");
    for _ in 0..500 {
        assert_eq!(limit.admit(start + LOG_INTERVAL / 2), None);
    }
    assert_eq!(limit.admit(start + LOG_INTERVAL), Some(500));
    assert_eq!(limit.admit(start + LOG_INTERVAL), None);
    assert_eq!(limit.admit(start + 2 * LOG_INTERVAL), Some(1));
    assert_eq!(limit.admit(start + 9 * LOG_INTERVAL), Some(0));
}
