//! Variants measured in interleaved runs (A, B, A, B, ...), so that other load on the host affects all alike.

use anyhow::{Result, ensure};
use comfy_table::Cell;

use crate::history::{History, Medians};
use crate::table::{round, table, times};

/// Required ratio of the medians, a later variant to the first.
#[derive(Clone, Copy)]
pub enum Goal {
    /// Upper bound, for times.
    AtMost(f64),
    /// Lower bound, for rates.
    AtLeast(f64),
    None,
}

/// Statistic shown next to the median.
#[derive(Clone, Copy)]
pub enum Extreme {
    /// Smallest value, whatever the unit.
    Min,
    /// Smallest time, largest rate.
    Best,
}

/// A measurement: the values of `N` variants.
pub struct Series<const N: usize = 2> {
    name: String,
    unit: &'static str,
    /// Of the variants after the first.
    goals: Vec<Goal>,
    values: [Vec<f64>; N],
}

impl<const N: usize> Series<N> {
    /// Creates an empty series with the goal of the second variant. Less is better for microseconds, more for any other
    /// unit.
    pub fn new(name: impl Into<String>, unit: &'static str, goal: Goal) -> Self {
        Self {
            name: name.into(),
            unit,
            goals: vec![goal],
            values: [const { Vec::new() }; N],
        }
    }

    /// Adds the goal of the next variant.
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }

    fn less_is_better(&self) -> bool {
        self.unit == "us"
    }

    /// Returns the median of a variant.
    pub fn median(&self, variant: usize) -> f64 {
        let mut values = self.values[variant].clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn extreme(&self, variant: usize, extreme: Extreme) -> f64 {
        let values = self.values[variant].iter().copied();
        match extreme {
            Extreme::Best if !self.less_is_better() => values.fold(f64::NAN, f64::max),
            _ => values.fold(f64::NAN, f64::min),
        }
    }

    /// Returns the least and the greatest ratio to the first variant in a round.
    fn ratios(&self, variant: usize) -> [f64; 2] {
        let rounds = self.values[0].iter().zip(&self.values[variant]);
        let ratios: Vec<f64> = rounds.map(|(first, later)| later / first).collect();
        [
            ratios.iter().copied().fold(f64::NAN, f64::min),
            ratios.iter().copied().fold(f64::NAN, f64::max),
        ]
    }

    fn medians(&self) -> Medians {
        (0..N).map(|variant| self.median(variant)).collect()
    }

    fn verdict(&self, variant: usize) -> String {
        let (first, later) = (self.median(0), self.median(variant));
        match self.goals.get(variant - 1) {
            Some(Goal::AtMost(limit)) => verdict(later <= limit * first, &format!("<= {limit}x")),
            Some(Goal::AtLeast(limit)) => verdict(later >= limit * first, &format!(">= {limit}x")),
            Some(Goal::None) | None => String::new(),
        }
    }
}

/// Formats a goal and whether it was reached.
pub fn verdict(reached: bool, goal: &str) -> String {
    format!("{goal}, {}", if reached { "reached" } else { "MISSED" })
}

/// A benchmark of `N` variants.
pub struct Interleaved<const N: usize = 2> {
    title: &'static str,
    variants: [&'static str; N],
    series: Vec<Series<N>>,
}

impl<const N: usize> Interleaved<N> {
    /// Creates a benchmark without any measurement.
    pub fn new(title: &'static str, variants: [&'static str; N], series: Vec<Series<N>>) -> Self {
        Self {
            title,
            variants,
            series,
        }
    }

    /// Runs one round; `measure` returns the figures of a variant in the order of the series.
    pub fn round(&mut self, mut measure: impl FnMut(usize) -> Result<Vec<f64>>) -> Result<()> {
        for variant in 0..N {
            let figures = measure(variant)?;
            ensure!(
                figures.len() == self.series.len(),
                "{} figures for {} series",
                figures.len(),
                self.series.len()
            );
            for (series, figure) in self.series.iter_mut().zip(figures) {
                series.values[variant].push(figure);
            }
        }
        Ok(())
    }

    /// Returns the series at `index`, in the order given to [`Interleaved::new`].
    pub fn series(&self, index: usize) -> &Series<N> {
        &self.series[index]
    }

    /// Prints the table, with the second variant's medians at an earlier commit, and adds the medians to `history`.
    pub fn print(&self, extreme: Extreme, history: &mut History) {
        let shown = match extreme {
            Extreme::Min => "min",
            Extreme::Best => "best",
        };
        let mut header = vec![self.title.to_owned(), "unit".to_owned()];
        for variant in self.variants {
            header.extend([format!("{variant} {shown}"), format!("{variant} median")]);
        }
        for variant in &self.variants[1..] {
            let ratio = match N {
                2 => "ratio of medians".to_owned(),
                _ => format!("{variant}, ratio of medians"),
            };
            header.extend([ratio, "goal".to_owned()]);
        }
        let earlier = history.earlier();
        let second = self.variants[1];
        header.extend(earlier.map(|commit| format!("{second} median at {commit}")));
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let mut figures = table(&header);
        for series in &self.series {
            let medians = series.medians();
            let mut row = vec![Cell::new(&series.name), Cell::new(series.unit)];
            for (variant, median) in medians.iter().enumerate() {
                row.extend([round(series.extreme(variant, extreme)), round(*median)].map(Cell::new));
            }
            for variant in 1..N {
                row.extend([times(medians[variant] / medians[0]), series.verdict(variant)].map(Cell::new));
            }
            if earlier.is_some() {
                let before = history.earlier_medians(&series.name);
                let before = before.and_then(|medians| medians.get(1).copied());
                let text = before.map(|before| format!("{} (now {})", round(before), times(medians[1] / before)));
                row.push(Cell::new(text.unwrap_or_default()));
            }
            figures.add_row(row);
        }
        println!("{figures}");
        self.keep(history);
    }

