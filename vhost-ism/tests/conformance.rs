//! The page of conformance to the draft of the device, against the declarations beside the tests.
//!
//! A comment `// Draft: SECTION; SECTION` above a test declares the sections of the draft that it shows. Regenerate the
//! page with `UPDATE=1 cargo test -p vhost-ism --test conformance`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// A section of the draft.
struct Section {
    name: &'static str,
    /// Summary of the draft's text.
    text: &'static str,
    /// In what the device differs, or goes further.
    differs: &'static str,
    /// Reason why there is no test.
    untested: &'static str,
}

const fn section(name: &'static str, text: &'static str) -> Section {
    Section {
        name,
        text,
        differs: "",
        untested: "",
    }
}

impl Section {
    const fn differs(self, differs: &'static str) -> Self {
        Self { differs, ..self }
    }

    const fn untested(self, untested: &'static str) -> Self {
        Self { untested, ..self }
    }
}

/// Chapters and sections, in the order of the draft.
const CHAPTERS: &[(&str, &[Section])] = &[
    (
        "Device",
        &[
            section("Device ID", "44")
                .differs("the VMM's choice; by convention 37, with a magic number in the configuration space")
                .untested("a device of vhost-user does not see its ID, and QEMU 11.1 aborts at 44"),
            section("Virtqueues", "control, event").differs("a third queue carries kicks, or moves"),
            section("Feature bits", "VIRTIO_ISM_F_EVENT_VQ: there is an event queue").differs(
                "the number of the bit is in no public text: the event queue is always there, and SUBSCRIBE selects \
                 the draft's events",
            ),
            section("Configuration: gid", "the fabric"),
            section("Configuration: devid", "this device").differs("new in every session"),
            section("Configuration: chunk_size", "a power of two, the unit of region 1"),
            section("Configuration: notify_size", "bytes per chunk in region 2"),
            section("Shared memory: REGIONS", "region 1 holds the buffers"),
            section(
                "Shared memory: NOTIFY",
                "region 2 holds a byte per chunk, by `offset / chunk_size * notify_size`",
            )
            .differs("with `--two-regions`; else at the end of region 1"),
        ],
    ),
    (
        "Control queue",
        &[
            section(
                "Request",
                "class and cmd, command, status, reply; status and reply are writable",
            ),
            section("Request: ATTACH padded", "12 bytes, or 16 as a C structure"),
            section("ALLOC", "le64 size; answered with token and areas"),
            section("ALLOC: areas", "a buffer is a list of areas"),
            section("ATTACH", "le64 token, le32 rw_perm; answered with areas")
                .differs("READ and WRITE are both needed: the transport has no read-only mapping"),
            section(
                "ATTACH: several devices",
                "any number of devices with the permission attach a buffer",
            ),
            section("DETACH", "le64 token"),
            section("DETACH: last reference", "the memory lives until the last DETACH")
                .differs("the token dies with the DETACH of the allocator"),
            section("GRANT SET_DEFAULT", "permissions of every device"),
            section("GRANT SET_FOR_DEVICE", "permissions of one device"),
            section("EVENT_VECTOR SET", "the interrupt vector of a buffer")
                .differs("the transport has one vector: ERR for any but VIRTIO_MSI_NO_VECTOR"),
        ],
    ),
    (
        "Permissions",
        &[
            section("READ", "read access"),
            section("WRITE", "write access"),
            section("ATTACH permission", "a device may attach"),
            section("MANAGE", "a device may grant; the allocator always may"),
            section("CLEAN_DEFAULT", "the grant of a device replaces the default"),
        ],
    ),
    (
        "Status",
        &[
            section("OK", "0"),
            section("ENOENT", "2, no such buffer"),
            section(
                "E2BIG",
                "7, the reply has no room for the areas; `num` is how many there are",
            ),
            section("ENOMEM", "12, the host has no memory")
                .untested("a test would have to exhaust the memory of the host"),
            section("ENOSPC", "28, no space in the region"),
            section("PERM_EATTACH", "100, no permission to attach"),
            section("PERM_EREAD", "101, no permission to read"),
            section("PERM_EWRITE", "102, no permission to write"),
            section("ERR", "255, any other error"),
        ],
    ),
    (
        "Events",
        &[
            section("UPDATE", "another device has notified a buffer: offset, devid")
                .differs("for a driver that has subscribed; else DOORBELLS"),
            section("ATTACH event", "a device has attached a buffer: offset, devid, peers")
                .differs("for a driver that has subscribed"),
            section("DETACH event", "a device has detached a buffer: offset, devid, peers")
                .differs("for a driver that has subscribed"),
            section(
                "Notification",
                "a device writes the notify byte of a buffer; its peers get UPDATE",
            )
            .differs(
                "the byte is memory, so the driver also kicks queue 2, unless the device is awake; rings coalesce",
            ),
        ],
    ),
];

const HEAD: &str = "\
# Conformance to the draft

