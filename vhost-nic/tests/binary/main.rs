//! The daemon's binary.

mod arguments;
mod confined;
#[path = "../common/namespace.rs"]
mod namespace;
mod record;
mod services;

use std::fs;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use etherparse::PacketBuilder;
use rustix::process::{Pid, Signal, kill_process};
use vhost_daemon::finding::{Kind, Severity};
use vhost_daemon::testing::json::{assert_documented, assert_snake_case};
use vhost_daemon::testing::{Daemon, Program, await_socket, eventually, is_empty, read_stats};
use vhost_nic::hca::nic_finding::Finding;

use crate::namespace::{in_namespace, ip};

/// VFIO_PCI_CONFIG_REGION_INDEX (linux/vfio.h).
const VFIO_PCI_CONFIG_REGION_INDEX: u32 = 7;
/// Doorbell register of the first UAR in BAR 0.
const UAR_DOORBELL: u64 = 0x1_0800;
const PROGRAM: Program = Program(env!("CARGO_BIN_EXE_vhost-nic"));

#[test]
fn a_signal_ends_it_and_its_sockets_are_gone() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, stats] = ["a.sock", "b.sock", "stats.sock"].map(|name| dir.path().join(name));
        let daemon = Daemon::start(
            PROGRAM
                .command()
                .arg("--socket-path")
                .arg(&a)
                .args(["--guest", &format!("path={},attach=vhost-user", b.display())])
                .arg("--stats-socket")
                .arg(&stats),
        );
        await_socket(&stats);
        await_socket(&a);
        await_socket(&b);
        let shown = read_stats(&stats);
        assert_eq!(shown["guests"][0]["guest"], "a");
        assert_eq!(shown["guests"][0]["mac"], "52:54:00:00:c5:01");
        assert_eq!(shown["guests"][1]["mac"], "52:54:00:00:c5:02");
        for guest in shown["guests"].as_array().unwrap() {
            assert!(guest["objects"].is_object(), "{guest}");
            assert_eq!(guest["pages"], 0, "{guest}");
        }
        assert_eq!(shown["switch"]["ports"].as_array().unwrap().len(), 2);
        let (code, took) = daemon.end(signal);
        assert_eq!(code, Some(0), "{signal:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(is_empty(dir.path()));
    }
}

/// Reads the start of configuration space over vfio-user, as a VMM does.
fn read_ids(client: &mut vfio_user::Client) -> [u8; 4] {
    let mut ids = [0; 4];
    client.region_read(VFIO_PCI_CONFIG_REGION_INDEX, 0, &mut ids).unwrap();
    ids
}

#[test]
fn vmms_come_and_go_and_the_daemon_ends_before_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, stats] = ["a.sock", "b.sock", "stats.sock"].map(|name| dir.path().join(name));
    let daemon = Daemon::start(
        PROGRAM
            .command()
            .arg("--socket-path")
            .arg(&a)
            .args(["--guest", &format!("path={},id=connectx-7", b.display())])
            .arg("--stats-socket")
            .arg(&stats),
    );
    await_socket(&stats);
    let mut other = vfio_user::Client::new(&b).unwrap();
    for round in 1..=5 {
        let mut client = vfio_user::Client::new(&a).unwrap();
        // Mellanox, ConnectX-5.
        assert_eq!(read_ids(&mut client), [0xb3, 0x15, 0x17, 0x10]);
        let seen = read_stats(&stats);
        assert_eq!(seen["guests"][0]["attachment"]["vfio_user"]["connections"], round);
        client.shutdown().unwrap();
    }
    assert_eq!(read_ids(&mut other), [0xb3, 0x15, 0x21, 0x10]);
    let (code, took) = daemon.end(Signal::TERM);
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(is_empty(dir.path()));
}

