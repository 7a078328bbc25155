//! Two variants side by side, each figure measured once.

use anyhow::Result;
use comfy_table::{Cell, Table};

use crate::table::{round, table, times};

/// A table that gains a row with each measurement.
pub struct Comparison(Table);

impl Comparison {
    /// Creates an empty table; `variants` are the column headers.
    pub fn new(title: &str, variants: [&str; 2]) -> Self {
        let ratio = format!("{} / {}", variants[1], variants[0]);
        Self(table(&[title, variants[0], variants[1], "unit", &ratio]))
    }

    /// Measures the first variant, then the second, and adds a row.
    pub fn measure<V>(
        &mut self,
        name: &str,
        unit: &str,
        variants: [V; 2],
        mut measure: impl FnMut(V) -> Result<f64>,
    ) -> Result<()> {
        eprintln!("    {name}");
        let [first, second] = variants;
        let [first, second] = [measure(first)?, measure(second)?];
        self.0.add_row([
            Cell::new(name),
            Cell::new(round(first)),
            Cell::new(round(second)),
            Cell::new(unit),
            Cell::new(times(second / first)),
        ]);
        Ok(())
    }

    /// Prints the table to standard output.
    pub fn print(self) {
        println!("{}", self.0);
    }
}
