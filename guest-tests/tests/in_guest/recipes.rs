//! The pages in docs/recipes print what they say.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use guest_harness::{Image, cache_dir, program, workspace_dir};

use crate::fixture::{Folder, install_kernel, write_module};

/// Socket of the NIC in the recipes.
const SOCKET: &str = "/run/vhost-nic/lan/a.sock";

/// Reads a file of the recipes.
fn recipe(name: &str) -> String {
    let path = workspace_dir().join("docs/recipes").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the transcript of a page.
fn block(page: &str) -> String {
    recipe(page).split("```").nth(1).expect("a transcript").to_owned()
}

/// Returns the command of a page's transcript, and the lines after it.
fn transcript(page: &str) -> (String, Vec<String>) {
    let block = block(page);
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

/// Checks a file of the recipes with a validator.
#[track_caller]
fn validate(validator: &Path, arguments: &[&str], file: &str) {
    let path = workspace_dir().join("docs/recipes").join(file);
    let output = Command::new(validator).args(arguments).arg(path).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", validator.display()));
    assert!(
        output.status.success(),
        "{file}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
#[ignore = "long: needs the validators"]
fn workflows_and_domains_are_valid() {
    let schema = cache_dir().join("tools/check-jsonschema-0.39.0/bin/check-jsonschema");
    let builtin = |name| ["--builtin-schema", name];
    validate(&schema, &builtin("vendor.github-workflows"), "github-actions.yml");
    validate(&schema, &builtin("vendor.gitlab-ci"), "gitlab-ci.yml");
    let grammar = ["--noout", "--relaxng", "/usr/share/libvirt/schemas/domain.rng"];
    validate(Path::new("xmllint"), &grammar, "libvirt.xml");
}

/// A daemon with one guest; killed when dropped.
struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    fn start(folder: &Path) -> Self {
        let socket = folder.join("a.sock");
        let mut command = Command::new(program("vhost-nic").expect("vhost-nic is built"));
        let child = command.arg("--socket-path").arg(&socket).spawn();
        let child = child.expect("the daemon starts");
        Self { child, socket }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a script with the tools of the cache and the image's QEMU in the path; returns what it printed.
#[track_caller]
fn run(script: &str, directory: &Path, tools: &Path) -> String {
    let qemu = Image::load().expect("an image").qemu;
    let path = env::var("PATH").unwrap_or_default();
    let path = format!(
        "{}:{}:{path}",
        tools.display(),
        qemu.parent().expect("a directory").display()
    );
    let mut command = Command::new("bash");
    command
        .args(["-ec", script])
        .env("PATH", path)
        .current_dir(directory)
        .stdin(Stdio::null());
    let output = command.output().expect("bash");
    let [printed, log] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{printed}{log}");
    printed
}

#[test]
#[ignore = "long: needs virtme-ng"]
fn the_recipe_of_virtme_ng_prints_what_it_says() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.share());
    let block = block("virtme-ng.md");
    let (commands, expected) = block.rsplit_once("'\n").expect("a command and its output");
    let script = format!("{commands}'")
        .replace("\n$ ", "\n")
        .replace(SOCKET, daemon.socket.to_str().expect("text"));
    let script = script.replace("vng --run", "vng --disable-kvm --run");
    let build = Image::load().expect("an image").kernel_build.expect("a build tree");
    let printed = run(&script, &build, &cache_dir().join("tools/virtme-ng-1.42/bin"));
    assert_eq!(printed.trim(), expected.trim());
}

#[test]
#[ignore = "long: needs vmtest"]
fn the_recipe_of_vmtest_prints_what_it_says() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.share());
    let kernel = install_kernel(&folder.share());
    fs::copy(kernel, folder.share().join("bzImage")).expect("a copy");
    let target = recipe("vmtest.toml").replace(SOCKET, daemon.socket.to_str().expect("text"));
    let (before, emulation) = target
        .split_once("    # Without KVM that works: ")
        .expect("arguments for emulation");
    folder.write("vmtest.toml", &format!("{before}    {emulation}"));
    let printed = run("vmtest", &folder.share(), &cache_dir().join("tools/bin"));
    let printed: Vec<&str> = printed.lines().map(str::trim).collect();
    let block = block("vmtest.md");
    for line in block.lines().filter(|line| !line.is_empty() && !line.starts_with('$')) {
        assert!(printed.contains(&line), "no {line:?} in {printed:#?}");
    }
}