    /// Prints the table with a row for each variant, for variants that are too many for columns, and adds the medians
    /// to `history`.
    pub fn print_tall(&self, extreme: Extreme, history: &mut History) {
        let shown = match extreme {
            Extreme::Min => "min",
            Extreme::Best => "best",
        };
        let earlier = history.earlier().map(|commit| format!("median at {commit}"));
        let ratio = format!("median / {}", self.variants[0]);
        let mut header = vec![self.title, "variant", "unit", shown, "median", &ratio];
        header.extend(earlier.as_deref());
        let mut figures = table(&header);
        for series in &self.series {
            let medians = series.medians();
            let before = history.earlier_medians(&series.name);
            for (variant, median) in medians.iter().enumerate() {
                let mut row = vec![
                    if variant == 0 { &*series.name } else { "" }.to_owned(),
                    self.variants[variant].to_owned(),
                    series.unit.to_owned(),
                    round(series.extreme(variant, extreme)),
                    round(*median),
                    times(median / medians[0]),
                ];
                if earlier.is_some() {
                    let before = before.and_then(|medians| medians.get(variant));
                    row.push(before.map(|before| round(*before)).unwrap_or_default());
                }
                figures.add_row(row);
            }
        }
        println!("{figures}");
        self.keep(history);
    }

    /// Returns a table in Markdown: medians, and behind each later one the least and the greatest ratio to the first
    /// variant in a round.
    pub fn markdown(&self) -> String {
        let mut text = format!("| {} | unit | {} |\n", self.title, self.variants.join(" | "));
        text += &format!("|{}\n", "---|".repeat(N + 2));
        for series in &self.series {
            text += &format!("| {} | {} |", series.name, series.unit);
            for variant in 0..N {
                text += &format!(" {}", round(series.median(variant)));
                if variant > 0 {
                    let [least, greatest] = series.ratios(variant).map(round);
                    text += &format!(" ({least} to {greatest})");
                }
                text += " |";
            }
            text += "\n";
        }
        text
    }

    fn keep(&self, history: &mut History) {
        for series in &self.series {
            history.add(&series.name, series.medians());
        }
    }

    /// Prints the figures of every round, as ratios to the first variant.
    pub fn print_rounds(&self) {
        for series in &self.series {
            for (variant, name) in self.variants.iter().enumerate().skip(1) {
                let ratios = series.values[0].iter().zip(&series.values[variant]);
                let ratios: Vec<String> = ratios.map(|(first, later)| times(later / first)).collect();
                println!("{}, {name} of each round: {}", series.name, ratios.join(" "));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(unit: &'static str, goal: Goal, values: [&[f64]; 2]) -> Series {
        let mut series = Series::new("x", unit, goal);
        series.values = values.map(<[f64]>::to_vec);
        series
    }

    #[test]
    fn the_best_time_is_the_least_and_the_best_rate_the_greatest() {
        let times = series("us", Goal::None, [&[3.0, 1.0, 2.0], &[]]);
        let rates = series("MB/s", Goal::None, [&[3.0, 1.0, 2.0], &[]]);
        assert_eq!(times.extreme(0, Extreme::Best), 1.0);
        assert_eq!(rates.extreme(0, Extreme::Best), 3.0);
        assert_eq!(rates.extreme(0, Extreme::Min), 1.0);
        assert_eq!(rates.median(0), 2.0);
        assert!(rates.median(1).is_nan());
    }

    #[test]
    fn a_goal_is_reached_at_the_limit_and_missed_beyond() {
        let least = |second| series("MB/s", Goal::AtLeast(5.0), [&[2.0], &[second]]).verdict(1);
        assert_eq!(least(10.0), ">= 5x, reached");
        assert_eq!(least(9.9), ">= 5x, MISSED");
        let most = |second| series("us", Goal::AtMost(0.25), [&[8.0], &[second]]).verdict(1);
        assert_eq!(most(2.0), "<= 0.25x, reached");
        assert_eq!(most(2.1), "<= 0.25x, MISSED");
        assert_eq!(most(f64::NAN), "<= 0.25x, MISSED");
    }

    #[test]
    fn every_variant_has_its_own_goal() {
        let mut series = Series::<3>::new("x", "MB/s", Goal::AtLeast(5.0)).goal(Goal::AtLeast(2.0));
        series.values = [vec![1.0], vec![3.0], vec![3.0]];
        assert_eq!(series.verdict(1), ">= 5x, MISSED");
        assert_eq!(series.verdict(2), ">= 2x, reached");
    }

    #[test]
    fn the_markdown_has_medians_and_the_range_of_the_ratios() {
        let series = Series::new("x", "MB/s", Goal::None);
        let mut runs = Interleaved::<2>::new("between", ["a", "b"], vec![series]);
        for [first, second] in [[10.0, 20.0], [20.0, 10.0], [40.0, 60.0]] {
            runs.round(|variant| Ok(vec![[first, second][variant]])).unwrap();
        }
        let expected = "| between | unit | a | b |\n|---|---|---|---|\n| x | MB/s | 20.0 | 20.0 (0.50 to 2.00) |\n";
        assert_eq!(runs.markdown(), expected);
    }

    #[test]
    fn a_round_without_a_figure_for_each_series_is_refused() {
        let mut runs = Interleaved::new("x", ["a", "b"], vec![Series::new("x", "us", Goal::None)]);
        runs.round(|variant| Ok(vec![variant as f64])).unwrap();
        assert_eq!(runs.series(0).medians(), [0.0, 1.0]);
        assert!(runs.round(|_| Ok(Vec::new())).is_err());
    }
}
