//! The pages in docs/recipes print what they say.

use std::fs;

use guest_harness::workspace_dir;

use crate::fixture::{Folder, write_module};

/// Returns the command of a page's transcript, and the lines after it.
fn transcript(page: &str) -> (String, Vec<String>) {
    let path = workspace_dir().join("docs/recipes").join(page);
    let text = fs::read_to_string(&path).expect("the page");
    let block = text.split("```").nth(1).expect("a transcript");
    let mut lines = block.lines().filter(|line| !line.is_empty());
    let command = lines.next().and_then(|line| line.strip_prefix("$ scripts/in-guest "));
    (command.expect("a command").to_owned(), lines.map(comparable).collect())
}

/// Replaces what differs from run to run: numbers, versions, the name of the results.
fn comparable(line: &str) -> String {
    let line = line.split("results: ").next().unwrap_or_default();
    let mut comparable = String::new();
    for letter in line.chars() {
        let is_number = letter.is_ascii_digit() || letter == '.';
        match (is_number, comparable.ends_with('0')) {
            (true, true) => {}
            (true, false) => comparable.push('0'),
            (false, _) => comparable.push(letter),
        }
    }
    comparable.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_recipe_of_a_module_prints_what_it_says() {
    let (command, expected) = transcript("module.md");
    let folder = Folder::new();
    write_module(&folder.share(), 0);
    let (options, script) = command.split_once(" -- ").expect("a command");
    let mut words: Vec<&str> = options.split_whitespace().collect();
    words.extend(["--", script.trim_matches('\'')]);
    let run = folder.run(&words, "");
    assert_eq!(run.status, Some(0));
    let printed: Vec<String> = run.stdout.lines().chain(run.stderr.lines()).map(comparable).collect();
    assert_eq!(expected.len(), 5);
    for line in expected {
        assert!(printed.contains(&line), "no {line:?} in {printed:#?}");
    }
}
