//! The plot in docs/pcie-account.md: the time of a message by the way in which it is posted.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Sizes in pixels.
const WIDTH: usize = 960;
const LABELS: usize = 400;
const BARS: f64 = 440.0;
const BAR: usize = 13;
const GAP: usize = 12;
const TOP: usize = 64;
/// Colours of the round trips, readable on light and on dark ground.
const COLOURS: [&str; 4] = ["#7a8ba3", "#d98032", "#5a9a68", "#a05a9a"];

/// A row of the data.
struct Time<'a> {
    place: &'a str,
    round_trip_ns: u64,
    method: &'a str,
    time_us: f64,
}

fn parse(data: &str) -> Vec<Time<'_>> {
    let mut lines = data.lines();
    assert_eq!(lines.next(), Some("place\tround_trip_ns\tmethod\ttime_us"));
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [place, round_trip, method, median] = fields[..] else {
                panic!("{line:?} has four fields");
            };
            Time {
                place,
                round_trip_ns: round_trip.parse().unwrap(),
                method,
                time_us: median.parse().unwrap(),
            }
        })
        .collect()
}

/// The values of a list without repetition, in the order of their first appearance.
fn distinct<T: PartialEq + Copy>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

/// A panel for each place, one below the other: the times of a place have a scale of their own.
fn plot(times: &[Time<'_>]) -> String {
    let places = distinct(times.iter().map(|time| time.place));
    let (mut panels, mut top) = (String::new(), 0);
    for place in places {
        let of_place: Vec<&Time<'_>> = times.iter().filter(|time| time.place == place).collect();
        let (panel, height) = plot_place(place, &of_place);
        writeln!(panels, "<g transform=\"translate(0 {top})\">\n{panel}</g>").unwrap();
        top += height;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#808080\">\n{panels}</svg>\n"
    )
}

/// Returns the panel of a place, and its height.
fn plot_place(place: &str, times: &[&Time<'_>]) -> (String, usize) {
    let methods = distinct(times.iter().map(|time| time.method));
    let round_trips = distinct(times.iter().map(|time| time.round_trip_ns));
    let longest = times.iter().map(|time| time.time_us).fold(0.0, f64::max);
    let row = round_trips.len() * BAR + GAP;
    let mut panel =
        format!("<text x=\"8\" y=\"20\" font-size=\"14\">Time of a message in microseconds ({place})</text>\n");
    for (at, round_trip) in round_trips.iter().enumerate() {
        let (x, colour) = (8 + at * 190, COLOURS[at]);
        writeln!(
            panel,
            "<rect x=\"{x}\" y=\"34\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"44\">PCIe round \
             trip {round_trip} ns</text>",
            x + 18
        )
        .unwrap();
    }
    for (index, method) in methods.iter().enumerate() {
        let top = TOP + index * row;
        let middle = top + (row - GAP) / 2 + 4;
        let name = method.replace('`', "");
        writeln!(
            panel,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{name}</text>",
            LABELS - 8
        )
        .unwrap();
        for (at, round_trip) in round_trips.iter().enumerate() {
            let time = times
                .iter()
                .find(|time| time.method == *method && time.round_trip_ns == *round_trip);
            let Some(Time { time_us, .. }) = time else { continue };
            let (y, width, colour) = (top + at * BAR, time_us / longest * BARS, COLOURS[at]);
            writeln!(
                panel,
                "<rect x=\"{LABELS}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/><text \
                 x=\"{:.1}\" y=\"{}\">{time_us:.2}</text>",
                BAR - 1,
                LABELS as f64 + width + 6.0,
                y + 11,
            )
            .unwrap();
        }
    }
    (panel, TOP + methods.len() * row)
}

fn page(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).join(name)
}

/// The data are measured by the benchmark `pcie_latency`, and between guests by the test of the PCIe account there.
#[test]
fn the_plot_shows_the_data() {
    let data = fs::read_to_string(page("pcie-account.tsv")).unwrap();
    let (plotted, path) = (plot(&parse(&data)), page("pcie-account.svg"));
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &plotted).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(committed, plotted, "UPDATE=1 rewrites {}", path.display());
}
