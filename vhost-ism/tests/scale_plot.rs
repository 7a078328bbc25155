//! The plot and the table in docs/ism-scale.md: what a request costs beside guests and DMBs.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Sizes in pixels.
const WIDTH: usize = 960;
const PANEL: f64 = 400.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 50.0;
const TOP: f64 = 60.0;
/// Colours of the requests, readable on light and on dark ground.
const COLOURS: [&str; 4] = ["#7a8ba3", "#d98032", "#5a9a68", "#a05a9a"];
const UNIT: &str = ", us";

/// A row of the data.
#[derive(Clone, Copy)]
struct Value<'a> {
    beside: &'a str,
    count: u32,
    what: &'a str,
    value: f64,
}

fn parse(data: &str) -> Vec<Value<'_>> {
    let mut lines = data.lines();
    assert_eq!(lines.next(), Some("beside\tcount\twhat\tvalue"));
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [beside, count, what, value] = fields[..] else {
                panic!("{line:?} has four fields");
            };
            Value {
                beside,
                count: count.parse().unwrap(),
                what,
                value: value.parse().unwrap(),
            }
        })
        .collect()
}

/// The values of a list without repetition, in the order of their first appearance.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

/// Those of one panel: times of requests.
fn times<'a>(values: &[Value<'a>], beside: &str) -> Vec<Value<'a>> {
    let is_time = |value: &&Value<'_>| value.beside == beside && value.what.ends_with(UNIT);
    values.iter().filter(is_time).copied().collect()
}

/// A panel: the counts one after another, the times from 0.
fn panel(beside: &str, times: &[Value<'_>]) -> String {
    let counts = distinct(times.iter().map(|value| value.count));
    let highest = times.iter().map(|value| value.value).fold(0.0, f64::max).ceil();
    let x = |count: u32| {
        let place = counts.iter().position(|other| *other == count).unwrap();
        LEFT + place as f64 * (PANEL - 20.0) / (counts.len() - 1) as f64
    };
    let y = |value: f64| TOP + HEIGHT * (1.0 - value / highest);
    let mut out = format!("<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">Microseconds beside {beside}</text>\n");
    for value in [0.0, highest / 2.0, highest] {
        let (at, right) = (y(value), LEFT + PANEL);
        writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#80808040\"/><text x=\"{}\" \
             y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            LEFT - 6.0,
            at + 4.0
        )
        .unwrap();
    }
    for &count in &counts {
        let (at, below) = (x(count), TOP + HEIGHT + 18.0);
        writeln!(
            out,
            "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{count}</text>"
        )
        .unwrap();
    }
    for (what, colour) in distinct(times.iter().map(|value| value.what)).into_iter().zip(COLOURS) {
        let of_what = times.iter().filter(|value| value.what == what);
        let points: Vec<String> = of_what
            .map(|value| format!("{:.1},{:.1}", x(value.count), y(value.value)))
            .collect();
        writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        )
        .unwrap();
    }
    out
}

fn plot(values: &[Value<'_>]) -> String {
    let panels = ["DMBs", "guests"].map(|beside| panel(beside, &times(values, beside)));
    let whats = distinct(times(values, "DMBs").into_iter().map(|value| value.what));
    let mut legend = String::new();
    for (place, (what, colour)) in whats.iter().zip(COLOURS).enumerate() {
        let x = LEFT as usize + place * 190;
        writeln!(
            legend,
            "<rect x=\"{x}\" y=\"34\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"44\">{}</text>",
            x + 18,
            what.trim_end_matches(UNIT)
        )
        .unwrap();
    }
    let [left, right] = panels;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#808080\">\n{legend}{left}<g transform=\"translate({} 0)\">\n{right}</g>\n</svg>\n",
        TOP + HEIGHT + 30.0,
        LEFT + PANEL
    )
}

/// The rows of the table: a line for each count, a column for each value.
fn table(values: &[Value<'_>], beside: &str) -> String {
    let of_kind: Vec<&Value<'_>> = values.iter().filter(|value| value.beside == beside).collect();
    let whats = distinct(of_kind.iter().map(|value| value.what));
    let mut out = format!(
        "\n| {beside} | {} |\n|---|{}\n",
        whats.join(" | "),
        "---|".repeat(whats.len())
    );
    for count in distinct(of_kind.iter().map(|value| value.count)) {
        let cell = |what: &&str| {
            let found = of_kind
                .iter()
                .rfind(|value| value.count == count && value.what == *what);
            found.map_or(String::new(), |value| format!("{}", value.value))
        };
        let cells: Vec<String> = whats.iter().map(cell).collect();
        writeln!(out, "| {count} | {} |", cells.join(" | ")).unwrap();
    }
    out
}

fn page(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).join(name)
}

#[track_caller]
fn compare(name: &str, wanted: &str) {
    let path = page(name);
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, wanted).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(committed, wanted, "UPDATE=1 rewrites {}", path.display());
}

/// The data are measured by the benchmark `scale`.
#[test]
fn plot_and_tables_show_the_data() {
    let data = fs::read_to_string(page("ism-scale.tsv")).unwrap();
    let values = parse(&data);
    compare("ism-scale.svg", &plot(&values));
    let text = fs::read_to_string(page("ism-scale.md")).unwrap();
    let (begin, end) = ("<!-- tables -->\n", "\n<!-- end -->");
    let (before, rest) = text.split_once(begin).expect("a place for the tables");
    let (_, after) = rest.split_once(end).expect("an end of the tables");
    let tables: String = distinct(values.iter().map(|value| value.beside))
        .into_iter()
        .map(|beside| table(&values, beside))
        .collect();
    compare("ism-scale.md", &format!("{before}{begin}{tables}{end}{after}"));
}
