//! A table of times.

use std::fmt;

/// Samples by name, shown as a table of their number, minimum, median and 99th percentile.
#[derive(Debug, Default)]
pub struct Times {
    /// Nanoseconds, in the order of the rows' first samples.
    rows: Vec<(String, Vec<u64>)>,
}

impl Times {
    /// Creates a table whose first rows are in this order; rows without samples are not shown.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            rows: names.into_iter().map(|name| (name.to_owned(), Vec::new())).collect(),
        }
    }

    /// Adds a sample in nanoseconds.
    pub fn add(&mut self, name: &str, time: u64) {
        match self.rows.iter_mut().find(|(row, _)| row == name) {
            Some((_, times)) => times.push(time),
            None => self.rows.push((name.to_owned(), vec![time])),
        }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<28}{:>10}{:>12}{:>12}{:>12}",
            "", "count", "min us", "median us", "p99 us"
        )?;
        for (name, times) in self.rows.iter().filter(|(_, times)| !times.is_empty()) {
            let mut times = times.clone();
            times.sort_unstable();
            // Nearest rank.
            let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1] as f64 / 1000.0;
            let (count, min, median, p99) = (times.len(), at(0), at(50), at(99));
            writeln!(f, "{name:<28}{count:>10}{min:>12.2}{median:>12.2}{p99:>12.2}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut times = Times::new(["later", "never", "sooner"]);
        (1..=200).rev().for_each(|time| times.add("sooner", time * 1000));
        times.add("later", 1500);
        let text = times.to_string();
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["later", "1", "1.50", "1.50", "1.50"]);
        assert_eq!(rows[2], ["sooner", "200", "1.00", "100.00", "198.00"]);
        assert_eq!(rows.len(), 3);
    }
}
