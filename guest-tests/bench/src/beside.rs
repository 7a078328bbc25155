//! Two ways beside each other, each figure measured once.

use anyhow::Result;
use comfy_table::{Cell, Table};

use crate::table::{round, table, times};

/// A table of figures that grows while they are measured.
pub struct Beside(Table);

impl Beside {
    /// A table of that title for the two ways.
    pub fn new(title: &str, ways: [&str; 2]) -> Self {
        let ratio = format!("{} / {}", ways[1], ways[0]);
        Self(table(&[title, ways[0], ways[1], "unit", &ratio]))
    }

    /// Measures the first way, then the second.
    pub fn measure<W>(&mut self, name: &str, unit: &str, ways: [W; 2], of: impl FnMut(W) -> Result<f64>) -> Result<()> {
        eprintln!("    {name}");
        let mut of = of;
        let [first, second] = ways;
        let [first, second] = [of(first)?, of(second)?];
        self.0.add_row([
            Cell::new(name),
            Cell::new(round(first)),
            Cell::new(round(second)),
            Cell::new(unit),
            Cell::new(times(second / first)),
        ]);
        Ok(())
    }

    /// Prints it.
    pub fn print(self) {
        println!("{}", self.0);
    }
}
