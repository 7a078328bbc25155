//! A mistake of a driver, found, and repeated by a replay of the record: a copy of the guest driver that does not
//! detach.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use guest_harness::{Image, IsmOptions, Result, query_trace, workspace_dir};

use crate::control::Control;
use crate::fixture::Setup;
use crate::trace::check_summary;

const DETACH: &str = "\tret = ism_detach_token(ism, att->token);\n";
const NO_DETACH: &str = "\tret = 0;\n";

/// Builds a copy of the guest driver that keeps every attachment.
fn build(directory: &Path) -> Result<PathBuf> {
    let driver = workspace_dir().join("guest-tests/driver");
    let copy = directory.join("driver");
    let source = copy.join("virtio_ism");
    fs::create_dir_all(&source).expect("create the copy");
    fs::copy(driver.join("build"), copy.join("build")).expect("copy the build script");
    for entry in fs::read_dir(driver.join("virtio_ism")).expect("read the driver's directory") {
        let path = entry.expect("an entry").path();
        // Its packaging is beside the sources.
        if path.is_dir() {
            continue;
        }
        fs::copy(&path, source.join(path.file_name().expect("a name"))).expect("copy a source");
    }
    let attach = source.join("ism_attach.c");
    let text = fs::read_to_string(&attach).expect("read ism_attach.c");
    assert_eq!(text.matches(DETACH).count(), 1, "the driver detaches in one place");
    fs::write(&attach, text.replace(DETACH, NO_DETACH)).expect("write ism_attach.c");

    let kernel = Image::load()?.kernel_build.expect("the kernel's build tree");
    let output = Command::new(copy.join("build")).arg(kernel).arg(&copy).output();
    let output = output.expect("the build script runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(copy.join("virtio_ism.ko"))
}

/// Replays the shortest part of a record that shows a finding. Returns what the command prints, and the file of the
/// trace.
fn replay(record: &Path, kind: &str) -> (String, PathBuf) {
    let trace = record.with_extension("pftrace");
    let output = Command::new(IsmOptions::program().expect("the daemon is built"))
        .arg("replay")
        .arg(record)
        .args(["--find", &format!("finding={kind}"), "--trace"])
        .arg(&trace)
        .output()
        .expect("the replay command runs");
    let text = String::from_utf8(output.stdout).expect("the report is text");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    (text, trace)
}

/// Guest of an event, and guest and label of its cause.
type Caused = (String, Option<(String, String)>);

/// Returns the findings of a kind in a trace.
fn in_trace(trace: &Path, kind: &str) -> Result<Vec<Caused>> {
    let query = format!(
        "select finding.guest as guest, cause.guest as of, cause.label as label from event finding \
         left join flow on flow.slice_in = finding.id left join event cause on cause.id = flow.slice_out \
         where finding.name = 'finding' and finding.track = 'finding {kind}'"
    );
    let answers = query_trace(trace, &[&query])?;
    let text = |value: &serde_json::Value| value.as_str().map(ToOwned::to_owned);
    let rows = answers[0].iter().map(|row| {
        let cause = text(&row["of"]).zip(text(&row["label"]));
        (text(&row["guest"]).expect("a guest"), cause)
    });
    Ok(rows.collect())
}

#[test]
fn a_driver_that_does_not_detach_is_found_and_repeated() -> Result<()> {
    let own = env::temp_dir().join(format!("ism-seeded-{}", std::process::id()));
    let (socket, record) = (own.with_extension("sock"), own.with_extension("record"));
    let fixture = Setup::new("ism-seeded-bug", 2)
        .daemon_args(["--control-socket", &socket.display().to_string()])
        .daemon_args(["--record", &record.display().to_string(), "--flight-recorder"])
        .start()?;
    let control = Control::new(socket.clone());
    let module = build(fixture.testbed().logs())?;
    fixture.unload_driver(0)?;
    fixture.guest(0).put(module, "/tmp/virtio_ism.ko")?;
    fixture.guest(0).run("insmod /tmp/virtio_ism.ko")?.check()?;

    // Guest 0 attaches the buffer of guest 1, which frees it while it goes on using it.
    fixture.call(0, 1, "rtt --count 20")?;
    assert_eq!(control.findings("dmb_freed_attached"), [] as [serde_json::Value; 0]);
    check_summary(&socket, &fixture.testbed().logs().join("trace.pftrace"))?;
    fixture.unload_driver(1)?;
    let found = control.findings("dmb_freed_attached");
    let [finding] = &found[..] else { panic!("{found:#?}") };
    assert_eq!(
        (&finding["guest"], &finding["object"]),
        (&"ism-1".into(), &"dmb".into()),
        "{finding:#}"
    );
    assert_eq!(control.findings("attachment_left"), [] as [serde_json::Value; 0]);
    fixture.unload_driver(0)?;
    let left = control.findings("attachment_left");
    let [finding] = &left[..] else { panic!("{left:#?}") };
    assert_eq!(finding["guest"], "ism-0", "{finding:#}");

    // The right driver leaves nothing.
    fixture.load_driver(0)?;
    fixture.load_driver(1)?;
    fixture.call(0, 1, "rtt --count 20")?;
    fixture.unload_driver(1)?;
    fixture.load_driver(1)?;
    assert_eq!(control.findings("dmb_freed_attached").len(), 1);
    assert_eq!(control.findings("attachment_left").len(), 1);
    fixture.finish()?;

    // The freeing request is at fault, but no request is for what is left at a reset.
    let findings = [
        ("dmb_freed_attached", "ism-1", Some("DETACH taken")),
        ("attachment_left", "ism-0", None),
    ];
    for (kind, guest, request) in findings {
        let (text, trace) = replay(&record, kind);
        let found = format!("finding {kind} in entry ");
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(&found)).collect();
        let [line] = &lines[..] else { panic!("{text}") };
        // The prefix ends with the entry of the finding.
        let (entry, rest) = line[found.len()..].split_once(": ").expect("a place");
        let entry: u64 = entry.parse().expect("a number");
        assert!(rest.starts_with(&format!("{guest}: dmb ")), "{line}");
        let length = format!("\nshortest prefix that shows {kind}: {} entries\n", entry + 1);
        assert!(text.contains(&length), "{text}");
        assert!(text.contains("\nall outputs are equal\n"), "{text}");
        let cause = request.map(|request| (guest.to_owned(), request.to_owned()));
        assert_eq!(in_trace(&trace, kind)?, [(guest.to_owned(), cause)], "{kind}");
        fs::remove_file(trace).expect("the trace can be removed");
    }
    if env::var_os("UPDATE").is_some() {
        let kept = workspace_dir().join("vhost-ism/tests/records/linux.record");
        let mut command = Command::new(IsmOptions::program()?);
        let status = command.arg("replay").arg(&record).arg("--output").arg(kept).status();
        assert!(status.expect("the replay command runs").success());
    }
    fs::remove_file(record).expect("the record can be removed");
    Ok(())
}
