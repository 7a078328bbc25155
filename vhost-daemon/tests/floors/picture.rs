//! The floors and their arrows as a page of the documentation.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::check::{arrows_of, children};
use crate::declaration::Plan;
use crate::package::Package;

/// Longest list on one line of the page, in characters.
const WIDTH: usize = 110;

const HEADER: &str = "\
# Floors

Rooms of each package (its modules), the highest floor first. An arrow is an import; one that other arrows imply is
left out of the picture. A room imports only from lower floors: `vhost-daemon/tests/floors` declares them, reads the
arrows from the sources, fails on one that runs up or in a cycle, and wrote this page
(`UPDATE=1 cargo test -p vhost-daemon --test floors`).
";

type Edges = BTreeSet<(String, String)>;

/// Renders the page.
pub fn page(packages: &[Package], plans: &[Plan]) -> String {
    let mut page = HEADER.to_owned();
    for plan in plans {
        let Some(package) = packages.iter().find(|package| package.name == plan.package) else {
            continue;
        };
        let edges: Edges = arrows_of(package, plan.room).into_keys().collect();
        if edges.is_empty() {
            continue;
        }
        let title = if plan.room.is_empty() {
            package.name.clone()
        } else {
            format!("{}: {}", package.name, plan.room)
        };
        let level = if plan.room.is_empty() { "##" } else { "###" };
        write!(page, "\n{level} {title}\n\n```mermaid\nflowchart TD\n").unwrap();
        let rooms = children(package, plan.room);
        let named: BTreeSet<&str> = plan.floors.iter().copied().flatten().copied().collect();
        for (number, floor) in plan.floors.iter().enumerate().rev() {
            let others = rooms.iter().map(String::as_str).filter(|room| !named.contains(room));
            let rooms = floor.iter().copied().filter(|room| rooms.contains(*room));
            let rooms: Vec<&str> = if floor.contains(&"*") {
                rooms.chain(others).collect()
            } else {
                rooms.collect()
            };
            let mut line = format!("  subgraph f{number}[\" \"]");
            for room in rooms {
                if line.len() + room.len() > WIDTH {
                    writeln!(page, "{line}").unwrap();
                    line = "   ".to_owned();
                }
                write!(line, "{} {room}", if line.ends_with(']') { "\n   " } else { "" }).unwrap();
                line.push(';');
            }
            writeln!(page, "{}\n  end", line.trim_end_matches(';')).unwrap();
        }
        for (from, to) in reduced(&edges) {
            writeln!(page, "  {from} --> {to}").unwrap();
        }
        page.push_str("```\n");
    }
    page
}

/// Returns the edges that no way over others implies.
fn reduced(edges: &Edges) -> Edges {
    let implied = |(from, to): &(String, String)| {
        let mut ways: Vec<&str> = edges
            .iter()
            .filter(|(start, next)| start == from && next != to)
            .map(|(_, next)| next.as_str())
            .collect();
        let mut seen: BTreeSet<&str> = ways.iter().copied().collect();
        seen.insert(from);
        while let Some(at) = ways.pop() {
            if at == to {
                return true;
            }
            let next = edges
                .iter()
                .filter(|(start, _)| start == at)
                .map(|(_, next)| next.as_str());
            ways.extend(next.filter(|next| seen.insert(next)));
        }
        false
    };
    edges.iter().filter(|edge| !implied(edge)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn implied_arrows_are_left_out() {
        let edges = |pairs: &[(&str, &str)]| -> Edges {
            pairs
                .iter()
                .map(|(from, to)| ((*from).to_owned(), (*to).to_owned()))
                .collect()
        };
        let all = edges(&[("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d")]);
        assert_eq!(reduced(&all), edges(&[("a", "b"), ("b", "c"), ("c", "d")]));
    }
}
