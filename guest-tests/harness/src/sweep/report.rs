//! Results of a sweep as a table.

use super::Outcome;

/// Result of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Position of the occasion that failed, from 1.
    pub number: u64,
    /// Name of what failed: opcode of a command, purpose of an access, or CQE.
    pub object: String,
    /// Outcome.
    pub outcome: Outcome,
    /// Log of the kernel during the step.
    pub log: String,
}

impl Step {
    /// Prints the step to standard error, with the log if it went badly.
    pub fn print(&self) {
        eprintln!("{}: {}: {}", self.number, self.object, self.outcome.name());
        if self.outcome.is_bad() {
            eprintln!("{}", self.log);
        }
    }
}

const OUTCOMES: [Outcome; 5] = [
    Outcome::Recovered,
    Outcome::FailedCleanly,
    Outcome::Hung,
    Outcome::Splat,
    Outcome::Broken,
];

/// Returns the number of steps with each outcome, in words.
pub fn summary(steps: &[Step]) -> String {
    let counts = OUTCOMES.iter().filter_map(|outcome| {
        let count = steps.iter().filter(|step| step.outcome == *outcome).count();
        (count > 0).then(|| format!("{count} {}", outcome.name()))
    });
    format!("{} steps: {}", steps.len(), counts.collect::<Vec<_>>().join(", "))
}

/// Returns the steps as a table in Markdown: a row for each object, with the numbers of its steps by outcome.
pub fn table(steps: &[Step]) -> String {
    let mut objects: Vec<&str> = Vec::new();
    for step in steps {
        if !objects.contains(&step.object.as_str()) {
            objects.push(&step.object);
        }
    }
    let mut table = "| object | recovered | failed cleanly | other |\n|---|---|---|---|\n".to_owned();
    for object in objects {
        let of = |outcome: Outcome| {
            let alike = steps
                .iter()
                .filter(|step| step.object == object && step.outcome == outcome);
            ranges(alike.map(|step| step.number))
        };
        let others = OUTCOMES
            .iter()
            .filter(|outcome| outcome.is_bad())
            .filter_map(|outcome| {
                let numbers = of(*outcome);
                (!numbers.is_empty()).then(|| format!("{}: {numbers}", outcome.name()))
            });
        table += &format!(
            "| `{object}` | {} | {} | {} |\n",
            of(Outcome::Recovered),
            of(Outcome::FailedCleanly),
            others.collect::<Vec<_>>().join("; ")
        );
    }
    table
}

/// Returns ascending numbers as a list, those that follow each other as `first–last`.
fn ranges(numbers: impl Iterator<Item = u64>) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let texts = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}–{last}"),
    });
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_listed_by_object_and_outcome() {
        let step = |number, object: &str, outcome| Step {
            number,
            object: object.to_owned(),
            outcome,
            log: String::new(),
        };
        let steps = [
            step(1, "CREATE_CQ", Outcome::FailedCleanly),
            step(2, "CREATE_CQ", Outcome::FailedCleanly),
            step(3, "DESTROY_QP", Outcome::Splat),
            step(4, "CREATE_CQ", Outcome::Recovered),
            step(5, "DESTROY_QP", Outcome::Hung),
            step(6, "CREATE_CQ", Outcome::FailedCleanly),
        ];
        let rows = "| object | recovered | failed cleanly | other |\n|---|---|---|---|\n\
                    | `CREATE_CQ` | 4 | 1–2, 6 |  |\n\
                    | `DESTROY_QP` |  |  | hung: 5; splat: 3 |\n";
        assert_eq!(table(&steps), rows);
        let counts = "6 steps: 1 recovered, 3 failed cleanly, 1 hung, 1 splat";
        assert_eq!(summary(&steps), counts);
    }
}
