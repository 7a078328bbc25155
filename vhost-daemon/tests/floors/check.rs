//! Faults of a package against its floors.

use std::collections::{BTreeMap, BTreeSet};

use crate::declaration::Plan;
use crate::package::{Package, Place};

/// Arrows between the rooms of a plan or a module, with the file that each comes from.
pub type Arrows = BTreeMap<(String, String), Place>;

/// Returns the arrows between the children of a module; of the package if its path is empty.
pub fn arrows_of(package: &Package, module: &str) -> Arrows {
    let mut arrows = Arrows::new();
    for ((from, to), place) in &package.arrows {
        if let (Some(from), Some(to)) = (child(from, module), child(to, module))
            && from != to
        {
            arrows.entry((from, to)).or_insert_with(|| place.clone());
        }
    }
    arrows
}

/// Returns the names of a module's children.
pub fn children(package: &Package, module: &str) -> BTreeSet<String> {
    package.files.iter().filter_map(|file| child(file, module)).collect()
}

/// Returns the child of a module that a file belongs to.
fn child(file: &str, module: &str) -> Option<String> {
    let path = match module {
        "" => file,
        _ => file.strip_prefix(module)?.strip_prefix("::")?,
    };
    path.split("::").next().map(str::to_owned)
}

/// Returns the floor of a room, counted from 0.
fn floor(plan: &Plan, name: &str) -> Option<usize> {
    let named = |name: &str| plan.floors.iter().position(|floor| floor.contains(&name));
    named(name).or_else(|| named("*"))
}

/// Returns the violations of a plan: rooms without a floor, floors without their room, and arrows that do not run down.
pub fn against_plan(package: &Package, plan: &Plan) -> Vec<String> {
    let (rooms, arrows) = (children(package, plan.room), arrows_of(package, plan.room));
    let whole = [plan.package, plan.room].join(" ");
    let whole = whole.trim_end();
    let mut faults = Vec::new();
    for room in &rooms {
        if floor(plan, room).is_none() {
            let imports = arrows.keys().filter(|(from, _)| from == room);
            let lowest = imports
                .filter_map(|(_, to)| floor(plan, to))
                .max()
                .map_or(0, |below| below + 1);
            faults.push(format!(
                "{whole}: {room} has no floor; it fits on floor {lowest} or higher (declaration.rs)"
            ));
        }
    }
    for name in plan.floors.iter().copied().flatten() {
        if *name != "*" && !rooms.contains(*name) {
            faults.push(format!(
                "{whole}: there is no {name}, but it has a floor (declaration.rs)"
            ));
        }
    }
    for ((from, to), place) in &arrows {
        let (Some(own), Some(other)) = (floor(plan, from), floor(plan, to)) else {
            continue;
        };
        if own <= other {
            let way = if own == other { "sideways" } else { "up" };
            faults.push(format!(
                "{}:{}: {whole}: {from} imports {to}, {way}",
                place.file, place.line
            ));
        }
    }
    faults
}

/// Returns the import cycles between rooms, at every level of a package. Files are the rooms of the lowest level; a
/// module and its children are one room to those outside.
pub fn cycles(package: &Package) -> Vec<String> {
    let mut modules = BTreeSet::from([""]);
    for file in &package.files {
        modules.extend(file.match_indices("::").map(|(end, _)| &file[..end]));
    }
    let mut faults = Vec::new();
    for module in modules {
        let arrows = arrows_of(package, module);
        let mut reported = BTreeSet::new();
        for room in children(package, module) {
            let Some(cycle) = cycle_through(&arrows, &room) else {
                continue;
            };
            if cycle.iter().any(|(from, _)| reported.contains(from)) {
                continue;
            }
            let way: Vec<String> = cycle
                .iter()
                .map(|arrow| {
                    let Place { file, line } = &arrows[arrow];
                    format!("\n    {} -> {} ({file}:{line})", arrow.0, arrow.1)
                })
                .collect();
            faults.push(format!("{} {module}: a cycle{}", package.name, way.concat()));
            reported.extend(cycle.into_iter().map(|(from, _)| from));
        }
    }
    faults
}

