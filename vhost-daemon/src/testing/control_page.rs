//! The examples of the control socket's page.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::control_command::CommonCommand;

/// Makes the requests of a page's sections `## heading` to a daemon and compares the answers; `...` in the page stands
/// for the rest of a line. Checks that every command has a section `### command` with a request.
///
/// # Panics
///
/// Panics if an answer differs, or a command of the daemon is missing.
#[track_caller]
pub fn assert_control_page(page: &Path, headings: &[&str], socket: &Path) {
    let page = std::fs::read_to_string(page).expect("the page can be read");
    let sections = page.split("\n## ").filter(|section| {
        let heading = section.lines().next();
        headings.iter().any(|wanted| heading == Some(wanted))
    });
    let commands: Vec<&str> = sections.flat_map(|section| section.split("\n### ").skip(1)).collect();
    for name in names(socket) {
        let section = commands.iter().find(|section| section.lines().next() == Some(&name));
        let section = section.unwrap_or_else(|| panic!("the page has no command {name}"));
        let request = format!("{{\"version\":1,\"command\":\"{name}\"");
        assert!(section.contains(&request), "the page has no request {name}");
    }
    for section in commands {
        let example = section
            .split("```json\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next());
        let lines: Vec<&str> = example.expect("a command has an example").lines().collect();
        for pair in lines.chunks(2) {
            let [request, expected] = pair else {
                panic!("a request has no answer: {pair:?}")
            };
            let answer = ask(socket, request);
            match expected.split_once("...") {
                Some((begin, "")) => assert!(answer.starts_with(begin), "{request}: {answer}"),
                _ => assert_eq!(answer, *expected, "{request}"),
            }
        }
    }
}

/// Returns the names of a daemon's commands; its own are those that the refusal of an unknown one lists.
fn names(socket: &Path) -> Vec<String> {
    let refusal = ask(socket, r#"{"version":1,"command":"-"}"#);
    let own = refusal.split('`').skip(3).step_by(2).map(ToOwned::to_owned);
    let names: Vec<String> = own
        .chain(CommonCommand::NAMES.iter().map(ToString::to_string))
        .collect();
    assert!(names.len() > CommonCommand::NAMES.len(), "{refusal}");
    names
}

fn ask(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("the control socket is served");
    writeln!(stream, "{request}").expect("the request can be sent");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("the answer is text");
    line.trim_end().to_owned()
}
