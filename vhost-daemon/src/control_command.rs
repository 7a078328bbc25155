//! Commands of the control socket, in JSON and on the command line, and the lines of their answers.

use std::path::Path;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{FromArgMatches, Subcommand};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::fault;

/// Version of requests and answers.
pub const VERSION: u32 = 1;

/// Commands of every daemon.
#[derive(Subcommand, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum CommonCommand {
    /// Show state and counters, as on the stats socket.
    Counters {},

    /// Show the live objects.
    Objects {
        /// Only those of this guest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guest: Option<String>,

        /// Only those of this kind.
        #[arg(long)]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kind: Option<String>,
    },

    /// Start or stop the flight recorder, from which a trace can begin in the past (`trace --recent`).
    FlightRecorder {
        /// Whether it records from now on.
        #[arg(value_parser = switch("on", "off"), action = clap::ArgAction::Set)]
        on: bool,
    },

    /// Show the faults in force and what became of them, or replace them.
    Faults {
        /// Put the plan of this file (docs/faults.md) in force; that of an empty file ends all faults.
        #[arg(long, value_name = "FILE", value_parser = plan_file)]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        plan: Option<Value>,
    },

    /// Show findings: the first of each kind and the latest (docs/findings.md).
    Findings {
        /// Only those about this guest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guest: Option<String>,

        /// Continue with findings as they happen.
        #[arg(long)]
        #[serde(default)]
        follow: bool,
    },

    /// Records a trace; on the command line a program of its own reads it.
    #[command(skip)]
    Trace {
        /// Duration.
        seconds: f64,
        /// Whether it begins with what the flight recorder has.
        #[serde(default)]
        recent: bool,
    },
}

impl CommonCommand {
    /// Names in JSON.
    pub const NAMES: &[&str] = &["counters", "objects", "flight_recorder", "faults", "findings", "trace"];
}

/// Parser of an argument that is one of two words: the first is true.
pub fn switch(yes: &'static str, no: &'static str) -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new([yes, no]).map(move |word| word == yes)
}

/// Parser of an argument that names a plan of faults.
fn plan_file(path: &str) -> Result<Value, String> {
    fault::read_file(Path::new(path)).map_err(|error| format!("{:#}", anyhow::Error::new(error)))
}

/// A command of a daemon whose own commands are `C`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Command<C> {
    /// A command of every daemon.
    Common(CommonCommand),
    /// A command of this daemon.
    Own(C),
}

impl<C: Subcommand> FromArgMatches for Command<C> {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand_name() {
            Some(name) if CommonCommand::has_subcommand(name) => {
                CommonCommand::from_arg_matches(matches).map(Self::Common)
            }
            _ => C::from_arg_matches(matches).map(Self::Own),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<C: Subcommand> Subcommand for Command<C> {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        C::augment_subcommands(CommonCommand::augment_subcommands(command))
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        C::augment_subcommands_for_update(CommonCommand::augment_subcommands_for_update(command))
    }

    fn has_subcommand(name: &str) -> bool {
        CommonCommand::has_subcommand(name) || C::has_subcommand(name)
    }
}

/// A request that is none.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The line is not a JSON object with the fields of a command.
    #[error("invalid request: {0}")]
    Invalid(#[from] serde_json::Error),
    /// The request is of another version.
    #[error("requests of version {0} are not supported")]
    Version(Value),
}

impl<C: DeserializeOwned> Command<C> {
    /// Parses the line of a request.
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        let mut request: Map<String, Value> = serde_json::from_slice(line)?;
        match request.remove("version") {
            Some(version) if version == VERSION => {}
            version => return Err(RequestError::Version(version.unwrap_or_default())),
        }
        let is_common = request
            .get("command")
            .and_then(Value::as_str)
            .is_some_and(|name| CommonCommand::NAMES.contains(&name));
        let request = Value::Object(request);
        Ok(match is_common {
            true => Self::Common(serde_json::from_value(request)?),
            false => Self::Own(serde_json::from_value(request)?),
        })
    }
}

/// Returns the line of a request.
pub fn request_line(command: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Request<'a, C> {
        version: u32,
        #[serde(flatten)]
        command: &'a C,
    }
    let mut line = serde_json::to_vec(&Request {
        version: VERSION,
        command,
    })?;
    line.push(b'\n');
    Ok(line)
}

