//! Floors without a way back up: each package of the repository declares the order of its modules, and no import runs
//! against it or in a cycle. The imports are read from the sources, without a compiler.

mod check;
mod declaration;
mod package;
mod picture;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use declaration::PLANS;
use package::Package;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn packages() -> Vec<Package> {
    let repository = repository();
    let found = package::find(&repository);
    found
        .iter()
        .map(|directory| Package::read(directory, &repository))
        .collect()
}

#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn no_arrow_runs_up() {
    let packages = packages();
    let mut faults = Vec::new();
    for plan in PLANS {
        match packages.iter().find(|package| package.name == plan.package) {
            Some(package) => faults.extend(check::against_plan(package, plan)),
            None => faults.push(format!(
                "there is no package {}, but it has floors (declaration.rs)",
                plan.package
            )),
        }
    }
    for Package { name, .. } in &packages {
        if !PLANS.iter().any(|plan| plan.package == name) {
            faults.push(format!("{name} has no floors (declaration.rs)"));
        }
    }
    none(&faults);
}

#[test]
fn no_rooms_import_in_a_circle() {
    none(&packages().iter().flat_map(check::cycles).collect::<Vec<_>>());
}

#[test]
fn the_picture_is_what_the_code_is() {
    let path = repository().join("docs/floors.md");
    let page = picture::page(&packages(), PLANS);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &page).unwrap();
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        current == page,
        "docs/floors.md is out of date: UPDATE=1 cargo test -p vhost-daemon --test floors"
    );
}
