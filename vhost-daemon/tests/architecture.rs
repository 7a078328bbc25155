//! The pages that refer to the source name files, functions, types and fields that exist.

use std::fs;
use std::path::{Path, PathBuf};

/// Directories that the page's files are relative to.
const ROOTS: [&str; 5] = [
    ".",
    "vhost-nic/src",
    "vhost-nic/pci-function/src",
    "vhost-ism/src",
    "vhost-daemon/src",
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns the text between backticks that names a file of Rust, with the names behind it.
fn references(page: &str) -> Vec<(&str, Vec<&str>)> {
    let spans = page.split('`').skip(1).step_by(2);
    spans
        .filter_map(|span| {
            let (file, names) = span.split_once("::").unwrap_or((span, ""));
            let names = names.split("::").filter(|name| !name.is_empty()).collect();
            file.ends_with(".rs").then_some((file, names))
        })
        .collect()
}

/// Whether a line of the source declares `name`: a function, type, constant, or field.
fn declares(source: &str, name: &str) -> bool {
    let keywords = ["fn", "struct", "enum", "trait", "type", "const", "static"];
    source.lines().any(|line| {
        let words: Vec<&str> = line
            .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .filter(|word| !word.is_empty())
            .collect();
        let item = words
            .windows(2)
            .any(|pair| keywords.contains(&pair[0]) && pair[1] == name);
        let line = line.trim_start();
        let field = line.strip_prefix("pub ").unwrap_or(line);
        item || field.strip_prefix(name).is_some_and(|rest| rest.starts_with(": "))
    })
}

#[test]
fn every_name_on_the_map_exists() {
    assert_names_exist("docs/architecture.md", 100);
}

#[test]
fn every_test_of_the_threat_model_exists() {
    assert_names_exist("docs/threat-model.md", 40);
}

#[test]
fn every_test_of_the_conformance_page_exists() {
    assert_names_exist("docs/conformance.md", 40);
}

#[test]
fn every_test_of_the_specification_exists() {
    assert_names_exist("docs/spec.md", 30);
}

/// Checks the references of a page, which has at least `count` of them.
fn assert_names_exist(page: &str, count: usize) {
    let repository = repository();
    let page = fs::read_to_string(repository.join(page)).unwrap();
    // Code blocks have an odd number of backticks in their fences.
    let prose: String = page.split("```").step_by(2).collect();
    let references = references(&prose);
    let mut faults = Vec::new();
    for (file, names) in &references {
        let places = ROOTS.map(|root| repository.join(root).join(file));
        let sources: Vec<String> = places.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
        let [source] = &sources[..] else {
            faults.push(format!("{file} is {} files", sources.len()));
            continue;
        };
        let Some((name, types)) = names.split_last() else {
            continue;
        };
        // The type of a method may be declared in another file, and implemented here.
        let known = types.iter().all(|name| source.contains(name));
        if !known || !declares(source, name) {
            faults.push(format!("{file} has no {}", names.join("::")));
        }
    }
    assert!(references.len() > count, "only {} names were found", references.len());
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}