/// Returns the shortest cycle through a room.
fn cycle_through(arrows: &Arrows, room: &str) -> Option<Vec<(String, String)>> {
    let mut ways: Vec<Vec<(String, String)>> = vec![Vec::new()];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let at = way.last().map_or(room, |(_, to)| to.as_str());
            for arrow in arrows.keys().filter(|(from, _)| from == at) {
                let mut way = way.clone();
                way.push(arrow.clone());
                if arrow.1 == room {
                    return Some(way);
                }
                if seen.insert(arrow.1.clone()) {
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        package: "the-crate",
        room: "",
        floors: &[&["ground", "cellar"], &["first"]],
    };

    fn check(files: &[(&str, &str)]) -> Vec<String> {
        against_plan(&Package::of(files), &PLAN)
    }

    const LIB: (&str, &str) = ("lib", "mod ground; mod cellar; mod first;");

    #[test]
    fn an_arrow_that_runs_down_is_none() {
        let faults = check(&[
            LIB,
            ("ground", ""),
            ("cellar", ""),
            ("first", "mod a; pub use a::A; use crate::ground;"),
            ("first::a", "use crate::cellar::X; use super::super::ground::{self, Y};"),
        ]);
        assert!(faults.is_empty(), "{faults:?}");
    }

    #[test]
    fn an_arrow_that_runs_up_or_sideways_is_a_fault() {
        let files = |ground| {
            [
                LIB,
                ("ground", ground),
                ("cellar", ""),
                ("first", "mod a; pub use a::A;"),
                ("first::a", ""),
            ]
        };
        for (text, fault) in [
            (
                "use crate::first::A;",
                "ground.rs:1: the-crate: ground imports first, up",
            ),
            (
                "\nfn f() -> super::first::a::B {}",
                "ground.rs:2: the-crate: ground imports first, up",
            ),
            (
                "use the_crate::first;",
                "ground.rs:1: the-crate: ground imports first, up",
            ),
            (
                "mod m { use super::super::cellar::X; }",
                "ground.rs:1: the-crate: ground imports cellar, sideways",
            ),
        ] {
            assert_eq!(check(&files(text)), [fault], "{text}");
        }
        assert!(check(&files("#[cfg(test)] mod tests { use crate::first; }")).is_empty());
    }

    #[test]
    fn a_plan_names_every_room_and_no_other() {
        let faults = check(&[
            ("lib", "mod ground; mod second;"),
            ("ground", ""),
            ("second", "use crate::ground;"),
        ]);
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].contains("second has no floor; it fits on floor 1"));
        assert!(faults[1].contains("there is no cellar") && faults[2].contains("there is no first"));
    }

    #[test]
    fn circles_are_found_at_every_level_and_through_what_children_import() {
        let top = Package::of(&[
            ("lib", "mod a; mod b;"),
            ("a", "use crate::b::B;"),
            ("b", "mod c;"),
            ("b::c", "use crate::a;"),
        ]);
        assert_eq!(cycles(&top).len(), 1);
        let within = Package::of(&[
            ("lib", "mod a;"),
            ("a", "mod b; mod c; pub use b::B;"),
            ("a::b", "use super::c;"),
            // Through the parent's name for it.
            ("a::c", "use super::B;"),
        ]);
        let found = cycles(&within);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].contains("b -> c (a/b.rs:1)") && found[0].contains("c -> b (a/c.rs:1)"),
            "{found:?}"
        );
        let none = Package::of(&[
            ("lib", "mod a;"),
            ("a", "mod b; mod c; use b::B;"),
            ("a::b", "use super::c; use super::A;"),
            ("a::c", ""),
        ]);
        assert!(cycles(&none).is_empty());
    }
}