The ISM device against the last public draft of the virtio-ism device (virtio-comment, February 2023, \"[PATCH v3]
virtio-ism: introduce new device virtio-ism\"): each section, and the tests that show it. [spec.md](spec.md) is the
extension, [device.md](../vhost-ism/docs/device.md) the whole interface.

Generated from `vhost-ism/tests/conformance.rs` and the comments `// Draft:` above the tests, by `UPDATE=1 cargo test -p
vhost-ism --test conformance`. A section without a test has the reason in its place.
";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Directories of the tests.
const ROOTS: [&str; 3] = ["vhost-ism/src", "vhost-ism/tests", "guest-tests/tests/smc"];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns the sections that the tests of a source declare, with the name of the test.
fn declarations(source: &str) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    let mut pending: Vec<&str> = Vec::new();
    let mut is_test = false;
    for (number, line) in (1..).zip(source.lines().map(str::trim)) {
        if let Some(sections) = line.strip_prefix("// Draft: ") {
            pending.extend(sections.split("; "));
        } else if line == "#[test]" {
            is_test = true;
        } else if let Some((name, _)) = line.strip_prefix("fn ").and_then(|rest| rest.split_once('(')) {
            if !pending.is_empty() && !is_test {
                return Err(format!("line {number}: {name} is no test"));
            }
            found.extend(pending.drain(..).map(|section| (section.to_owned(), name.to_owned())));
            is_test = false;
        } else if !(line.starts_with("//") || line.starts_with("#[")) {
            if !pending.is_empty() {
                return Err(format!("line {number}: a declaration without a test"));
            }
            is_test = false;
        }
    }
    match pending.is_empty() {
        true => Ok(found),
        false => Err("a declaration at the end".to_owned()),
    }
}

/// Returns the tests of each section.
fn declared() -> BTreeMap<String, Vec<String>> {
    let repository = repository();
    let mut paths = Vec::new();
    ROOTS
        .iter()
        .for_each(|root| sources(&repository.join(root), &mut paths));
    paths.sort();
    let mut tests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in paths {
        let name = path.strip_prefix(&repository).unwrap().display();
        // Its own test of the parser.
        if path.ends_with("tests/conformance.rs") {
            continue;
        }
        let found = declarations(&fs::read_to_string(&path).unwrap());
        for (section, test) in found.unwrap_or_else(|error| panic!("{name}, {error}")) {
            tests.entry(section).or_default().push(format!("`{name}::{test}`"));
        }
    }
    tests
}

/// Returns the page, or the sections that have neither test nor reason or are not in the draft.
fn page(tests: &BTreeMap<String, Vec<String>>) -> Result<String, Vec<String>> {
    let mut page = HEAD.to_owned();
    let mut faults = Vec::new();
    for (chapter, sections) in CHAPTERS {
        let _ = write!(
            page,
            "\n## {chapter}\n\n| section | in the draft | here | tests |\n|---|---|---|---|\n"
        );
        for section in *sections {
            let shown = match tests.get(section.name) {
                Some(tests) => tests.join(", "),
                None => format!("none: {}", section.untested),
            };
            if tests.contains_key(section.name) == section.untested.is_empty() {
                let differs = match section.differs {
                    "" => "as in the draft",
                    differs => differs,
                };
                let _ = writeln!(page, "| {} | {} | {differs} | {shown} |", section.name, section.text);
            } else {
                faults.push(format!("{} has neither a test nor a reason, or both", section.name));
            }
        }
    }
    let known: Vec<&str> = CHAPTERS
        .iter()
        .flat_map(|(_, sections)| sections.iter().map(|section| section.name))
        .collect();
    let unknown = tests.iter().filter(|(section, _)| !known.contains(&section.as_str()));
    faults.extend(unknown.map(|(section, tests)| format!("{section} of {} is no section", tests.join(", "))));
    match faults.is_empty() {
        true => Ok(page),
        false => Err(faults),
    }
}

#[test]
fn every_section_of_the_draft_has_a_test_or_a_reason() {
    let expected = page(&declared()).unwrap_or_else(|faults| panic!("\n{}\n", faults.join("\n")));
    let path = repository().join("docs/conformance.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, expected).unwrap();
    } else {
        let current = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            current == expected,
            "{} is out of date: UPDATE=1 rewrites it",
            path.display()
        );
    }
}

#[test]
fn a_section_without_a_test_and_an_unknown_one_are_found() {
    let mut tests = declared();
    tests.remove("MANAGE");
    tests.insert("ENOMEM".to_owned(), vec!["`a`".to_owned()]);
    tests.insert("GRANT SET_FOR_ALL".to_owned(), vec!["`b`".to_owned()]);
    assert_eq!(
        page(&tests).unwrap_err(),
        [
            "MANAGE has neither a test nor a reason, or both",
            "ENOMEM has neither a test nor a reason, or both",
            "GRANT SET_FOR_ALL of `b` is no section",
        ]
    );
}

#[test]
fn declarations_are_of_tests() {
    let test = "/// Text.\n// Draft: OK; ERR\n#[test]\nfn answers() {\n    1\n}\nfn helper() {}\n";
    let pair = |section: &str| (section.to_owned(), "answers".to_owned());
    assert_eq!(declarations(test), Ok(vec![pair("OK"), pair("ERR")]));
    for fault in [
        "// Draft: OK\nfn helper() {}\n",
        "// Draft: OK\n\n#[test]\nfn apart() {}\n",
        "#[test]\nfn before() {}\n// Draft: OK\n",
        "#[test]\nfn one() {\n}\n// Draft: OK\nfn helper() {}\n",
    ] {
        assert!(declarations(fault).is_err(), "{fault}");
    }
}
