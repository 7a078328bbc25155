//! TAP 13 and 14 (testanything.org) and KTAP (Documentation/dev-tools/ktap.rst of Linux), which nest.
//!
//! The depth of a line is its indentation, and in the output of kselftest's runner each `# ` in front. A result below
//! which there are results is a suite: its tests count, it itself only if it failed while they did not.

use super::{Case, Verdict};

/// Whether the text has a version line, or a plan followed by a result.
pub fn is_present(text: &str) -> bool {
    let mut planned = false;
    text.lines().map(|line| Line::new(line).text).any(|line| {
        let version = ["TAP version ", "KTAP version "]
            .iter()
            .any(|head| line.strip_prefix(head).is_some_and(is_number));
        planned |= plan(line).is_some();
        version || planned && result(line).is_some()
    })
}

/// A line without what is in front of it.
struct Line<'a> {
    depth: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn new(line: &'a str) -> Self {
        let mut text = without_time(line);
        let mut depth = 0;
        loop {
            let rest = text.trim_start_matches([' ', '\t']);
            depth += text.len() - rest.len();
            // A comment, unless what follows is a line of a test below.
            match rest.strip_prefix("# ") {
                Some(below) if is_line(below.trim_start()) => {
                    depth += 2;
                    text = below;
                }
                _ => return Self { depth, text: rest },
            }
        }
    }
}

/// Removes the time that the kernel's log has in front.
fn without_time(line: &str) -> &str {
    let rest = line.strip_prefix('[').and_then(|line| line.split_once("] "));
    match rest {
        Some((time, rest)) if time.trim().parse::<f64>().is_ok() => rest,
        _ => line,
    }
}