/// Returns the line of an answer.
pub fn answer_line(answer: &Result<Value, String>) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Outcome<'a> {
        Result(&'a Value),
        Error(&'a str),
    }
    #[derive(Serialize)]
    struct Line<'a> {
        version: u32,
        #[serde(flatten)]
        answer: Outcome<'a>,
    }
    let answer = match answer {
        Ok(result) => Outcome::Result(result),
        Err(reason) => Outcome::Error(reason),
    };
    let mut line = serde_json::to_vec(&Line {
        version: VERSION,
        answer,
    })?;
    line.push(b'\n');
    Ok(line)
}

/// Parses the line of an answer: the result, or the reason of a refusal.
pub fn parse_answer(line: &[u8]) -> serde_json::Result<Result<Value, String>> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(rename = "version")]
        _version: u32,
        #[serde(flatten)]
        answer: Outcome,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Outcome {
        Result(Value),
        Error(String),
    }
    Ok(match serde_json::from_slice::<Line>(line)?.answer {
        Outcome::Result(value) => Ok(value),
        Outcome::Error(reason) => Err(reason),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Subcommand, Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
    enum Own {
        Cable {
            guest: String,
            #[arg(value_parser = switch("in", "out"), action = clap::ArgAction::Set)]
            plugged: bool,
        },
        MacTable {},
    }

    fn parse(line: &str) -> Result<Command<Own>, String> {
        Command::parse(line.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_names_of_the_common_commands_are_known() {
        let error = serde_json::from_value::<CommonCommand>(json!({ "command": "" })).unwrap_err();
        let names: Vec<String> = CommonCommand::NAMES.iter().map(|name| format!("`{name}`")).collect();
        assert_eq!(
            error.to_string(),
            format!("unknown variant ``, expected one of {}", names.join(", "))
        );
    }

    #[test]
    fn a_command_is_the_same_in_json_and_on_the_command_line() {
        #[derive(Parser)]
        struct Program {
            #[command(subcommand)]
            command: Command<Own>,
        }
        for (words, line) in [
            (&["counters"][..], r#"{"version":1,"command":"counters"}"#),
            (
                &["objects", "a", "--kind", "cqs"],
                r#"{"version":1,"command":"objects","guest":"a","kind":"cqs"}"#,
            ),
            (&["objects"], r#"{"version":1,"command":"objects"}"#),
            (
                &["flight-recorder", "off"],
                r#"{"version":1,"command":"flight_recorder","on":false}"#,
            ),
            (
                &["cable", "a", "out"],
                r#"{"version":1,"command":"cable","guest":"a","plugged":false}"#,
            ),
            (
                &["findings", "a", "--follow"],
                r#"{"version":1,"command":"findings","guest":"a","follow":true}"#,
            ),
            (&["mac-table"], r#"{"version":1,"command":"mac_table"}"#),
        ] {
            let words = ["program"].iter().chain(words);
            let command = Program::try_parse_from(words).unwrap().command;
            assert_eq!(request_line(&command).unwrap(), format!("{line}\n").into_bytes());
            assert_eq!(parse(line).unwrap(), command);
        }
    }

    #[test]
    fn requests_that_are_none_are_refused() {
        for (line, reason) in [
            ("", "invalid request: EOF"),
            ("[]", "invalid request: invalid type"),
            ("{}", "requests of version null are not supported"),
            (r#"{"version":2,"command":"counters"}"#, "requests of version 2"),
            (r#"{"version":1}"#, "invalid request: missing field `command`"),
            (r#"{"version":1,"command":7}"#, "invalid request: invalid type"),
            (
                r#"{"version":1,"command":"fly"}"#,
                "invalid request: unknown variant `fly`",
            ),
            (
                r#"{"version":1,"command":"trace"}"#,
                "invalid request: missing field `seconds`",
            ),
            (
                r#"{"version":1,"command":"cable","guest":"a"}"#,
                "invalid request: missing field `plugged`",
            ),
            (
                r#"{"version":1,"command":"objects","gest":"a"}"#,
                "invalid request: unknown field `gest`",
            ),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.starts_with(reason), "{line}: {error}");
        }
    }

    #[test]
    fn an_answer_is_a_result_or_a_reason() {
        let answers = [
            (Ok(json!([1])), r#"{"version":1,"result":[1]}"#),
            (Err("no".to_owned()), r#"{"version":1,"error":"no"}"#),
        ];
        for (answer, line) in answers {
            assert_eq!(answer_line(&answer).unwrap(), format!("{line}\n").into_bytes());
            assert_eq!(parse_answer(line.as_bytes()).unwrap(), answer);
        }
        assert!(parse_answer(b"{}").is_err());
    }
}