#[test]
fn findings_fail_the_daemon_if_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let run = |kinds: &str| {
        let args = ["--fail-on", kinds, "--socket-path", path.to_str().unwrap()];
        let daemon = Daemon::start(PROGRAM.command().args(args));
        await_socket(&path);
        let mut client = vfio_user::Client::new(&path).unwrap();
        // Memory decoding, then a doorbell in a UAR that is not allocated.
        let command = [1 << 1, 0];
        client.region_write(VFIO_PCI_CONFIG_REGION_INDEX, 4, &command).unwrap();
        client.region_write(0, UAR_DOORBELL, &[0; 8]).unwrap();
        client.shutdown().unwrap();
        kill_process(daemon.pid(), Signal::TERM).unwrap();
        daemon.fail()
    };
    let last = |text: String| text.lines().last().unwrap().to_owned();
    for kinds in ["stray_doorbell", "cq_overrun,finding=stray_doorbell", "any", "all"] {
        let (code, text) = run(kinds);
        assert_eq!(
            (code, &*last(text)),
            (Some(1), "error: findings: a: stray_doorbell (1)"),
            "{kinds}"
        );
    }
    assert_eq!(run("cq_overrun").0, Some(0));
    let args = ["--fail-on", "no_such", "--socket-path", path.to_str().unwrap()];
    let (code, text) = Daemon::start(PROGRAM.command().args(args)).fail();
    assert_eq!(code, Some(1));
    assert!(
        text.starts_with("error: --fail-on no_such: there is no such finding"),
        "{text}"
    );
    assert!(is_empty(dir.path()));
}

#[test]
fn every_field_of_the_stats_socket_is_documented() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, stats] = ["a.sock", "b.sock", "stats.sock"].map(|name| dir.path().join(name));
    let daemon = Daemon::start(
        PROGRAM
            .command()
            .arg("--socket-path")
            .arg(&a)
            .args(["--guest", &format!("path={},attach=vhost-user", b.display())])
            .arg("--stats-socket")
            .arg(&stats)
            .arg("--port")
            .arg(format!("stream={}", dir.path().join("c.sock").display()))
            .arg("--capture")
            .arg(dir.path().join("frames.pcapng")),
    );
    await_socket(&stats);
    let mut document = read_stats(&stats);
    assert_eq!(document["schema_version"], 1);
    assert_eq!(document["daemon"], "vhost-nic");
    // Kinds of errors that have not occurred are left out.
    for kind in Finding::INFOS {
        let field = match kind.severity {
            Severity::Error => "guest_errors",
            Severity::Suspicion => "suspicions",
        };
        document["guests"][0][field][kind.name] = 1.into();
    }
    assert_snake_case(&document);
    let page = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/stats.md"));
    for guest in document["guests"].as_array_mut().unwrap() {
        let live = serde_json::json!({ "hca": guest["hca"].take() });
        assert_documented(&live, page, "vhost-nic: live objects");
    }
    assert_documented(&document, page, "vhost-nic");
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
}

#[test]
fn ports_beside_the_nics_have_sockets_and_names_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let stats = dir.path().join("stats.sock");
    let (stream, datagram) = (
        format!("stream={}", at("b.sock")),
        format!("dgram={},remote={},name=far", at("d.sock"), at("e.sock")),
    );
    let daemon = Daemon::start(PROGRAM.command().args([
        "--socket-path",
        &at("a.sock"),
        "--stats-socket",
        &at("stats.sock"),
        "--port",
        &stream,
        "--port",
        &datagram,
    ]));
    await_socket(&stats);
    let links = || {
        let stats = read_stats(&stats);
        let ports = stats["switch"]["ports"].as_array().unwrap().iter();
        let links: Vec<(String, bool)> = ports
            .map(|port| (port["name"].as_str().unwrap().to_owned(), port["link_up"] == true))
            .collect();
        links
    };
    let expected = |up| [("a", true), ("b", up), ("far", true)].map(|(name, up)| (name.to_owned(), up));
    assert_eq!(links(), expected(false));
    let peer = UnixStream::connect(dir.path().join("b.sock")).unwrap();
    eventually("the link of the stream", || links() == expected(true));
    drop(peer);
    eventually("the end of the link", || links() == expected(false));
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
    assert!(is_empty(dir.path()));
    let clash = format!("stream={},name=a", at("b.sock"));
    let args = ["--socket-path", &at("a.sock"), "--port", &clash];
    let (code, text) = Daemon::start(PROGRAM.command().args(args)).fail();
    assert_eq!(code, Some(1));
    assert!(text.contains("cannot share the name a"), "{text}");
}

