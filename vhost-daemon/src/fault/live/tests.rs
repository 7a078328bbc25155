use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::*;
use crate::fault::{Delay, Rule, When};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum TestFault {
    Loss,
    Late { delay: Delay },
}

impl Kind for TestFault {
    fn door(&self) -> u32 {
        match self {
            Self::Loss => 0,
            Self::Late { .. } => 1,
        }
    }

    fn object_name(&self, object: u32) -> Option<String> {
        (object == 5).then(|| "five".to_owned())
    }
}

fn faults(plan: &str) -> Arc<Faults<TestFault>> {
    let faults = Faults::new(vec!["a".to_owned(), "b".to_owned()]).unwrap();
    faults.apply(Plan::from_toml(plan).unwrap()).unwrap();
    faults
}

fn loss(fault: &TestFault) -> Option<()> {
    (*fault == TestFault::Loss).then_some(())
}

#[test]
fn a_plan_is_parsed_and_reported_as_it_was_written() {
    let text = r#"
        seed = 7
        [[fault]]
        kind = "late"
        delay = "1s 500ms"
        guest = "a"
        object = 5
        skip = 2
        count = 3
        probability = 0.5
        [[fault]]
        kind = "loss"
    "#;
    let plan = Plan::<TestFault>::from_toml(text).unwrap();
    let delay = Delay(Duration::from_millis(1500));
    let expected = Rule {
        when: When {
            guest: Some("a".to_owned()),
            object: Some(5),
            skip: 2,
            count: Some(3),
            probability: 0.5,
        },
        fault: TestFault::Late { delay },
    };
    assert_eq!((plan.seed, &plan.rules[0]), (7, &expected));
    assert_eq!(plan.rules[1].when, When::default());
    let report = serde_json::to_value(faults(text).report()).unwrap();
    let expected = serde_json::json!({
        "occasions": 0, "strikes": 0, "guest": "a", "object": 5, "skip": 2, "count": 3, "probability": 0.5,
        "kind": "late", "delay": "1s 500ms",
    });
    assert_eq!(report[0], expected);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let set = faults("[[fault]]\nkind = \"loss\"");
    for (text, error) in [
        (
            "[[fault]]\nkind = \"loss\"\nguest = \"c\"",
            "fault 0: there is no guest \"c\"",
        ),
        (
            "[[fault]]\nkind = \"loss\"\nprobability = 1.5",
            "fault 0: a probability is from 0 to 1",
        ),
    ] {
        let refused = set.apply(Plan::from_toml(text).unwrap()).unwrap_err();
        assert_eq!(refused.to_string(), error);
    }
    for text in [
        "[[fault]]\nkind = \"loss\"\ncuont = 1",
        "[[fault]]\nkind = \"los\"",
        "[[fault]]\nkind = \"late\"\ndelay = \"soon\"",
        "[[fault]]\ncount = 1",
        "sed = 1",
    ] {
        assert!(Plan::<TestFault>::from_toml(text).is_err(), "{text}");
    }
    assert_eq!(set.report().len(), 1);
}

#[test]
fn a_rule_strikes_after_skip_and_up_to_count_for_its_guest_and_object() {
    let set = faults("[[fault]]\nkind = \"loss\"\nguest = \"a\"\nobject = 5\nskip = 2\ncount = 3");
    let (a, b) = (GuestFaults::new(&set, "a"), GuestFaults::new(&set, "b"));
    assert!(a.armed(0) && !a.armed(1));
    let strikes: Vec<bool> = (0..8).map(|_| a.strike(5, loss).is_some()).collect();
    assert_eq!(strikes, [false, false, true, true, true, false, false, false]);
    assert!(a.strike(6, loss).is_none() && b.strike(5, loss).is_none());
    let report = &set.report()[0];
    assert_eq!((report.occasions, report.strikes), (8, 3));
    assert_eq!(
        (report.last_object, report.last_object_name.as_deref()),
        (Some(5), Some("five"))
    );
    set.apply(Plan::from_toml("").unwrap()).unwrap();
    assert!(!a.armed(0) && set.report().is_empty());
}

#[test]
fn a_seed_gives_the_same_strikes_again_and_another_seed_others() {
    let strikes = |seed: u64| -> Vec<bool> {
        let set = faults(&format!("seed = {seed}\n[[fault]]\nkind = \"loss\"\nprobability = 0.3"));
        let guest = GuestFaults::new(&set, "a");
        (0..1000).map(|_| guest.strike(0, loss).is_some()).collect()
    };
    assert_eq!(strikes(1), strikes(1));
    assert_ne!(strikes(1), strikes(2));
    let number = strikes(1).iter().filter(|strike| **strike).count();
    assert!((200..400).contains(&number), "{number} of 1000 at 0.3");
}

#[test]
fn later_work_is_done_in_the_order_of_its_times() {
    let later = Later::start().unwrap();
    let (sender, receiver) = mpsc::channel();
    let begin = Instant::now() + Duration::from_millis(100);
    // Before any of it is due, or else the first is done at once.
    for (delay, value) in [(30, 3), (10, 1), (20, 2)] {
        let sender = sender.clone();
        assert!(later.at(begin + Duration::from_millis(delay), move || {
            sender.send(value).unwrap()
        }));
    }
    drop(sender);
    assert_eq!(receiver.iter().collect::<Vec<i32>>(), [1, 2, 3]);
}