fn is_line(text: &str) -> bool {
    let text = text.trim_start_matches("# ");
    result(text).is_some()
        || plan(text).is_some()
        || text.starts_with("TAP version ")
        || text.starts_with("KTAP version ")
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the number of tests of a plan, `1..N`, with its directive.
fn plan(line: &str) -> Option<(usize, &str)> {
    let rest = line.strip_prefix("1..")?;
    let (count, directive) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let directive = directive.trim_start();
    if !directive.is_empty() && !directive.starts_with('#') {
        return None;
    }
    Some((count.parse().ok()?, directive))
}

/// Returns number, name and verdict of a result.
fn result(line: &str) -> Option<(Option<usize>, String, Verdict)> {
    let (passed, rest) = match (line.strip_prefix("ok"), line.strip_prefix("not ok")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return None,
    };
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let rest = rest.trim();
    let (first, others) = rest.split_once(' ').unwrap_or((rest, ""));
    let (number, rest) = match first.parse() {
        Ok(number) => (Some(number), others.trim()),
        // Without a number, only as the specification has it: with a dash.
        Err(_) if first == "-" => (None, rest),
        Err(_) => return None,
    };
    let (name, directive) = split_directive(rest);
    let name = name.trim_start_matches("- ").trim();
    let (word, reason) = directive.split_once(char::is_whitespace).unwrap_or((directive, ""));
    let reason = reason.trim().to_owned();
    let verdict = match word.trim_end_matches(':').to_ascii_uppercase().as_str() {
        "SKIP" => Verdict::Skipped(reason),
        // Expected to fail, so neither a failure nor a success.
        "TODO" | "XFAIL" => Verdict::Skipped(format!("{} {reason}", word.to_ascii_lowercase()).trim().to_owned()),
        _ if passed => Verdict::Passed,
        _ => Verdict::Failed(directive.to_owned()),
    };
    Some((number, name.to_owned(), verdict))
}

/// Splits a description at its first `#` that is not escaped.
fn split_directive(text: &str) -> (&str, &str) {
    let mut escaped = false;
    for (index, letter) in text.char_indices() {
        if letter == '#' && !escaped {
            return (text[..index].trim_end(), text[index + 1..].trim());
        }
        escaped = letter == '\\' && !escaped;
    }
    (text, "")
}

/// Results at one depth that no result above has claimed yet.
struct Level {
    depth: usize,
    cases: Vec<Case>,
    /// Number of tests of the plan.
    planned: Option<usize>,
    results: usize,
    /// Diagnostics since the last result.
    output: String,
    bailed_out: bool,
}

impl Level {
    fn new(depth: usize) -> Self {
        Self {
            depth,
            cases: Vec::new(),
            planned: None,
            results: 0,
            output: String::new(),
            bailed_out: false,
        }
    }

    /// Ends the level: a test that was planned and has no result failed.
    fn close(mut self) -> Vec<Case> {
        let missing = self.planned.unwrap_or(0).saturating_sub(self.results);
        if missing > 0 && !self.bailed_out {
            let reason = format!("{missing} of {} planned tests have no result", self.results + missing);
            self.cases.push(Case::new("", "plan", Verdict::Failed(reason)));
        }
        self.cases
    }
}

/// Returns the tests of all reports in the text.
pub fn parse(text: &str) -> Vec<Case> {
    let mut levels: Vec<Level> = Vec::new();
    let mut cases = Vec::new();
    for line in text.lines() {
        let Line { depth, text } = Line::new(line);
        if text.starts_with("TAP version ") || text.starts_with("KTAP version ") {
            enter(&mut levels, depth);
            continue;
        }
        if let Some((count, directive)) = plan(text) {
            let level = enter(&mut levels, depth);
            level.planned = Some(count);
            if count == 0 && directive.to_ascii_uppercase().starts_with("# SKIP") {
                let reason = directive[6..].trim().to_owned();
                level.cases.push(Case::new("", "all", Verdict::Skipped(reason)));
            }
            continue;
        }
        if let Some(reason) = text.strip_prefix("Bail out!") {
            let level = enter(&mut levels, depth);
            level.bailed_out = true;
            let verdict = Verdict::Failed(reason.trim().to_owned());
            level.cases.push(Case::new("", "bail out", verdict));
            continue;
        }
        let Some((number, name, verdict)) = result(text) else {
            if let Some(level) = levels.last_mut()
                && !text.is_empty()
            {
                level.output.push_str(text.strip_prefix("# ").unwrap_or(text));
                level.output.push('\n');
            }
            continue;
        };
        let mut below = Vec::new();
        let mut output = String::new();
        while levels.last().is_some_and(|level| level.depth > depth) {
            let mut level = levels.pop().expect("there is a last level");
            output.insert_str(0, &std::mem::take(&mut level.output));
            below.splice(0..0, level.close());
        }
        let level = enter(&mut levels, depth);
        level.results += 1;
        output.insert_str(0, &std::mem::take(&mut level.output));
        let name = match (name.is_empty(), number) {
            (true, number) => format!("test {}", number.unwrap_or(level.results)),
            (false, _) => name,
        };
        add(level, below, name, verdict, output);
    }
    while let Some(level) = levels.pop() {
        cases.splice(0..0, level.close());
    }
    cases
}

/// Adds a result and the tests below it.
fn add(level: &mut Level, below: Vec<Case>, name: String, verdict: Verdict, output: String) {
    let explained = below.iter().any(|case| matches!(case.verdict, Verdict::Failed(_)));
    let is_suite = !below.is_empty();
    for mut case in below {
        case.suite = match case.suite.as_str() {
            "" => name.clone(),
            inner => format!("{name}.{inner}"),
        };
        level.cases.push(case);
    }
    if !is_suite || matches!(verdict, Verdict::Failed(_)) && !explained {
        let mut case = Case::new("", &name, verdict);
        case.output = output;
        level.cases.push(case);
    }
}

/// Returns the level of this depth; those below stay, as their suite's result is still to come.
fn enter(levels: &mut Vec<Level>, depth: usize) -> &mut Level {
    let at = levels.partition_point(|level| level.depth < depth);
    if levels.get(at).is_none_or(|level| level.depth != depth) {
        levels.insert(at, Level::new(depth));
    }
    &mut levels[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(cases: &[Case]) -> Vec<String> {
        let mark = |case: &Case| match &case.verdict {
            Verdict::Passed => "+".to_owned(),
            Verdict::Skipped(reason) => format!("~{reason}~"),
            Verdict::Failed(reason) => format!("-{reason}-"),
        };
        let line = |case: &Case| format!("{} {}/{}", mark(case), case.suite, case.name);
        cases.iter().map(line).collect()
    }

    /// KUnit on a kernel's console, as in Documentation/dev-tools/ktap.rst.
    #[test]
    fn nested_suites_of_kunit() {
        let text = "\
[    0.123456] KTAP version 1
[    0.123457] 1..2
[    0.123458]     KTAP version 1
[    0.123458]     # Subtest: example
[    0.123459]     1..3
[    0.123460]     # example_one: pass:1 fail:0
[    0.123460]     ok 1 example_one
[    0.123461]     # example_two: EXPECTATION FAILED at lib/x.c:12
[    0.123461]     not ok 2 example_two
[    0.123462]     ok 3 example_three # SKIP no hardware
[    0.123463] not ok 1 example
[    0.123464]     KTAP version 1
[    0.123465]     # Subtest: deep
[    0.123465]     1..1
[    0.123466]         KTAP version 1
[    0.123466]         # Subtest: deep_params
[    0.123467]         ok 1 value 1
[    0.123468]         ok 2 value 2
[    0.123469]     ok 1 deep_params
[    0.123470] ok 2 deep
";
        assert!(is_present(text));
        let cases = parse(text);
        assert_eq!(
            names(&cases),
            [
                "+ example/example_one",
                "- - example/example_two".replace("- -", "--").as_str(),
                "~no hardware~ example/example_three",
                "+ deep.deep_params/value 1",
                "+ deep.deep_params/value 2",
            ]
        );
        assert!(cases[1].output.contains("EXPECTATION FAILED at lib/x.c:12"));
    }

    /// The runner of kselftest prints the output of each test behind `# `.
    #[test]
    fn kselftest_with_the_output_of_its_tests() {
        let text = "\
TAP version 13
1..2
# timeout set to 45
# selftests: drivers/net: ping.py
# TAP version 13
# 1..3
# ok 1 ping.test_v4
# ok 2 ping.test_v6
# ok 3 ping.test_tcp # SKIP no socat
# # Totals: pass:2 fail:0 xfail:0 xpass:0 skip:1 error:0
ok 1 selftests: drivers/net: ping.py
# timeout set to 45
# selftests: drivers/net: stats.sh
# cannot open the device
not ok 2 selftests: drivers/net: stats.sh # exit=1
";
        let cases = parse(text);
        assert_eq!(
            names(&cases),
            [
                "+ selftests: drivers/net: ping.py/ping.test_v4",
                "+ selftests: drivers/net: ping.py/ping.test_v6",
                "~no socat~ selftests: drivers/net: ping.py/ping.test_tcp",
                "-exit=1- /selftests: drivers/net: stats.sh",
            ]
        );
        assert!(cases[3].output.ends_with("cannot open the device\n"), "{:?}", cases[3]);
    }

    /// TAP 14 has its subtests indented by four columns, before their result; the plan may come last.
    #[test]
    fn tap_14_with_subtests_and_yaml() {
        let text = "\
TAP version 14
# Subtest: foo.tap
    1..2
    ok 1
    ok 2 - this passed
ok 1 - foo.tap
not ok 2 - bar \\# baz
  ---
  message: 'expected 3'
  ...
not ok 3 - later # TODO not implemented
1..3
";
        let cases = parse(text);
        assert_eq!(
            names(&cases),
            [
                "+ foo.tap/test 1",
                "+ foo.tap/this passed",
                "-- /bar \\# baz",
                "~todo not implemented~ /later",
            ]
        );
    }

    #[test]
    fn tests_that_never_came_have_failed() {
        let died = parse("TAP version 13\n1..3\nok 1 one\n");
        assert_eq!(names(&died), ["+ /one", "-2 of 3 planned tests have no result- /plan"]);
        let bailed = parse("1..3\nok 1 one\nBail out! no device\n");
        assert_eq!(names(&bailed), ["+ /one", "-no device- /bail out"]);
        let skipped = parse("TAP version 13\n1..0 # SKIP no device\n");
        assert_eq!(names(&skipped), ["~no device~ /all"]);
    }

    #[test]
    fn a_suite_that_failed_while_its_tests_passed_counts() {
        let cases = parse("KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  ok 1 inner\nnot ok 1 suite\n");
        assert_eq!(names(&cases), ["+ suite/inner", "-- /suite"]);
    }
}