#[test]
fn a_tunnel_passes_frames_in_the_sandbox() {
    if !in_namespace("a_tunnel_passes_frames_in_the_sandbox") {
        return;
    }
    ip("link set lo up");
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let peer = UdpSocket::bind("127.0.0.2:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let tunnel = format!("vxlan=127.0.0.1,remote={},vni=5", peer.local_addr().unwrap());
    let stream = format!("stream={}", at("b.sock"));
    let sockets = ["--socket-path", &at("a.sock"), "--stats-socket", &at("stats.sock")];
    let ports = ["--port", &stream, "--port", &tunnel];
    let daemon = Daemon::start(PROGRAM.command().args(sockets).args(ports));
    let stats = dir.path().join("stats.sock");
    let stream = dir.path().join("b.sock");
    await_socket(&stats);
    await_socket(&stream);
    let mut guest = UnixStream::connect(&stream).unwrap();
    guest.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    eventually("the link of the stream", || {
        read_stats(&stats)["switch"]["ports"][1]["link_up"] == true
    });
    // To all, from each of two stations.
    let frame = |from: u8| [&[0xff; 6][..], &[2, 0, 0, 0, 0, from], &[0x88, 0xb5, from, from]].concat();
    let datagram = |from| [&[8, 0, 0, 0, 0, 0, 5, 0][..], &frame(from)].concat();
    peer.send_to(&datagram(1), "127.0.0.1:4789").unwrap();
    let mut bytes = [0; 4 + 16];
    guest.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes[..], [&[0, 0, 0, 16][..], &frame(1)].concat());
    guest.write_all(&[&[0, 0, 0, 16][..], &frame(2)].concat()).unwrap();
    let mut bytes = [0; 100];
    let (count, from) = peer.recv_from(&mut bytes).unwrap();
    assert_eq!(bytes[..count], datagram(2));
    assert_eq!(from.to_string(), "127.0.0.1:4789");
    let port = &read_stats(&stats)["ports"][1];
    assert_eq!((&port["name"], &port["medium"]), (&"vxlan5".into(), &"vxlan".into()));
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
}

#[test]
fn an_interface_passes_frames_in_the_sandbox() {
    if !in_namespace("an_interface_passes_frames_in_the_sandbox") {
        return;
    }
    ip("link add port0 type veth peer name port1");
    for interface in ["port0", "port1"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1").unwrap();
        ip(&format!("link set {interface} up"));
    }
    ip("address add 10.0.0.1/24 broadcast 10.0.0.255 dev port1");
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let stream = format!("stream={}", at("b.sock"));
    let sockets = ["--socket-path", &at("a.sock"), "--stats-socket", &at("stats.sock")];
    let ports = ["--port", &stream, "--port", "packet=port0"];
    let daemon = Daemon::start(PROGRAM.command().args(sockets).args(ports));
    let stats = dir.path().join("stats.sock");
    await_socket(&stats);
    let links = || {
        let stats = read_stats(&stats);
        [1, 2].map(|port| stats["switch"]["ports"][port]["link_up"] == true)
    };
    let mut guest = UnixStream::connect(dir.path().join("b.sock")).unwrap();
    guest.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    eventually("the links", || links() == [true, true]);
    let host = UdpSocket::bind("0.0.0.0:2000").unwrap();
    host.set_broadcast(true).unwrap();
    host.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    host.send_to(b"from the host", "10.0.0.255:1000").unwrap();
    let mut bytes = [0; 4 + 14 + 28 + 13];
    guest.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes[..4], [0, 0, 0, 14 + 28 + 13]);
    assert_eq!(bytes[46..], *b"from the host");
    let mut frame = Vec::new();
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [0xff; 6]);
    let ip_packet = link.ipv4([10, 0, 0, 2], [10, 0, 0, 255], 64);
    ip_packet.udp(1000, 2000).write(&mut frame, b"from the guest").unwrap();
    let length = (frame.len() as u32).to_be_bytes();
    guest.write_all(&[&length[..], &frame].concat()).unwrap();
    let mut got = [0; 100];
    let (count, from) = host.recv_from(&mut got).unwrap();
    assert_eq!(
        (&got[..count], from.to_string()),
        (&b"from the guest"[..], "10.0.0.2:1000".into())
    );
    ip("link set port1 down");
    eventually("the end of the link", || links() == [true, false]);
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
}

#[test]
fn a_capture_goes_to_standard_output_as_it_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let mut daemon = PROGRAM
        .command()
        .arg("--socket-path")
        .arg(&path)
        .args(["--capture", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = daemon.stdout.take().unwrap();
    // A section header block.
    let mut header = [0; 28];
    output.read_exact(&mut header).unwrap();
    assert_eq!(header[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    assert_eq!(header[24..], 28_u32.to_ne_bytes());
    await_socket(&path);
    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
}

#[test]
fn a_capture_of_a_running_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let [guest, control, file] = ["a.sock", "control.sock", "a.pcapng"].map(|name| dir.path().join(name));
    let control = control.to_str().unwrap();
    let args = ["--socket-path", guest.to_str().unwrap(), "--control-socket", control];
    let daemon = Daemon::start(PROGRAM.command().args(args));
    await_socket(Path::new(control));
    let capture = |more: &[&str]| {
        let args = ["capture", "--control-socket", control, "--seconds", "0.1"];
        PROGRAM.command().args(args).args(more).output().unwrap()
    };
    let header = [&[0x0a, 0x0d, 0x0d, 0x0a][..], &28_u32.to_ne_bytes()].concat();
    // Nothing is sent: there is a section header only.
    let path = file.to_str().unwrap();
    let captured = capture(&["--port", "a", "--commands", "--output", path]);
    assert_eq!((captured.status.code(), &captured.stderr[..]), (Some(0), &b""[..]));
    let bytes = fs::read(&file).unwrap();
    assert_eq!((bytes.len(), &bytes[..8]), (28, &header[..]));
    assert_eq!(capture(&[]).stdout, bytes);
    fs::remove_file(&file).unwrap();
    for (more, reason) in [
        (
            &["--port", "b", "--output", path][..],
            "cannot capture: the daemon refused: there is no guest or port \"b\"",
        ),
        (
            &["--output", control],
            &format!("cannot write the capture to {control}: it is a FIFO that no process reads from, or a socket"),
        ),
    ] {
        let refused = capture(more);
        assert_eq!(refused.status.code(), Some(1));
        assert_eq!(String::from_utf8(refused.stderr).unwrap(), format!("error: {reason}\n"));
    }
    assert!(!file.exists());
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
}

#[test]
fn a_live_stream_that_the_daemon_ends_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let [guest, control] = ["a.sock", "control.sock"].map(|name| dir.path().join(name));
    let control = control.to_str().unwrap();
    let args = ["--socket-path", guest.to_str().unwrap(), "--control-socket", control];
    let daemon = Daemon::start(PROGRAM.command().args(args));
    await_socket(Path::new(control));
    let start = |args: &[&str]| {
        let mut command = PROGRAM.command();
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut captures = [&["--seconds", "3600"][..], &[]].map(|more| {
        let args = [&["capture", "--control-socket", control][..], more].concat();
        start(&args)
    });
    for capture in &mut captures {
        // A section header block: it has begun.
        capture.stdout.as_mut().unwrap().read_exact(&mut [0; 28]).unwrap();
    }
    let mut findings = start(&["ctl", "--control-socket", control, "--json", "findings", "--follow"]);
    findings.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
    let [timed, endless] = captures.map(|capture| capture.wait_with_output().unwrap());
    let findings = findings.wait_with_output().unwrap();
    for (output, reason) in [
        (timed, "error: the daemon ended the capture early, after "),
        (endless, "error: the daemon ended the capture\n"),
        (findings, "error: the daemon ended the connection\n"),
    ] {
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.starts_with(reason) && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn an_inherited_socket_is_left_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let (path, own) = (dir.path().join("inherited.sock"), dir.path().join("own.sock"));
    let listener = UnixListener::bind(&path).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let daemon = Daemon::start(
        PROGRAM
            .command()
            .args(["--fd", &listener.as_raw_fd().to_string()])
            .arg("--socket-path")
            .arg(&own),
    );
    drop(listener);
    await_socket(&own);
    UnixStream::connect(&path).unwrap();
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
    assert!(path.exists(), "the process that created the socket removes it");
    assert!(!own.exists());
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    drop(UnixListener::bind(&path).unwrap());
    let daemon = Daemon::start(PROGRAM.command().arg("--socket-path").arg(&path));
    eventually("the stale socket is replaced", || UnixStream::connect(&path).is_ok());
    let (code, text) = Daemon::start(PROGRAM.command().arg("--socket-path").arg(&path)).fail();
    assert_eq!(code, Some(1));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(path.exists());
    assert_eq!(daemon.end(Signal::TERM).0, Some(0));
}
